"""Reads a study's folder and has `analysis` write its report."""

import json
from collections.abc import Iterator

import pandas as pd

from analysis.report import write_report
from budgets.flops import CONVENTION
from runners.results import CURVE_COLUMNS, RESULT_COLUMNS, read_json_lines, read_table, to_frame
from study.column_maps import PAPER_FIGURES, read_any_table
from study.study import Study


def report_study(study: Study) -> Iterator[str]:
    """Writes ``results/<study>/report/`` and yields the lines that say what was found.

    Raises:
        ValueError: The study has not been run.
    """
    folder = study.folder
    if not (folder / "plan.parquet").exists():
        raise ValueError(f"{folder} holds no study; run `python -m study run {study.declaration.name}` first")
    summary = write_report(
        folder / "report",
        declaration={
            "name": study.declaration.name,
            "metric": study.declaration.metric,
            "study_budget_flops": study.declaration.study_flops,
        },
        declaration_text=(folder / "study.yaml").read_text(encoding="utf-8"),
        results=_table_or_empty(study, "results.parquet", RESULT_COLUMNS),
        curves=_table_or_empty(study, "curves.parquet", CURVE_COLUMNS),
        plan=read_table(folder / "plan.parquet"),
        left_out=read_table(folder / "left-out.parquet"),
        ledger=read_json_lines(folder / "ledger.jsonl"),
        events=read_json_lines(folder / "events.jsonl"),
        provenance=json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        | {"FLOPs": CONVENTION},
        published=read_any_table(PAPER_FIGURES),
    )
    yield from summary.lines
    yield f"report: {summary.page}"


def _table_or_empty(study: Study, name: str, columns: dict[str, str]) -> pd.DataFrame:
    path = study.folder / name
    return read_table(path) if path.exists() else to_frame([], columns)
