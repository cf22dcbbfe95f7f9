"""Simulated studies, shared by the tests of the analysis."""

import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.report.analyse import Analysis, analyse
from tests.analysis.synthetic import study


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Return a study of three seeds and three levels."""
    return study()


@pytest.fixture(scope="session")
def analysed(frames: StudyFrames) -> Analysis:
    """Return the analysis of that study."""
    return analyse(frames)
