"""Data of the figures of training curves and of the ledger."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.cost import by_level
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.table import Trials, records
from analysis.charts.compute_figures import slice_along
from analysis.charts.figure_data import FigureData, Missing, bar_place, mark_frame
from analysis.error_unit import is_loss
from analysis.labels import budget_text, capital, held_text, metric_text
from budgets.quantity import format_flops

_BINS = 40
_PANELS = 4


def training_loss(trials: Trials, draws: CellDraws, curves: pd.DataFrame) -> FigureData | Missing:
    """Return the figure of training loss over compute, by architecture, for the lowest seed of each cell."""
    title = "Training loss"
    held, positions = slice_along(draws, "architecture")
    if curves.empty or not len(positions):
        return Missing(title=title, reason="no training curves were recorded")
    first = _lowest_seeds(trials, held)
    first = first[first["budget"].isin(sorted(first["budget"].unique())[-_PANELS:])]
    rows: list[dict[str, Any]] = []
    lines = 0
    for trial in records(first.sort_values(["budget", "architecture"], kind="stable")):
        curve = curves[curves["trial"] == trial["trial"]]
        points = _thin(curve["train_flops"].to_numpy(np.float64), curve["loss"].to_numpy(np.float64))
        panel = budget_text(str(trial["regime"]), float(trial["budget"]))
        fixed = {"panel": panel, "mark": "line", "series": str(trial["architecture"]), "line": trial["trial"]}
        rows += [fixed | {"x": x, "y": y} for x, y in points]
        lines += bool(points)
    if not lines:
        return Missing(title=title, reason="no training curves were recorded")
    return FigureData(
        name="training-loss",
        title=title,
        x_label="training compute spent (FLOPs)",
        y_label="training loss (nats)",
        frame=mark_frame(rows),
        caption=(
            f"Training loss over the compute spent, one panel per level (at most the {_PANELS} largest), one "
            f"line per trial ({lines}; the lowest seed of each cell). Fixed: {held_text(held)}. Points are "
            f"means over at most {_BINS} bins of equal width in log compute."
        ),
        alt=f"{title} falling over compute for {lines} trials.",
    )


def midway_errors(
    trials: Trials, draws: CellDraws, midway: pd.DataFrame, results: pd.DataFrame
) -> FigureData | Missing:
    """Return the figure of error at shares of a trial, by architecture, for the lowest seed of each cell."""
    title = f"{draws.error_unit.title} during training"
    held, positions = slice_along(draws, "architecture")
    if trials.metric not in midway or not len(positions):
        return Missing(
            title=title, reason=f"no trial was measured by {metric_text(trials.metric)} during training"
        )
    first, unit = _lowest_seeds(trials, held), draws.error_unit
    ends = results[results["trial"].isin(midway["trial"])]
    points = pd.concat([midway, ends], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for trial in records(first.sort_values(["architecture", "budget"], kind="stable")):
        curve = points[points["trial"] == trial["trial"]].sort_values("train_flops")
        values = curve[trials.metric].to_numpy(np.float64)
        errors = unit.factor * (values if is_loss(trials.metric) else 1 - values)
        fixed = {"mark": "line", "series": str(trial["architecture"]), "line": trial["trial"]}
        places = curve["train_flops"].to_numpy(np.float64)
        rows += [fixed | {"x": x, "y": y} for x, y in zip(places, errors, strict=True) if np.isfinite(y)]
    lines = len({row["line"] for row in rows})
    if not lines:
        return Missing(title=title, reason="no trial of the compared cells was measured during training")
    return FigureData(
        name="midway",
        title=title,
        x_label="training compute spent (FLOPs)",
        y_label=unit.heading_of(unit.word),
        frame=mark_frame(rows),
        caption=(
            f"{capital(metric_text(trials.metric))} at shares of a trial and at its end, one line per trial "
            f"({lines}; the lowest seed of each cell). Fixed: {held_text(held)}. Before the end the "
            "learning rate is still high, so only the end points belong on a scaling curve."
        ),
        alt=f"{title} over compute for {lines} trials.",
    )


def _lowest_seeds(trials: Trials, held: Mapping[str, Any]) -> pd.DataFrame:
    """Return the trial of the lowest seed of each architecture and budget, with the other parts fixed."""
    kept = trials.frame
    for name, value in held.items():
        kept = kept[kept[name] == value]
    return kept.sort_values("seed", kind="stable").drop_duplicates(["architecture", "budget"])


def _thin(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Return means over bins of equal width in log x."""
    good = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[good], y[good]
    if not len(x):
        return []
    edges = np.geomspace(x.min(), x.max() * (1 + 1e-9), _BINS + 1)
    places = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, _BINS - 1)
    return [
        (float(np.exp(np.log(x[places == place]).mean())), float(y[places == place].mean()))
        for place in np.unique(places)
    ]


def ledger_bars(plan: pd.DataFrame, ledger: pd.DataFrame, events: pd.DataFrame) -> FigureData | Missing:
    """Return the figure of FLOPs planned, spent and wasted by budget level, and of other charges."""
    title = "Compute planned and spent"
    levels = by_level(plan, ledger, events)
    if levels.empty:
        return Missing(title=title, reason="there is no plan")
    kinds = [kind for kind in ("planned", "spent", "wasted") if levels[kind].any()]
    rows = [
        {
            "mark": "bar", "series": kind, "label": level["level"], "x": float(level[kind]),
            "y": bar_place(group, bar, len(kinds)),
            "text": f"{level['level']}: {format_flops(level[kind])} {kind}",
        }
        for group, level in enumerate(records(levels))
        for bar, kind in enumerate(kinds)
    ]  # fmt: skip
    total = levels[["planned", "spent", "wasted"]].sum()
    return FigureData(
        name="ledger",
        title=title,
        kind="bars",
        x_label="training compute (FLOPs)",
        y_label="",
        frame=mark_frame(rows),
        caption=(
            f"Training FLOPs by budget level: {format_flops(total['planned'])} planned, "
            f"{format_flops(total['spent'])} spent, {format_flops(total['wasted'])} of it lost with "
            "failed attempts. Other charges, such as the quality scorer, have their own rows."
        ),
        alt=f"{title}: planned {format_flops(total['planned'])}, spent {format_flops(total['spent'])}.",
    )
