"""Writing of a study's report folder: report.html, figures/ and tables/."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from analysis.answers.best import turns, unranked
from analysis.answers.cost import notable_score
from analysis.answers.outliers import outlier_lines
from analysis.belief.curves import X_COLUMNS
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import first_attempts, records
from analysis.charts import (
    bar_figures,
    check_figures,
    compute_figures,
    run_figures,
    scaling_figures,
    size_figures,
    tuning_figures,
    worth_figures,
)
from analysis.charts.figure_data import FigureData, Missing
from analysis.drawing.save import helpers, save_all
from analysis.labels import budget_text, configuration_text
from analysis.laws.laws import Measure
from analysis.report import law_tables, page, tables
from analysis.report.analyse import Analysis, OnProgress, analyse, no_progress
from analysis.report.table_files import replacing
from analysis.report.table_files import save as save_table
from analysis.report.tuning_tables import design_tables, sweep_table, tuning_tables
from budgets.quantity import format_flops, plural

_OTHER_METRICS = (
    ("retrieval", "Retrieval", ("image_to_text_r1", "text_to_image_r1")),
    ("probe", "Linear probe and few-shot", ("probe_top1", "few_shot_5_top1", "few_shot_10_top1")),
)
"""Figures of further metrics over compute: name, title and metrics."""


def write_report(  # noqa: PLR0913 (a study, where it goes, and what the page says of itself)
    folder: Path,
    study: StudyFrames,
    *,
    declaration_text: str,
    provenance: Mapping[str, str],
    processes: int = 1,
    made: str = "",
    reload_s: int | None = None,
    progress: OnProgress = no_progress,
) -> tuple[str, ...]:
    """Analyse a study, finished or not, and write its report.

    The files of ``folder`` are replaced when all of the new report are complete. ``provenance`` (versions,
    hardware, FLOP convention) and ``declaration_text`` are shown as they are; ``made`` is the time of the
    page in ISO format, ``reload_s`` the seconds after which it reloads itself.

    Returns:
        The answers as the command line prints them: finished trials, then the best at each budget.

    Raises:
        ValueError: A frame does not match its schema; see ``table.tidy``.
    """
    tuned = study.tuned
    with helpers(processes - 1) as pool:
        found = analyse(study, progress)
        figures, shown = report_figures(found, study), report_tables(found, study)
        if tuned is not None and len(tuned.tried):
            figures, shown = (*figures, *tuning_figures.figures(tuned)), (*shown, *tuning_tables(tuned))
        shown = (*shown, *design_tables(study.events))
        with replacing(folder) as new:
            (new / "figures").mkdir()
            (new / "tables").mkdir()
            drawn = [data for data in figures if isinstance(data, FigureData)]
            svgs = save_all(drawn, new / "figures", pool, partial(progress, "figures"))
            for table in shown:
                save_table(table, new / "tables")
            text = page.render(
                found, study=study, declaration_text=declaration_text, figures=figures, svgs=svgs,
                tables={table.name: table for table in shown}, provenance=provenance,
                made=made, reload_s=reload_s,
            )  # fmt: skip
            (new / "report.html").write_text(text, encoding="utf-8")
    return summary_lines(found)


def report_figures(found: Analysis, study: StudyFrames) -> tuple[FigureData | Missing, ...]:
    """Return the figures of a report in their order, as data; those unsupported as ``Missing`` with why."""
    metric, draws, best, midway = found.trials.metric, found.draws, found.best, study.midway
    measured = Measure(metric=metric, draws=draws, laws=found.laws)
    course: tuple[FigureData | Missing, ...] = (
        run_figures.training_loss(found.trials, draws, study.curves, found.outliers["trial"].tolist()),
        *([] if midway.empty else [run_figures.midway_errors(found.trials, draws, midway, study.results)]),
        run_figures.plan_grid(first_attempts(study.plan), study.left_out, study.results),
        run_figures.spent_bars(study.plan, study.spent, study.events),
        run_figures.schedule(study.plan, study.events),
        *run_figures.design_course(study.events),
    )
    if found.imported:
        why = "the study was imported from a table, which does not record how it was run"
        course = tuple(Missing(title=each.title, reason=why) for each in course)
    return (
        *(compute_figures.over_compute(measured, best, axis=axis) for axis in ("architecture", "strategy")),
        compute_figures.pareto(found.trials, found.pareto),
        size_figures.over_data(measured),
        size_figures.over_epochs([measured]),
        *(size_figures.over_pairs([measured], axis=axis) for axis in ("architecture", "strategy")),
        bar_figures.quality_bars([measured], waiting=found.missing),
        *(worth_figures.equivalence(draws, found.comparisons, along=along) for along in X_COLUMNS),
        worth_figures.shift(study.results, metric=metric, draws=draws),
        *(
            compute_figures.over_compute_of(study.results, name=name, title=title, endings=endings)
            for name, title, endings in _OTHER_METRICS
        ),
        size_figures.isoflop(draws, found.profiles, metric=metric),
        scaling_figures.scaling_figure(
            found.growths, found.profiles, found.exponents, target_flops=study.target_flops
        ),
        check_figures.forecasts(found.holdout, metric=metric),
        *(each for each in course if not _as_planned(each)),
    )


def _as_planned(each: FigureData | Missing) -> bool:
    """Return whether a figure of the plan or of what was spent shows only that all was done as planned."""
    if isinstance(each, Missing):
        return False
    if each.name == "plan":
        return set(each.frame["series"]) == {"finished"}
    if each.name == "spent":
        spent = each.frame.pivot_table(index="label", columns="series", values="x")
        return set(spent) == {"planned", "spent"} and bool((spent["planned"] == spent["spent"]).all())
    return False


def report_tables(found: Analysis, study: StudyFrames) -> tuple[tables.Table, ...]:
    """Return the tables of a report."""
    unit = found.draws.error_unit
    return (
        tables.best(
            found.best,
            found.cost,
            metric=found.trials.metric,
            explanation=found.draws.explanation,
            confidence=found.draws.confidence,
        ),
        *(() if found.outliers.empty else (law_tables.outliers(found.outliers, unit),)),
        tables.contrasts(found.contrasts, unit),
        tables.comparisons(found.comparisons, unit),
        law_tables.parameters(found.parameters, unit),
        law_tables.curves(found.laws, unit),
        tables.profiles(found.profiles),
        law_tables.holdout(found.holdout, unit),
        law_tables.exponents(found.exponents),
        tables.pareto(found.pareto, unit),
        tables.quality_trades(found.quality_trades),
        tables.robustness(found.robustness),
        *(() if found.imported else (tables.cost(found.levels, found.cost, found.scores),)),
        tables.trials(found.trials, study.results, study.again),
        tables.unread_rows(study.unread) if found.imported else tables.left_out(study.left_out),
        tables.missing(found.missing),
        *(() if study.sweeps.empty else (sweep_table(study.sweeps, unit),)),
    )


def summary_lines(found: Analysis) -> tuple[str, ...]:
    """Return the answers as the command line prints them."""
    progress, unit = found.progress, found.draws.error_unit
    unfinished = f", {progress.excluded} failed or diverged" if progress.excluded else ""
    spent = format_flops(found.cost.spent_flops)
    left = f", {progress.not_chosen} more not chosen" if progress.not_chosen else ""
    ran = f"{progress.finished} of {progress.planned} trials finished{unfinished}{left}; {spent} spent"
    lines = [found.imported or ran]
    shown, more = turns(found.best)
    for row in records(shown):
        ends = unit.interval(row["low"], row["high"])
        tied = f" ({row['tied']})" if row["verdict"] == "tie" else ""
        lines.append(
            f"{row['at']}: {configuration_text(row)}: "
            f"{unit.named(row['error'])}{' ' if ends else ''}{ends}, "
            f"{row['verdict']}: {row['reason']}{tied}; {row['scope']}"
            f"{notable_score(row['score_flops'], found.cost)}"
        )
    lines += [f"{more}: tables/best.md"] if more else []
    lines += unranked(found.draws)
    if found.best.empty and len(lines) == 1:
        lines.append("no trial has finished, so there is nothing to compare yet")
    lines += outlier_lines(found.outliers, unit)
    without = found.missing["reason"].isin(found.trials.excluded["reason"])
    for what, rows in (("no result yet", ~without), ("failed or diverged", without)):
        lacking = found.missing[rows].groupby(["regime", "budget"], as_index=False)[["trials"]].sum()
        said = ", ".join(
            f"{plural(row['trials'], 'trial')} at {budget_text(row['regime'], row['budget'])}"
            for row in records(lacking)
        )
        lines += [f"{what}: {said}; see tables/missing.md"] if said else []
    return tuple(lines)
