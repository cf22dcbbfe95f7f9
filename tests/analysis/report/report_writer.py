"""Report of a simulated study, for the tests of its files and of its page in a browser."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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
