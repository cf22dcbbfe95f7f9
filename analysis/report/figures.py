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


def report_figures(analysis: Analysis) -> tuple[FigureData | Missing, ...]:
    """Return the figures of a report in their order, as data; those unsupported as ``Missing`` with why."""
    study, metric, draws = analysis.study, analysis.trials.metric, analysis.draws
    midway, tuned = study.midway, study.tuned
    measured, contrasts = Measure(metric=metric, draws=draws, laws=analysis.laws), analysis.contrasts
    course: tuple[FigureData | Missing, ...] = (
        run_figures.training_loss(analysis.trials, draws, study.curves, analysis.outliers["trial"].tolist()),
        *([] if midway.empty else [run_figures.midway_errors(analysis.trials, draws, midway, study.results)]),
        run_figures.plan_grid(first_attempts(study.plan), study.left_out, study.results),
        *run_figures.design_course(study.events),
    )
    if study.imported:
        why = "the study was imported from a table, which does not record how it was run"
        course = tuple(Missing(title=figure.title, reason=why) for figure in course)
    by = curve_figures.over_compute
    return (
        answer_figures.hero(analysis.trials, measured, analysis.best, target_flops=study.target_flops),
        *(by(measured, contrasts, axis=axis) for axis in ("architecture", "strategy")),
        curve_figures.over_data(measured, contrasts),
        by(measured, contrasts, axis="quality"),
        scaling_figures.isoflop(draws, analysis.profiles, metric=metric),
        answer_figures.matters(analysis.shares, word=draws.error_unit.word),
        curve_figures.over([measured], axis="subset_size", x="epochs"),
        *(
            curve_figures.over([measured], axis=axis, x="subset_size")
            for axis in ("architecture", "strategy")
        ),
        *(worth_figures.equivalence(analysis.comparisons, along=along) for along in X_COLUMNS),
        worth_figures.shift(study.results, metric=metric),
        *(_of_metrics(study.results, *group) for group in _OTHER_METRICS),
        scaling_figures.scaling_figure(
            analysis.growths, analysis.profiles, analysis.exponents, target_flops=study.target_flops
        ),
        answer_figures.forecasts(analysis.holdout, metric=metric),
        *(
            []
            if analysis.trunk_map is None
            else [answer_figures.trunk_map(analysis.trunk_map, analysis.weights_miss, metric=metric)]
        ),
        *(figure for figure in course if not _as_planned(figure)),
        *(() if tuned is None or tuned.tried.empty else tuning_figures.figures(tuned)),
    )


def _of_metrics(
    results: pd.DataFrame, name: str, title: str, endings: tuple[str, ...]
) -> FigureData | Missing:
    """Return the figure of error by several metrics against compute, by architecture."""
    shown = [one for one in metrics(results) if one.rpartition("/")[2] in endings] if len(results) else []
    shown = [one for one in shown if results[one].notna().any()][:_PANELS]
    if not shown:
        return Missing(title=title, reason=f"no finished trial has any of the metrics {', '.join(endings)}")
    # Trials that finished without a metric were not evaluated by it: they are not lost.
    unfinished = results["status"] != "finished"
    measures = [measure(results[unfinished | results[one].notna()], one) for one in shown]
    drawn = curve_figures.over(measures, axis="architecture", x="train_flops")
    if isinstance(drawn, Missing):
        return replace(drawn, title=title)
    return replace(drawn, name=name, title=title)


def _as_planned(data: FigureData | Missing) -> bool:
    """Return whether a figure of the plan shows only that all was done as planned."""
    return isinstance(data, FigureData) and data.name == "plan" and {*data.frame["series"]} == {"finished"}
