"""A simulated study and a shipped one, shared by the tests of the analysis."""

import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.report.analyse import Analysis, analyse
from tests.analysis.synthetic import study
from tests.root import ROOT


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Return a study of three seeds and three levels."""
    return study()


@pytest.fixture(scope="session")
def analysed(frames: StudyFrames) -> Analysis:
    """Return the analysis of that study."""
    return analyse(frames)


@pytest.fixture(scope="session")
def small_full() -> pd.DataFrame:
    """Return the results of the shipped full grid."""
    return pd.read_parquet(ROOT / "results" / "small-full" / "results.parquet")
