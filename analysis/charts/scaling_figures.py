"""Data of the figures of the best model size: IsoFLOP profiles, and its growth with compute."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws
from analysis.cells.intervals import band
from analysis.cells.table import records
from analysis.charts.figure_data import (
    BEYOND,
    JOINED,
    FigureData,
    Missing,
    band_marks,
    cell_marks,
    error_label,
    mark_frame,
)
from analysis.labels import capital, fixed_factors_text, interval_text, metric_text, regime_text
from analysis.laws.best_size import Growth, Profile, slices
from budgets.quantity import format_flops, format_number, plural

_POINTS = 24
_SIZE = "model size (training FLOPs per sample)"


def isoflop(draws: CellDraws, profiles: Sequence[Profile], *, metric: str) -> FigureData | Missing:
    """Return the figure of the IsoFLOP profiles of the slice with the most sizes.

    A curve and its minimum are drawn where the profile determines it; elsewhere a thin line joins the cells.
    """
    title = f"IsoFLOP profiles: {draws.error_unit.word} against model size"
    complete = [group for group in slices(profiles) if any(one.status != "too few sizes" for one in group)]
    if not complete:
        most = max((len(one.positions) for one in profiles), default=1)
        reason = f"{plural(most, 'model size')} of one family at a budget; a profile needs three"
        return Missing(title=title, reason=reason)
    group = max(
        complete,
        key=lambda group: (sum(len(one.positions) for one in group), float(group[0].identity["subset_size"])),
    )
    fixed, known = group[0].identity, [one for one in group if one.status == "ok"]
    sizes = [f"the best size at {_budget(one)} is {_size_text(one)} per sample" for one in known]
    epochs = max(max(one.epochs) for one in group)
    return FigureData(
        name="isoflop",
        title=title,
        x_label=_SIZE,
        y_label=error_label(metric),
        frame=mark_frame([mark for one in group for mark in _profile(draws, one)]),
        finding=f"{capital(sizes[-1])}." if sizes else "No budget has a minimum that the draws agree on.",
        caption=f"{capital(metric_text(metric))} against model size ({fixed['family']} family, "
        f"{fixed_factors_text(fixed)}, up to {format_number(epochs, '.2g')} epochs); a curve with "
        "its minimum where at least 90 % of the draws have one between the sizes near the lowest.",
        by="budget",
        order={_budget(one): float(one.identity["budget"]) for one in group},
    )


def _budget(one: Profile) -> str:
    return format_flops(float(one.identity["budget"]))


def _size_text(one: Profile) -> str:
    low = format_flops(one.low, digits=3) if one.low > 0 else "the smallest or less"
    high = format_flops(one.high, digits=3) if np.isfinite(one.high) else "the largest or more"
    return f"{format_flops(one.size, digits=3)} [{low}, {high}]"


def _profile(draws: CellDraws, one: Profile) -> list[dict[str, Any]]:
    unit, series, line = draws.error_unit, _budget(one), JOINED
    marks: list[dict[str, Any]] = []
    if one.status == "ok":
        line, curve = "", one.band
        marks = band_marks("law", curve[["x", "y"]], unit, series=series)
        # The interval is one of size, so it is drawn along x.
        marks.append({
            "mark": "minimum", "series": series, "x": one.size,
            "y": unit.factor * float(np.interp(one.size, curve["x"], curve["y"])),
            "low": max(one.low, curve["x"].min()), "high": min(one.high, curve["x"].max()),
            "text": f"{series}: lowest at {_size_text(one)} per sample",
        })  # fmt: skip
    cells = cell_marks(draws, one.positions, x="train_flops_per_sample", series=series, line=line)
    return [*cells, *marks]


def scaling_figure(
    growths: Sequence[Growth], profiles: Sequence[Profile], exponents: pd.DataFrame, *,
    target_flops: float | None = None,
) -> FigureData | Missing:  # fmt: skip
    """Return the figure of the best model size (N) against compute.

    The growth of the most sizes is drawn up to ``target_flops``, by default ten times the largest compute,
    and under fixed compute the minima of the strategy, quality and pool that has most. ``exponents`` is the
    table of ``best_size.scaling_exponents``, in the same order; nothing is drawn where its status is not ok.
    """
    title = "Best model size against compute"
    if not growths:
        return Missing(title=title, reason="no regime has three model sizes and a dozen cells")
    known = exponents[exponents["what"] == "N"].reset_index(drop=True)
    firm = [place for place, status in enumerate(known["status"]) if status == "ok"]
    if not firm:
        return Missing(title=title, reason=str(known["reason"].iloc[0]))
    place = max(firm, key=lambda one: growths[one].count)
    one, row = growths[place], known.iloc[place]
    largest, target = one.compute[1], target_flops or BEYOND * growths[place].compute[1]
    compute = np.geomspace(one.compute[0], max(target, largest), _POINTS)
    lines = band(compute, one.best(compute))
    # Solid among the sizes that were tried and computes that were run, dashed beyond these.
    tried = lines["y"].between(*one.sizes) & (compute <= largest)
    if not tried.any():
        return Missing(title=title, reason="at no compute does the best size lie among those that were tried")
    first, last = np.flatnonzero(tried)[[0, -1]]
    series = regime_text(one.family.regime)
    formula = f"N ∝ C^{format_number(row['exponent'], '.2f')} {interval_text(row['low'], row['high'])}"
    marks: list[dict[str, Any]] = [
        {"mark": mark, "series": series} | point
        for mark, part in (("law", lines.iloc[first : last + 1]), ("extrapolation", lines.iloc[last:]))
        for point in records(part)
        if len(part) > 1
    ]
    groups = slices([fit for fit in profiles if fit.status == "ok"])
    minima = max(groups, key=lambda group: (len(group), str(group[0].identity)), default=[])
    if one.family.regime == "fixed-compute":
        marks += [
            {
                "mark": "point", "series": series, "x": float(fit.identity["budget"]), "y": fit.size,
                "low": max(fit.low, fit.band["x"].min()), "high": min(fit.high, fit.band["x"].max()),
                "text": f"{_budget(fit)}: {_size_text(fit)} per sample",
            }
            for fit in minima
        ]  # fmt: skip
    return FigureData(
        name="scaling-model-size", title=title, x_label="training compute of one trial (FLOPs)",
        y_label=_SIZE, y_scale="log", frame=mark_frame(marks),
        finding=f"The best model size grows as {formula}.",
        caption=f"The model size of lowest error at each compute by the joint law of {one.count} sizes, for "
        "data of which no pair is seen twice; dashed: beyond the sizes or computes that were tried; points: "
        "minima of IsoFLOP profiles.",
    )  # fmt: skip
