"""Data of the figures of a study's tuning, one per tuned field."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.intervals import QUANTILE
from analysis.cells.study_frames import TUNED_COLUMN, Tuned
from analysis.charts.figure_data import FigureData, mark_frame, star
from analysis.error_unit import PERCENT
from analysis.labels import axis_text, capital, metric_text
from budgets.quantity import format_flops, plural

_WIDE = 4.0
_FIELDS = {
    "lr_peak": "peak learning rate", "batch_size": "batch size (pairs)", "weight_decay": "weight decay",
    "beta1": "β₁", "beta2": "β₂", "eps": "ε of the optimiser", "warmup": "warm-up (share of the steps)",
    "warmup_samples": "warm-up (samples)", "cooldown": "cooldown (share of the steps)",
    "gradient_clip": "clipped norm of the gradient", "ema": "decay of the averaged weights",
    "unmasked_tail": "unmasked tail (share of the steps)",
}  # fmt: skip


def figures(tuned: Tuned) -> tuple[FigureData, ...]:
    """Return the figures of error against each tuned field, one curve per architecture and strategy."""
    return tuple(_figure(tuned, field) for field in tuned.fields if len(tuned.tried))


def field_label(field: str) -> str:
    """Return the label of a tuned field."""
    return _FIELDS.get(field, field.replace("_", " "))


def _figure(tuned: Tuned, field: str) -> FigureData:
    title = f"Tuning: {field_label(field).partition(' (')[0]}"
    tried = tuned.tried.assign(
        value=tuned.tried.get(tuned.metric, np.nan), counting=tuned.tried.get(f"{tuned.metric}_se", np.nan)
    )
    winners = [*tuned.winners, *(check["winner"] for check in tuned.checks if check["winner"])]
    rows: list[dict[str, Any]] = []
    outcomes, lost, order = [], 0, dict[str, float]()
    for (architecture, strategy, level), group in tried.groupby(
        ["architecture", "strategy", "level_flops"], sort=False, dropna=False
    ):
        pair = tried[(tried["architecture"] == architecture) & (tried["strategy"] == strategy)]
        several = len(pair["level_flops"].unique()) > 1
        name = _series(tried, str(architecture), str(strategy))
        name += f" at {format_flops(float(str(level)))}" if several else ""
        if name != axis_text("strategy", strategy):
            size = float(group["train_flops_per_sample"].median())
            order[name] = size * float(str(level)) if several else size
        won = next(
            (
                won for won in winners
                if (won["architecture"], won["strategy"]) == (architecture, strategy)
                and (not several or won["cell"]["level_flops"] == level)
            ), None,
        )  # fmt: skip
        points, without = _points(group, field, [other for other in tuned.fields if other != field], won)
        lost += without
        fixed = {"series": name, "line": name}
        rows += [point | fixed | {"mark": mark} for mark in ("line", "point") for point in points]
        if won is None:
            outcomes.append(f"{name}: none chosen")
            continue
        best = next(point for point in points if point["x"] == won["values"][field])
        mark = star("tie" if won["tie"] else "clear")
        edge = " at the edge of the values tried" if field in won["at_edge"] else ""
        tie = ", a tie" if won["tie"] else ""
        outcomes.append(f"{name}: {won['values'][field]:g}{tie}{edge}")
        rows.append(best | fixed | {"mark": mark, "text": f"{best['text']}; won{edge}{tie}"})
    values = [row["x"] for row in rows]
    others = "" if len(tuned.fields) == 1 else ", the other fields at their winning values"
    diverged = f"; {plural(lost, 'value')} not drawn: training diverged" if lost else ""
    return FigureData(
        name=f"tuning-{field.replace('_', '-')}",
        title=title,
        x_label=field_label(field),
        y_label=f"{metric_text(tuned.metric)} (%)",
        frame=mark_frame(rows),
        finding=f"Won: {'; '.join(outcomes)}.",
        caption=f"{capital(metric_text(tuned.metric))} of each value tried{others} "
        f"({plural(len(tried), 'trial')}); hollow: the runner-up ties{diverged}.",
        order=order,
        x_scale="log" if values and min(values) > 0 and max(values) / min(values) > _WIDE else "linear",
    )


def _series(tried: pd.DataFrame, architecture: str, strategy: str) -> str:
    """Return the parts of an architecture and strategy that distinguish the pair from the others."""
    architectures, strategies = set(tried["architecture"]), set(tried["strategy"])
    parts = [architecture] if len(architectures) > 1 or len(strategies) == 1 else []
    return ", ".join(parts + ([axis_text("strategy", strategy)] if len(strategies) > 1 else []))


def _points(
    group: pd.DataFrame, field: str, others: list[str], won: Mapping[str, Any] | None
) -> tuple[list[dict[str, Any]], int]:
    """Return a point per value, with the other fields at their winning or, before that, best values."""
    if others:
        best = group.sort_values("value", kind="stable", na_position="first").iloc[-1]
        at = {name: won["values"][name] if won else best[TUNED_COLUMN + name] for name in others}
        group = group[
            np.logical_and.reduce([group[TUNED_COLUMN + name] == value for name, value in at.items()])
        ]
    points, lost = [], 0
    for value, runs in group.groupby(TUNED_COLUMN + field):
        score = runs["value"].to_numpy(np.float64)
        if not np.isfinite(score).all():
            lost += 1
            continue
        error = 1 - float(score.mean())
        reach = QUANTILE * _noise(runs, score)
        low, high = error - reach, error + reach
        measured = f"{PERCENT.text(error, low, high)}, {plural(len(runs), 'run')}"
        text = f"{field_label(field)} {value:g}: {measured}"
        points.append(
            {"x": float(str(value)), "y": 100 * error, "low": 100 * low, "high": 100 * high, "text": text}
        )
    return points, lost


def _noise(runs: pd.DataFrame, score: Floats) -> float:
    """Return the standard error of a mean over seeds evaluated on the same images; NaN when unknown."""
    counting = float(runs["counting"].max())
    seeds = float(score.std(ddof=1) / np.sqrt(len(score))) if len(score) > 1 else np.nan
    return float(np.fmax(counting, seeds))
