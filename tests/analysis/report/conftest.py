"""A report that several files of tests read."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.report.report import write_report

HOSTILE = "<script>alert('caption')</script>"
MARKED_UP = "ViT-<b>M</b>"
"""Name of an architecture of the same family as the others."""


class Written(NamedTuple):
    """The page of a report, and the lines that the command line prints."""

    page: Path
    lines: tuple[str, ...]


def write(
    folder: Path,
    frames: StudyFrames,
    *,
    name: str = "made-up",
    text: str = "name: made-up\n",
    why: bool = False,
) -> Written:
    provenance = {"convention": "6 × forward MACs", "hardware": "2 cores", "seeds": "0, 1, 2"}
    study = replace(frames, name=name, budget_flops=4e14)
    lines = write_report(folder, study, declaration_text=text, provenance=provenance, why=why)
    return Written(folder / "report.html", lines)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory, frames: StudyFrames) -> Written:
    """Write a report with markup in the names of study, architectures, failures and declaration."""
    results = frames.results.replace({"architecture": {"ViT-M": MARKED_UP}})
    results.loc[results.index[0], ["status", "reason"]] = ["failed", HOSTILE]
    folder = tmp_path_factory.mktemp("study") / "report"
    return write(folder, replace(frames, results=results), name=HOSTILE, text=HOSTILE, why=True)
