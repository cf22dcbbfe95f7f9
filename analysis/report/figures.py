"""The figures of a report, as data."""

from dataclasses import replace

import pandas as pd

from analysis.belief.curves import X_COLUMNS
from analysis.cells.table import first_attempts, metrics
from analysis.charts import (
    answer_figures,
    curve_figures,
    run_figures,
    scaling_figures,
    tuning_figures,
    worth_figures,
)
from analysis.charts.figure_data import FigureData, Missing
from analysis.laws.laws import Measure, measure
from analysis.report.analyse import Analysis

_OTHER_METRICS = (
    ("retrieval", "Retrieval", ("image_to_text_r1", "text_to_image_r1")),
    ("probe", "Linear probe and few-shot", ("probe_top1", "few_shot_5_top1", "few_shot_10_top1")),
)
"""Figures of further metrics over compute: name, title and metrics."""
_PANELS = 3


def report_figures(found: Analysis) -> tuple[FigureData | Missing, ...]:
    """Return the figures of a report in their order, as data; those unsupported as ``Missing`` with why."""
    study, metric, draws = found.study, found.trials.metric, found.draws
    midway, tuned = study.midway, study.tuned
    measured, contrasts = Measure(metric=metric, draws=draws, laws=found.laws), found.contrasts
    course: tuple[FigureData | Missing, ...] = (
        run_figures.training_loss(found.trials, draws, study.curves, found.outliers["trial"].tolist()),
        *([] if midway.empty else [run_figures.midway_errors(found.trials, draws, midway, study.results)]),
        run_figures.plan_grid(first_attempts(study.plan), study.left_out, study.results),
        *run_figures.design_course(study.events),
    )
    if study.imported:
        why = "the study was imported from a table, which does not record how it was run"
        course = tuple(Missing(title=each.title, reason=why) for each in course)
    by = curve_figures.over_compute
    return (
        answer_figures.hero(found.trials, measured, found.best, target_flops=study.target_flops),
        *(by(measured, contrasts, axis=axis) for axis in ("architecture", "strategy")),
        curve_figures.over_data(measured, contrasts),
        by(measured, contrasts, axis="quality"),
        scaling_figures.isoflop(draws, found.profiles, metric=metric),
        answer_figures.matters(found.shares, word=draws.error_unit.word),
        curve_figures.over([measured], axis="subset_size", x="epochs"),
        *(
            curve_figures.over([measured], axis=axis, x="subset_size")
            for axis in ("architecture", "strategy")
        ),
        *(worth_figures.equivalence(found.comparisons, along=along) for along in X_COLUMNS),
        worth_figures.shift(study.results, metric=metric),
        *(_of_metrics(study.results, *each) for each in _OTHER_METRICS),
        scaling_figures.scaling_figure(
            found.growths, found.profiles, found.exponents, target_flops=study.target_flops
        ),
        answer_figures.forecasts(found.holdout, metric=metric),
        *(
            []
            if found.trunk_map is None
            else [answer_figures.trunk_map(found.trunk_map, found.weights_miss, metric=metric)]
        ),
        *(each for each in course if not _as_planned(each)),
        *(() if tuned is None or tuned.tried.empty else tuning_figures.figures(tuned)),
    )


def _of_metrics(
    results: pd.DataFrame, name: str, title: str, endings: tuple[str, ...]
) -> FigureData | Missing:
    """Return the figure of error by several metrics against compute, by architecture."""
    found = [one for one in metrics(results) if one.rpartition("/")[2] in endings] if len(results) else []
    found = [one for one in found if results[one].notna().any()][:_PANELS]
    if not found:
        return Missing(title=title, reason=f"no finished trial has any of the metrics {', '.join(endings)}")
    # Trials that finished without a metric were not evaluated by it: they are not lost.
    unfinished = results["status"] != "finished"
    measures = [measure(results[unfinished | results[one].notna()], one) for one in found]
    drawn = curve_figures.over(measures, axis="architecture", x="train_flops")
    if isinstance(drawn, Missing):
        return replace(drawn, title=title)
    return replace(drawn, name=name, title=title)


def _as_planned(each: FigureData | Missing) -> bool:
    """Return whether a figure of the plan shows only that all was done as planned."""
    return isinstance(each, FigureData) and each.name == "plan" and {*each.frame["series"]} == {"finished"}
