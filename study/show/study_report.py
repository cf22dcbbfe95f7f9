"""Reports of run and imported studies, and pages of the paper's figures, from files to `analysis`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis.charts.tuning_figures import Tuned
from analysis.paper.paper_figures import paper_figures
from analysis.paper.paper_page import write_paper_page
from analysis.paper.paper_panels import READERS
from analysis.report.report import write_report
from analysis.report.study_frames import StudyFrames
from budgets.cost.flops import CONVENTION
from runners.results import CURVE_COLUMNS, RESULT_COLUMNS, read_json_lines, read_table, to_frame
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map, read_any_table
from study.state.begun import begun
from study.state.design import not_chosen
from study.state.imported import Imported
from study.state.study import Study

_MOST_PROCESSES = 4


def report_study(study: Study) -> Iterator[str]:
    """Write ``results/<study>/report/`` and yield the lines of the findings.

    Raises:
        ValueError: The study has not been run.
    """
    folder = study.folder
    if not (folder / "plan.parquet").exists():
        raise ValueError(f"{folder} has no results; run `python -m study run {study.declaration.name}` first")
    planned = read_table(folder / "plan.parquet")
    plan = planned[~not_chosen(study.declaration, folder, planned)]
    results = _table_or_empty(study, "results.parquet", RESULT_COLUMNS)
    missing = plan[~plan["trial"].isin(results["trial"])]
    frames = StudyFrames(
        name=study.declaration.name,
        metric=study.declaration.metric,
        budget_flops=study.declaration.study_flops,
        results=results,
        curves=_table_or_empty(study, "curves.parquet", CURVE_COLUMNS),
        plan=plan,
        left_out=read_table(folder / "left-out.parquet"),
        ledger=read_json_lines(folder / "ledger.jsonl"),
        events=read_json_lines(folder / "events.jsonl"),
        begun=begun(folder, dict(zip(missing["trial"], missing["steps"], strict=True))),
        tuned=_tuned(study),
        published=read_any_table(PAPER_FIGURES),
    )
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    summary = write_report(
        folder / "report",
        frames,
        declaration_text=(folder / "study.yaml").read_text(encoding="utf-8"),
        provenance=environment | {"FLOPs": CONVENTION},
        processes=_processes(),
    )
    yield from summary.lines
    yield f"report: {summary.page}"


def report_imported(study: Imported) -> Iterator[str]:
    """Write the report of an imported study, like `report_study`.

    Raises:
        ValueError: Its folder can't be read.
    """
    results, dropped = study.results(), study.dropped()
    record, rows = study.record, f"{study.record['rows']:,}"
    frames = StudyFrames(
        name=study.name,
        metric=study.metric,
        results=results,
        left_out=dropped,
        published=read_any_table(PAPER_FIGURES),
        imported=f"{record['rows'] - len(dropped):,} of {rows} rows of {record['table']}, imported",
    )
    summary = write_report(
        study.folder / "report",
        frames,
        declaration_text=study.map_text,
        provenance={
            "Table": record["title"],
            "File": f"{record['table']}, {rows} rows, SHA-256 {record['sha256']}",
            "Map": record["map"],
            "FLOPs": "computed from the table by the map",
        },
        processes=_processes(),
    )
    yield from summary.lines
    yield f"report: {summary.page}"


def report_paper(results: Path, study: Study | Imported | None) -> Iterator[str]:
    """Draw the paper's digitised figures in the style of a study's, next to the study's if one is given.

    Args:
        results: Folder of studies; without a study, the page goes to its subfolder ``paper-figures``.
        study: A study that has a report, or None.

    Yields:
        A line with the path of the page.
    """
    maps = {name: load_column_map(find_column_map(name)) for name in READERS}
    figures = paper_figures(read_any_table(PAPER_FIGURES), maps)
    if study is None:
        page = write_paper_page(results / "paper-figures", figures, processes=_processes())
    else:
        report = study.folder / "report"
        page = write_paper_page(
            report / "paper", figures, study=study.folder.name, theirs=report / "figures",
            processes=_processes(),
        )  # fmt: skip
    yield f"the paper's figures: {page}"


def _processes() -> int:
    """Return the number of processes that draw figures."""
    return min(_MOST_PROCESSES, len(os.sched_getaffinity(0)))


def _tuned(study: Study) -> Tuned | None:
    """Return the results of the study's tuning so far, with the winners once ``tuning.json`` has them."""
    tuning, own, path = study.declaration.tuning, study.declaration.metric, study.folder / "tuning.parquet"
    if tuning is None or not path.exists():
        return None
    tried, decided = read_table(path), study.folder / "tuning.json"
    known = json.loads(decided.read_text(encoding="utf-8")) if decided.exists() else {}
    apart = f"validation/{own.partition('/')[2]}"
    selects = tuning.metric or (apart if apart in tried else own)
    return Tuned(tried=tried, metric=known.get("metric", selects), winners=known.get("winners", ()))


def _table_or_empty(study: Study, name: str, columns: dict[str, str]) -> pd.DataFrame:
    path = study.folder / name
    return read_table(path) if path.exists() else to_frame([], columns)
