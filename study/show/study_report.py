"""Reports of run and imported studies, and pages of the paper's figures: reads the files for `analysis`."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from analysis.cells.imported_table import import_table
from analysis.cells.study_frames import StudyFrames, Tuned, by_phase
from analysis.cells.table import first_attempts, used_attempts
from analysis.labels import call_strategies
from analysis.report.analyse import OnProgress, no_progress
from analysis.report.comparison import write_comparison
from analysis.report.paper import READERS, paper_figures, write_paper_page
from analysis.report.report import write_report
from analysis.report.report_tables import attempts
from budgets.cost.architecture import own_architectures
from budgets.cost.flops import CONVENTION
from budgets.declaration.data_sections import MixedPool
from budgets.declaration.declaration import Declaration
from budgets.names import without_secrets
from budgets.quantity import format_flops, format_number, plural
from runners.data.build.table_file import read_any_table, read_results
from runners.host.workers import usable_cores
from runners.results import (
    CURVE_COLUMNS,
    MIDWAY_COLUMNS,
    RESULT_COLUMNS,
    SCORE_COLUMNS,
    read_events,
    to_frame,
)
from runners.store.files import read_bytes, read_sealed
from runners.trials.trial_files import MIDWAY
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map, shipped_table
from study.declare.dump import plain
from study.state.book import planned_rows, read_book
from study.state.design import declared_confidence, not_chosen
from study.state.environment import own_version
from study.state.study import RECORD, Imported, Study
from study.state.study_facts import counted_models
from study.state.study_status import planned_trials
from study.state.trial_states import NOT_ADDED, begun
from study.state.tuning_table import read_winners
from study.storage.lock import active_run

RELOAD_S = 30
"""Seconds after which the page of a running study reloads itself."""
_LOOK_S = 5.0
_MOST_PROCESSES = 4


def report_study(
    study: Study | Imported,
    *,
    reload_s: int | None = None,
    target_flops: float | None = None,
    why: bool = False,
    progress: OnProgress = no_progress,
) -> Iterator[str]:
    """Write ``results/<study>/report/`` and yield the lines of the findings.

    The page reloads itself after ``reload_s`` seconds, if given; with ``why`` each answer is followed by its
    reasons. The scaling panels extrapolate to ``target_flops`` (default: the compute of the declared
    forecast, or ten times the largest).

    Raises:
        ValueError: The study has not been run, the folder of an imported one can't be read, or the target is
            not beyond its trials.
    """
    frames = study_frames(study)
    if target_flops is not None:
        largest = frames.every("results")["train_flops"].max()
        if target_flops <= largest:
            raise ValueError(
                f"--target {format_flops(target_flops)} is not beyond the study's largest trial, "
                f"{format_flops(largest)}"
            )
        frames = replace(frames, target_flops=target_flops)
    origin = study.folder / ("map.yaml" if isinstance(study, Imported) else "study.yaml")
    yield from write_report(
        study.folder / "report", frames, provenance=_provenance(study, frames), processes=_processes(),
        declaration_text=without_secrets(read_bytes(origin).decode()),
        reload_s=reload_s, why=why, progress=progress,
    )  # fmt: skip
    yield from (f"trial {trial} was run again: {words}" for trial, words in frames.again.items())
    page = study.folder / "report" / "report.html"
    if target_flops is not None and not (page.parent / "figures" / "scaling-model-size.svg").exists():
        yield "--target has no effect: no scaling panel could be drawn; the report says why"
    lacking = sum(words.endswith(NOT_ADDED) for words in frames.begun.values())
    if lacking and active_run(study.folder) is None:
        yield f"note: the report lacks {plural(lacking, 'trial')} without a row in the results; {NOT_ADDED}"
    yield f"report: {page}"


def watch_study(study: Study, say: Callable[[str], None]) -> None:
    """Rewrite a study's report as results come, until its run has ended.

    The page reloads itself until then; ``say`` is called with a line about each page.

    Raises:
        ValueError: The study has not been run.
    """
    study.await_run("plan.parquet", say=say)
    seen: tuple[int, bool] | None = None
    going = True
    while going:
        study.storage.refresh()
        going = active_run(study.folder) is not None
        table = study.folder / "results.parquet"
        state = (table.stat().st_mtime_ns if table.exists() else 0, going)
        began = time.monotonic()
        if state != seen:
            *_, page = report_study(study, reload_s=RELOAD_S if going else None)
            say(page if going else f"{page}; no run is active")
            seen = state
        if going:
            # The report takes at most a fifth of a core from the trials.
            time.sleep(max(_LOOK_S, 4 * (time.monotonic() - began)))


def study_frames(study: Study | Imported) -> StudyFrames:
    """Read the frames of a study, finished or not.

    Raises:
        ValueError: The study has not been run, or the folder of an imported one can't be read.
    """
    if isinstance(study, Imported):
        return _imported_frames(study)
    folder = study.folder
    study.require_run("plan.parquet")
    planned = study.read_table("plan.parquet")
    call_strategies(planned)
    apart = not_chosen(study.declaration, folder, planned)
    plan = planned[~apart]
    every = _table_or_empty(study, "results.parquet", RESULT_COLUMNS)
    results, missing = used_attempts(every, every), first_attempts(plan)
    missing = missing[~missing["trial"].isin(results["trial"])]
    cluster = study.declaration.cluster
    spent = read_book(study, planned_rows(planned_trials(study))).frame()
    return StudyFrames(
        name=study.declaration.name,
        metric=study.declaration.metric,
        price_per_hour=None if cluster is None else cluster.price_per_hour,
        budget_flops=study.declaration.budget.study_flops,
        architectures=own_architectures(study.declaration.catalogue),
        settings=_settings(study.declaration, results),
        target_flops=study.declaration.design.forecast,
        confidence=declared_confidence(study.declaration),
        **by_phase(results=results, plan=plan, not_chosen=planned[apart]),
        again=attempts(every, study.declaration.metric),
        curves=used_attempts(_table_or_empty(study, "curves.parquet", CURVE_COLUMNS), every),
        midway=used_attempts(_table_or_empty(study, MIDWAY, MIDWAY_COLUMNS), every),
        left_out=study.read_table("left-out.parquet"),
        scores=_table_or_empty(study, "scores.parquet", SCORE_COLUMNS),
        spent=spent,
        events=read_events(folder / "events.jsonl"),
        begun=begun(folder, dict(zip(missing["trial"], missing["steps"], strict=True))),
        tuned=_tuned(study, spent),
    )


def _imported_frames(study: Imported) -> StudyFrames:
    record, dropped = study.record, study.read_table("dropped.parquet")
    return StudyFrames(
        name=study.name,
        metric=study.metric,
        results=study.read_table("results.parquet"),
        unread=dropped,
        sweeps=study.read_table("sweep.parquet")
        if (study.folder / "sweep.parquet").exists()
        else pd.DataFrame(),
        imported=f"{record['rows'] - len(dropped):,} of {plural(record['rows'], 'row')} "
        f"of {record['table']}, imported",
    )


def prior_frames(name: str, table: Path | None = None) -> StudyFrames:
    """Return the frames of any table by the name of its column map; by default of the table beside the map.

    Raises:
        ValueError: There is no such map, or the table does not fit it.
    """
    path = find_column_map(name)
    columns = load_column_map(path)
    results = import_table(read_results([table or shipped_table(path)]), columns)
    return StudyFrames(name=columns.title, metric=columns.metric, results=results, imported=columns.title)


def _provenance(study: Study | Imported, frames: StudyFrames) -> dict[str, str]:
    """Return the versions and data behind a report, as shown at its end."""
    # Neither the time nor the commit: remade, the report of a study stays the same.
    made = {"Report made with": own_version().partition(",")[0]}
    if isinstance(study, Imported):
        record = study.record
        return {
            "Table": record["title"],
            "File": f"{record['table']}, {plural(record['rows'], 'row')}, SHA-256 {record['sha256']}",
            "Map": record["map"],
            "FLOPs": "computed from the table by the map",
            **made,
        }
    environment = read_sealed(study.folder / "environment.json", "run the study again to rewrite it")
    counted = counted_models(study.declaration)
    measured = f" Measured by torch's FLOP counter, without closed form: {counted}." if counted else ""
    name = ", ".join(
        without_secrets(pool.path) if pool.path is not None else pool.content
        for pool in study.declaration.sources.values()
    )
    last = {}
    if len(frames.events):
        time = datetime.fromtimestamp(float(frames.events["time"].max()), tz=UTC)
        last["Last event of the runs"] = time.isoformat(timespec="seconds")
    return {
        **made,
        **last,
        "Pool": name,
        **_evaluated(frames.every("results")),
        **{
            f"Trained with: {key}" if key == "version" else key: str(text)
            for key, text in environment.items()
        },
        "FLOPs": CONVENTION + measured,
    }


def _evaluated(results: pd.DataFrame) -> dict[str, str]:
    """Return the number of finished trials by version of the evaluation, if there are several versions."""
    finished = results.loc[results["status"] == "finished", "evaluation_version"]
    versions = finished.value_counts().sort_index()
    if len(versions) <= 1:
        return {}
    counts = ", ".join(f"{plural(count, 'trial')} by version {name}" for name, count in versions.items())
    return {"Evaluation": f"{counts}; their metrics differ by rounding, unless classes have equal prompts"}


def _settings(declaration: Declaration, results: pd.DataFrame) -> dict[str, str]:
    """Return what was declared of data and training by its key, and how runs were evaluated."""
    declared = plain(declaration)
    sections = pd.json_normalize({key: declared.get(key, {}) for key in ("pool", "pools", "training")})
    settings = {str(key): str(value) for key, value in sections.to_dict("records")[0].items()}
    settings |= {f"mixture {name}": _parts(parts) for name, parts in declaration.mixtures.items()}
    versions = sorted(results["evaluation_version"].dropna().unique())
    return settings | {"version of the evaluation": ", ".join(f"{version:g}" for version in versions)}


def _parts(mixture: Mapping[str, MixedPool]) -> str:
    """Return the pools of a mixture in words, each with its share of the samples where it has a weight."""
    whole = sum(part.weight or 0 for part in mixture.values())
    words = []
    for name, part in sorted(mixture.items()):
        share = "" if part.weight is None else f"{format_number(100 * part.weight / whole, '.3g')} % "
        pairs = "" if part.pairs is None else f", {plural(part.pairs, 'pair')}"
        words.append(f"{share}{name} ({part.quality}{pairs})")
    return " + ".join(words)


def report_comparison(
    studies: Sequence[Study | Imported], results: Path, *, name: str | None
) -> Iterator[str]:
    """Write ``comparisons/NAME/comparison.html`` and yield what changed in the answer.

    The others are compared with the first study; NAME is ``A-vs-B`` by default.

    Raises:
        ValueError: The studies can't be compared, the name is not a folder's, or a study has the folder.
    """
    frames = [study_frames(study) for study in studies]
    name = name or "-vs-".join(of_study.name for of_study in frames)
    if Path(name).name != name or name == "..":  # the folder is replaced as a whole
        raise ValueError(f"--name {name}: not the name of a folder; leave out any path")
    folder = _no_study(results / "comparisons") / name
    yield from write_comparison(folder, frames)
    yield f"comparison: {folder / 'comparison.html'}"


def report_paper(results: Path, study: Study | Imported | None) -> Iterator[str]:
    """Draw the paper's digitised figures and yield the path of their page.

    With a study, the page shows the figures of the study's report beside them and goes into that report;
    without one, it goes to ``paper-figures`` in the folder of studies.

    Raises:
        ValueError: A study has the page's folder.
    """
    maps = {name: load_column_map(find_column_map(name)) for name in READERS}
    figures = paper_figures(read_any_table(PAPER_FIGURES), maps)
    if study is None:
        page = write_paper_page(_no_study(results / "paper-figures"), figures, processes=_processes())
    else:
        report = study.folder / "report"
        page = write_paper_page(
            report / "paper", figures, study=study.folder.name, theirs=report / "figures",
            processes=_processes(),
        )  # fmt: skip
    yield f"the paper's figures: {page}"


def _no_study(folder: Path) -> Path:
    """Return a folder whose files a page replaces; refuse that of a study."""
    if any((folder / name).exists() for name in (RECORD, "study.yaml")):
        raise ValueError(f"{folder} is the folder of a study; give another --results FOLDER for the page")
    return folder


def _processes() -> int:
    return min(_MOST_PROCESSES, usable_cores())


def _tuned(study: Study, spent: pd.DataFrame) -> Tuned | None:
    """Return the results of the study's tuning so far, with the winners once ``tuning.json`` has them."""
    if study.declaration.tuning is None or not study.has(["tuning.parquet"]):
        return None
    tried, known = study.read_table("tuning.parquet"), read_winners(study.folder / "tuning.json")
    metric = known.get("metric", study.declaration.tuning_metric(tried.columns))
    checked = {*known.get("neighbours", ())}
    paid = spent.loc[spent["what"].isin(checked), ["spent_flops", "wasted_flops"]]
    listed = {name: known.get(name, ()) for name in ("winners", "at_chance", "carried", "checks", "left_out")}
    return Tuned(
        tried=tried, metric=metric, **listed, check_flops=known.get("check_flops", 0),
        check_paid=int(paid.to_numpy().sum()),
    )  # fmt: skip


def _table_or_empty(study: Study, name: str, columns: dict[str, str]) -> pd.DataFrame:
    return study.read_table(name) if study.has([name]) else to_frame([], columns)
