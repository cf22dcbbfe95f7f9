"""Data of the figures of answers: the best at each budget, what matters, forecasts, cells of two studies."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.best import turns
from analysis.arrays import Floats
from analysis.belief.family import Family
from analysis.belief.trunk_map import TrunkMap
from analysis.cells.intervals import band, interval
from analysis.cells.pareto import costs
from analysis.cells.table import Trials, records
from analysis.charts.figure_data import (
    AXIS_WORDS,
    BEYOND,
    FRONTIER,
    JOINED,
    MAP,
    FigureData,
    Missing,
    band_marks,
    error_label,
    finding,
    mark_frame,
    star,
)
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    cell_text,
    configuration_text,
    interval_text,
    metric_text,
)  # fmt: skip
from analysis.laws.holdout import JOINT, LAST, Holdout
from analysis.laws.laws import Measure
from budgets.quantity import format_flops, format_number, plural

SHARE = replace(PERCENT, form=".0f")
"""Unit of shares of variance."""
_POINTS = 24


def hero(
    trials: Trials, measure: Measure, best: pd.DataFrame, *, target_flops: float | None = None
) -> FigureData | Missing:
    """Return the figure of all ranked trials, the best at each budget, and the frontier of the joint law.

    The frontier is the lowest error of any configuration with a run, in each draw. It is forecast to
    ``target_flops``, by default ten times the largest compute, unless the grid has a last cell for each
    configuration. ``best`` is the table of `best_at_budgets`, of which `turns` are drawn; of several
    regimes the one with the most trials is drawn.
    """
    title, draws, unit = "The best at each budget", measure.draws, measure.draws.error_unit
    if best.empty:
        return Missing(title=title, reason="no trial has finished")
    regime = str(trials.sound["regime"].value_counts().idxmax())
    mine, rows = (frame[frame["regime"] == regime] for frame in (trials.sound, best))
    compute = costs(mine)
    marks: list[dict[str, Any]] = [
        {
            "mark": "other", "series": "trials", "x": x, "y": unit.factor * trial["error"],
            "text": f"{cell_text(trial)}, seed {int(trial['seed'])}: {unit.text(trial['error'])}",
        }
        for trial, x in zip(records(mine), compute.tolist(), strict=True)
    ]  # fmt: skip
    end, line = float(compute.max()), ""
    if any(law.status == "ok" and law.identity["regime"] == regime for law in measure.along("compute")):
        family = draws.families[regime]
        marks += _frontier(family, np.geomspace(compute.min(), end, _POINTS), "law", unit)
        line = "; line: the lowest error of any configuration by the joint law"
        beyond = target_flops or BEYOND * end
        if beyond > end and (regime == "fixed-compute" or np.isinf(family.limit).all()):
            marks += _frontier(family, np.geomspace(end, beyond, _POINTS), "extrapolation", unit)
            line += f", dashed: its forecast to {format_flops(beyond)}"
    shown, ranked = (frame[frame["verdict"] != "beaten"] for frame in (turns(rows)[0], rows))
    marks += _winners(records(shown), unit, named=len(draws.cells["strategy"].unique()) > 1)
    answers = [row | {"best": _short(row, strategy=True)} for row in records(ranked)]
    return FigureData(
        name="hero",
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(measure.metric),
        frame=mark_frame(marks),
        finding=finding(answers, unit),
        caption=f"Grey: {plural(len(mine), 'trial')}; stars: the best at each budget, hollow unless clear"
        f"{line}.",
        by="strategy",
    )


def _frontier(family: Family, flops: Floats, mark: str, unit: ErrorUnit) -> list[dict[str, Any]]:
    """Return the lowest error, at each compute, of the configurations that ran and can be asked there."""
    ran = family.ran.any(axis=1)
    lowest = np.full((family.draws, len(flops)), np.inf)
    for point, at in enumerate(flops):
        curves = np.flatnonzero(ran & family.reachable(at) & (family.lowest <= at))
        # Outside fixed compute a curve that can't spend more is read at its largest.
        x = np.minimum(at, np.inf if family.regime == "fixed-compute" else family.limit[curves])
        if len(curves):
            lowest[:, point] = family.read(curves, np.broadcast_to(x, curves.shape)[:, None]).min(axis=(1, 2))
    line = band(flops, lowest)
    return band_marks(mark, line[np.isfinite(line["y"])], unit, series=FRONTIER)


def _winners(rows: Sequence[Mapping[str, Any]], unit: ErrorUnit, *, named: bool) -> Iterator[dict[str, Any]]:
    """Yield a star per budget, with a label where another configuration leads than before."""
    before = ""
    for row in rows:
        short = _short(row, strategy=named)
        yield {
            "mark": star(row["verdict"]),
            "series": axis_text("strategy", row["strategy"]), "x": row["flops"],
            "y": unit.factor * row["error"], "low": unit.factor * row["low"],
            "high": unit.factor * row["high"], "label": "" if short == before else short,
            "text": f"{row['at']}: {configuration_text(row)}, "
            f"{unit.text(row['error'], row['low'], row['high'])}, {row['verdict']}",
        }  # fmt: skip
        before = short


def _short(row: Mapping[str, Any], *, strategy: bool) -> str:
    return ", ".join([row["architecture"], *([axis_text("strategy", row["strategy"])] if strategy else [])])


def matters(shares: pd.DataFrame, *, word: str) -> FigureData | Missing:
    """Return the figure of the shares of variance at each budget, of the regime with most of them.

    ``shares`` is the table of `variance_shares`, ``word`` that of an ``ErrorUnit``.
    """
    title = f"What the {word} depends on"
    if shares.empty:
        return Missing(title=title, reason="no budget has finished trials that differ in two parts")
    rows = shares[shares["regime"] == shares["regime"].value_counts().idxmax()].dropna(subset="share")
    regime = str(rows["regime"].iloc[0])
    # Where budgets have other cells, their shares don't compare.
    same = len(set(rows["cells"])) == 1
    marks = [
        {
            "mark": "point", "line": JOINED if same else "", "series": part_text(row["part"]),
            "x": row["budget"], "y": 100 * row["share"], "low": 100 * row["low"], "high": 100 * row["high"],
            "text": f"{budget_text(regime, row['budget'])}: {part_text(row['part'])} {share_text(row)}",
        }
        for row in records(rows)
    ]  # fmt: skip
    firsts = records(rows.sort_values("share").drop_duplicates("budget", keep="last").sort_values("budget"))
    ends = [firsts[-1]] if firsts[0]["part"] == firsts[-1]["part"] else [firsts[0], firsts[-1]]
    explained = "; ".join(
        f"{part_text(row['part'])} explains {share_text(row)} at {budget_text(regime, row['budget'])}"
        for row in ends
    )
    return FigureData(
        name="matters",
        title=title,
        x_label=f"budget of one trial ({'FLOPs' if regime == 'fixed-compute' else 'samples'})",
        y_label=f"% of the variance of {word}",
        frame=mark_frame(marks),
        finding=f"Of the variance of {word}, {explained}.",
        caption=f"Shares of the variance of {word} between the cells of a budget that each part explains by "
        "itself, and that they explain only together"
        f"{'' if same else '; the budgets have different cells'}.",
    )


def part_text(part: str) -> str:
    """Return a part of the configuration in words, or what the parts do together."""
    return AXIS_WORDS.get(part, part)


def share_text(row: Mapping[str, Any]) -> str:
    """Return a share of variance with its interval: ``62 % [55, 70]``; a dash for NaN."""
    return SHARE.text(row["share"], row["low"], row["high"])


def cells_against(cells: pd.DataFrame, *, metric: str) -> FigureData | Missing:
    """Return the figure of the cells that two or more studies share: the errors of one against the first's.

    Args:
        cells: One row per cell and other study: ``first`` and ``study`` (names), ``regime``, the columns of a
            cell, ``error`` and ``its``, the measured errors in both, ``low`` and ``high``, the interval of
            its error minus that of the first, NaN if no noise is known, and ``verdict`` (``lower``,
            ``higher``, or another text where no difference is seen).
        metric: Metric of the errors.
    """
    title, unit = "Cell against cell", ErrorUnit.of(metric)
    if cells.empty:
        return Missing(title=title, reason="the studies share no cell")
    first, several = str(cells["first"].iloc[0]), len(cells["study"].unique()) > 1
    apart = cells["verdict"].isin(["lower", "higher"])
    errors = unit.factor * cells[["error", "its"]].to_numpy(np.float64)
    ends = [
        {"mark": "reference", "line": "equal", "x": end, "y": end, "panel": study if several else ""}
        for study in cells["study"].unique()
        for end in (errors.min(), errors.max())
    ]
    points = [
        {
            "mark": "point" if differs else "undecided", "panel": row["study"] if several else "",
            "series": axis_text("strategy", row["strategy"]), "x": unit.factor * row["error"],
            "y": unit.factor * row["its"], "low": unit.factor * (row["error"] + row["low"]),
            "high": unit.factor * (row["error"] + row["high"]),
            "text": f"{cell_text(row)}: {unit.text(row['its'])} in {row['study']}, "
            f"{unit.text(row['error'])} in {first}: {row['verdict']}",
        }
        for row, differs in zip(records(cells), apart, strict=True)
    ]  # fmt: skip
    mean = float((cells["its"] - cells["error"]).mean())
    theirs = "the others" if several else str(cells["study"].iloc[0])
    differing = f"{int(apart.sum())} of {plural(len(cells), 'shared cell')} differ by more than the noise"
    return FigureData(
        name="cells",
        title=title,
        x_label=unit.heading_of(f"{unit.word} in {first}"),
        y_label=unit.heading_of(f"{unit.word} in {theirs}"),
        x_scale="linear",
        frame=mark_frame([*ends, *points]),
        finding=f"{differing}; on average the {unit.word} in {theirs} is {unit.gap(abs(mean))} "
        f"{'lower' if mean < 0 else 'higher'}.",
        caption=f"{capital(metric_text(metric))} of each shared cell, with the interval of the difference; "
        "hollow points differ by no more than it from the dashed line of equality.",
        by="strategy",
    )


def forecasts(held: Holdout, *, metric: str) -> FigureData | Missing:
    """Return the figure of forecast against measured error of the held-out cells."""
    title, unit = "Forecasts of held-out levels", ErrorUnit.of(metric)
    if held.reason:
        return Missing(title=title, reason=held.reason)
    points = records(held.points)
    rows = [_forecast(point, law, unit) for law in (LAST, JOINT) for point in points]
    values = [value for row in rows for value in (row["x"], row["y"])]
    same = [{"mark": "reference", "line": "same", "x": end, "y": end} for end in (min(values), max(values))]
    misses = ", ".join(f"{row['law']} {unit.gap(row['error'], fine=True)}" for row in records(held.scores))
    return FigureData(
        name="forecasts",
        title=title,
        x_scale="linear",
        x_label=unit.heading_of("measured"),
        y_label=unit.heading_of("forecast"),
        frame=mark_frame([*same, *rows]),
        finding=f"Mean absolute miss of the forecasts: {misses}.",
        caption=f"{capital(metric_text(metric))} of {plural(len(points), 'cell')} of the largest levels, "
        "each forecast from the levels below it, against the measured value; dashed: equality.",
    )


def trunk_map(fitted: TrunkMap, weights_miss: float, *, metric: str) -> FigureData | Missing:
    """Return the figure of the error after a cooldown against that of the trunk state, with the map.

    ``weights_miss`` is of `trunk_map.weights_miss`, NaN if weight averages were not measured.
    """
    title, unit, pairs = "What a cooldown gains", ErrorUnit.of(metric), records(fitted.pairs)
    if not pairs:
        return Missing(title=title, reason="no run cooled down from a trunk state that was evaluated")
    by = "strategy" if len({row["strategy"] for row in pairs}) > 1 else "architecture"
    at = np.linspace(fitted.pairs["trunk_error"].min(), fitted.pairs["trunk_error"].max(), _POINTS)
    marks = band_marks("law", band(at, fitted.cooled(at)), unit, ratio=unit.factor, series=MAP)
    marks += [{"mark": "reference", "line": "equal", "x": row["x"], "y": row["x"]} for row in marks]
    marks += [
        {
            "mark": "point", "series": axis_text(by, row[by]), "x": unit.factor * row["trunk_error"],
            "y": unit.factor * row["error"],
            "text": f"{cell_text(row)}, seed {row['seed']:g}: {unit.text(row['error'])} after "
            f"{unit.text(row['trunk_error'])}; predicted "
            f"{unit.text(row['predicted'], row['low'], row['high'])}",
        }
        for row in pairs
    ]  # fmt: skip
    gain = unit.gap(float(np.median(fitted.gain)), *interval(fitted.gain))
    slope = f"{format_number(float(np.median(fitted.slope)), '.2f')} {interval_text(*interval(fitted.slope))}"
    learned = "" if fitted.learned else f"The map is not learned from {plural(len(pairs), 'pair')}. "
    near = unit.gap(fitted.miss, fine=True)
    if not isnan(weights_miss):
        near += f" by the weight average, {unit.gap(weights_miss, fine=True)} by the weights"
    return FigureData(
        name="trunk-map",
        title=title,
        x_scale="linear",
        x_label=unit.heading_of(f"{unit.word} of the trunk state"),
        y_label=unit.heading_of(f"{unit.word} after the cooldown"),
        frame=mark_frame(marks),
        finding=f"{learned}A cooldown gains {gain} at {unit.text(fitted.middle)}, and {slope} of what an "
        f"{unit.word} lies above that. The root mean square of the residuals is {near}.",
        caption=f"{capital(metric_text(metric))} of each cooled run against that of its trunk state; line: "
        "the map; dashed: equality.",
        by=by,
    )


def _forecast(point: dict[str, Any], law: str, unit: ErrorUnit) -> dict[str, Any]:
    forecast = point["forecast" if law == JOINT else "last"]
    ends = (point["low"], point["high"]) if law == JOINT else (np.nan, np.nan)
    return {
        "mark": "point", "series": law, "x": unit.factor * point["measured"], "y": unit.factor * forecast,
        "low": unit.factor * ends[0], "high": unit.factor * ends[1],
        "text": f"{point['configuration']}, {budget_text(point['regime'], point['level'])}, "
        f"{format_number(point['factor'], '.3g')} times beyond: {law} {unit.text(forecast)}, "
        f"measured {unit.text(point['measured'])}",
    }  # fmt: skip
