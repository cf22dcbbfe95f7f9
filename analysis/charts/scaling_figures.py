"""Data of the scaling figure: the best model size against compute, by the joint law."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells.intervals import column_intervals
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing, mark_frame, said_once
from analysis.labels import held_text, regime_text
from analysis.laws.best_size import Growth, Profile, slices
from budgets.quantity import format_flops, plural

_BEYOND = 10.0
"""Factor of compute by which the lines are drawn beyond the data, without a target."""
_POINTS = 24


def scaling_figure(
    growths: Sequence[Growth], profiles: Sequence[Profile], exponents: pd.DataFrame, *,
    target_flops: float | None = None,
) -> FigureData | Missing:  # fmt: skip
    """Return the figure of the best model size (N) against compute.

    The growth of the most sizes is drawn up to ``target_flops``, by default ten times the largest compute,
    and under fixed compute the minima of the strategy, quality and pool that has most. ``exponents`` is the
    table of ``best_size.scaling_exponents``, in the same order.
    """
    title = "Best model size against compute"
    if not growths:
        return Missing(title=title, reason="no regime has three model sizes and a dozen cells")
    known = exponents[exponents["what"] == "N"].reset_index(drop=True)
    firm = [place for place, status in enumerate(known["status"]) if status == "ok"]
    if not firm:
        return Missing(title=title, reason=str(known["reason"].iloc[0]))
    place = max(firm, key=lambda one: growths[one].count)
    one, largest = growths[place], growths[place].compute[1]
    beyond = largest * _BEYOND if target_flops is None else float(target_flops)
    compute = np.geomspace(one.compute[0], max(beyond, largest), _POINTS)
    best = one.best(compute)
    near = one.near(best) | (compute > largest)
    compute, best = compute[near], best[:, near]
    minima = _densest(profiles) if one.family.regime == "fixed-compute" else []
    series, row = regime_text(one.family.regime), known.iloc[place]
    formula = f"N ∝ C^{row['exponent']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    middle, (low, high) = np.median(best, axis=0), column_intervals(best)
    lines = pd.DataFrame({"x": compute, "y": middle, "low": low, "high": high})
    inside, outside = lines[lines["x"] <= largest], lines[lines["x"] >= largest]
    if len(outside):
        outside = pd.concat([inside.iloc[-1:], outside])
    marks: list[dict[str, Any]] = [
        {"mark": mark, "series": series} | point
        for mark, part in (("law", inside), ("extrapolation", outside))
        for point in records(part)
    ]
    marks += [{"series": series} | point for point in _minima(minima)]
    left = len(growths) - 1
    return FigureData(
        name="scaling-model-size", title=title, x_label="training compute of one trial (FLOPs)",
        y_label="model size (training FLOPs per sample)", y_scale="log", frame=mark_frame(marks),
        caption=said_once(
            "the model size of lowest error at each compute, by the joint law of all trials, for data of "
            f"which no pair is seen twice ({series}, {plural(one.count, 'model size')})",
            f"Solid: {formula}; bands and brackets are 90 % intervals",
            f"Dashed: extrapolated to {format_flops(compute[-1])}" if len(outside) else "",
            f"Points: minima of the IsoFLOP profiles, {held_text(minima[0].identity)}" if minima else "",
            f"Not drawn, in the table: {plural(left, 'further regime')}" if left else "",
        ),
        alt=f"{title}: {formula}.",
    )  # fmt: skip


def _densest(profiles: Sequence[Profile]) -> list[Profile]:
    """Return the profiles with a minimum of the family, strategy, quality and pool that have most of them."""
    groups = slices([one for one in profiles if one.status == "ok"])
    return max(groups, key=lambda group: (len(group), str(group[0].identity)), default=[])


def _minima(profiles: Sequence[Profile]) -> Iterator[dict[str, Any]]:
    for one in profiles:
        compute = float(one.identity["budget"])
        yield {
            "mark": "point", "x": compute, "y": one.size,
            "low": max(one.low, one.band["x"].min()), "high": min(one.high, one.band["x"].max()),
            "text": f"{format_flops(compute)}: {format_flops(one.size)} per sample",
        }  # fmt: skip
