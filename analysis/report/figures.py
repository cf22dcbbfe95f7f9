"""The figures of a report, as data."""

from analysis.belief.curves import X_COLUMNS
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import first_attempts
from analysis.charts import (
    answer_figures,
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
from analysis.laws.laws import Measure
from analysis.report.analyse import Analysis

_OTHER_METRICS = (
    ("retrieval", "Retrieval", ("image_to_text_r1", "text_to_image_r1")),
    ("probe", "Linear probe and few-shot", ("probe_top1", "few_shot_5_top1", "few_shot_10_top1")),
)
"""Figures of further metrics over compute: name, title and metrics."""


def report_figures(found: Analysis, study: StudyFrames) -> tuple[FigureData | Missing, ...]:
    """Return the figures of a report in their order, as data; those unsupported as ``Missing`` with why."""
    metric, draws, best, midway = found.trials.metric, found.draws, found.best, study.midway
    measured = Measure(metric=metric, draws=draws, laws=found.laws)
    course: tuple[FigureData | Missing, ...] = (
        run_figures.training_loss(found.trials, draws, study.curves, found.outliers["trial"].tolist()),
        *([] if midway.empty else [run_figures.midway_errors(found.trials, draws, midway, study.results)]),
        run_figures.plan_grid(first_attempts(study.plan), study.left_out, study.results),
        run_figures.spent_bars(study.plan, study.spent, study.events),
        *run_figures.design_course(study.events),
    )
    if found.imported:
        why = "the study was imported from a table, which does not record how it was run"
        course = tuple(Missing(title=each.title, reason=why) for each in course)
    tuned = study.tuned
    return (
        answer_figures.hero(found.trials, measured, best, target_flops=study.target_flops),
        *(compute_figures.over_compute(measured, best, axis=axis) for axis in ("architecture", "strategy")),
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
        answer_figures.matters(found.shares, word=draws.error_unit.word),
        check_figures.forecasts(found.holdout, metric=metric),
        *(each for each in course if not _as_planned(each)),
        *(() if tuned is None or tuned.tried.empty else tuning_figures.figures(tuned)),
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
