"""Simulated studies, shared by the tests of the analysis."""

import pytest

from tests.analysis.synthetic import StudyFrames, study


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Return a study of three seeds and three levels."""
    return study()
