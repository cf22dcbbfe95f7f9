"""Made-up studies, shared by the tests of the analysis."""

import pytest

from tests.analysis.synthetic import StudyFrames, study


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Three seeds, three levels."""
    return study()
