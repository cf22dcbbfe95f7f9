"""Made-up studies, shared by the tests of the analysis."""

import pytest

from analysis.report.study_frames import StudyFrames
from tests.analysis.synthetic import study


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Three seeds, three levels."""
    return study()
