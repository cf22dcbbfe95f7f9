"""Writes the report of a made-up study, for the tests of its files and of its page in a browser."""

from pathlib import Path

from analysis.report.report import ReportSummary, write_report
from tests.analysis.synthetic import StudyFrames

HOSTILE = "<script>alert('caption')</script>"


def write(
    folder: Path, frames: StudyFrames, *, name: str = "made-up", text: str = "name: made-up\n"
) -> ReportSummary:
    provenance = {
        "convention": "6 × forward MACs",
        "hardware": "2 cores",
        "seeds": "0, 1, 2",
    }
    return write_report(
        folder,
        declaration={"name": name, "metric": "held-out/top1", "study_budget_flops": 4e14},
        declaration_text=text,
        results=frames.results,
        curves=frames.curves,
        plan=frames.plan,
        left_out=frames.left_out,
        ledger=frames.ledger,
        events=frames.events,
        provenance=provenance,
    )
