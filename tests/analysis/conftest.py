"""Simulated studies, shared by the tests of the analysis."""

from dataclasses import replace

import pytest

from analysis.report.analyse import Analysis, analyse
from analysis.report.study_frames import StudyFrames
from tests.analysis.report.report_writer import HOSTILE, MARKED_UP, Written, write
from tests.analysis.synthetic import study


@pytest.fixture(scope="session")
def frames() -> StudyFrames:
    """Return a study of three seeds and three levels."""
    return study()


@pytest.fixture(scope="session")
def analysed(frames: StudyFrames) -> Analysis:
    """Return the analysis of that study."""
    return analyse(frames)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, frames: StudyFrames) -> Written:
    """Write its report with markup in the names of study, architectures, failures and declaration."""
    results = frames.results.replace({"architecture": {"ViT-M": MARKED_UP}})
    results.loc[results.index[0], ["status", "reason"]] = ["failed", HOSTILE]
    folder = tmp_path_factory.mktemp("study") / "report"
    return write(folder, replace(frames, results=results), name=HOSTILE, text=HOSTILE)
