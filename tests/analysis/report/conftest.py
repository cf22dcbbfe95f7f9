"""A report that several files of tests read."""

from dataclasses import replace

import pytest

from analysis.cells.study_frames import StudyFrames
from tests.analysis.report.report_writer import HOSTILE, MARKED_UP, Written, write


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, frames: StudyFrames) -> Written:
    """Write a report with markup in the names of study, architectures, failures and declaration."""
    results = frames.results.replace({"architecture": {"ViT-M": MARKED_UP}})
    results.loc[results.index[0], ["status", "reason"]] = ["failed", HOSTILE]
    folder = tmp_path_factory.mktemp("study") / "report"
    return write(folder, replace(frames, results=results), name=HOSTILE, text=HOSTILE, why=True)
