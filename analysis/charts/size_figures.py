"""Data of the figures of error over data size and over model size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws
from analysis.belief.curves import alike, curve_text
from analysis.cells.table import records
from analysis.charts.compute_figures import curve_marks, laws_text
from analysis.charts.figure_data import (
    AXIS_WORDS,
    FigureData,
    Missing,
    cell_marks,
    error_label,
    intervals_text,
    mark_frame,
    panel_text,
    runs_text,
    runs_texts,
    said_once,
)  # fmt: skip
from analysis.error_unit import ErrorUnit
from analysis.labels import axis_text, budget_text, held_text, metric_text, sort_key, with_regime
from analysis.laws.best_size import Profile, slices
from analysis.laws.laws import Law, Measure
from budgets.quantity import format_flops, plural

_PANELS = 3


def over_data(measure: Measure) -> FigureData | Missing:
    """Return the figure of error against unique pairs, one curve per budget.

    There is a panel per architecture, quality and strategy of a regime.
    """
    draws, metric, unit = measure.draws, measure.metric, measure.draws.error_unit
    title = f"{unit.title} against data size"
    groups: dict[tuple[Any, ...], list[Law]] = {}
    for law in measure.along("data"):
        key = tuple(law.identity[name] for name in ("regime", "architecture", "quality", "strategy"))
        groups.setdefault(key, []).append(law)
    if not groups:
        return Missing(title=title, reason="no two finished trials differ only in the number of pairs")
    ranked = sorted(groups.items(), key=lambda group: -sum(len(law.positions) for law in group[1]))
    rows: list[dict[str, Any]] = []
    for (regime, architecture, quality, strategy), panel_laws in ranked[:_PANELS]:
        parts = (str(architecture), axis_text("quality", quality), axis_text("strategy", strategy))
        panel = with_regime(", ".join(parts), str(regime), named=draws.mixed)
        for law in panel_laws:
            series = budget_text(str(regime), float(law.identity["budget"]))
            rows += curve_marks(draws, [law], law.positions, x="subset_size", series=series, panel=panel)
    left = len(ranked) - _PANELS
    used = [law for _, group in ranked[:_PANELS] for law in group]
    return FigureData(
        name="error-data",
        title=title,
        x_label="unique image-text pairs",
        y_label=error_label(metric),
        frame=mark_frame(rows),
        caption=said_once(
            f"{metric_text(metric)} against the number of unique pairs at each budget",
            runs_text(draws, _cells_of(used)),
            laws_text(used, unit),
            f"Not drawn, in the table of curves: {plural(left, 'further panel')}" if left > 0 else "",
            draws.explanation,
        ),
        alt=f"{title}: {len(used)} curves. " + _ends_alt(rows, unit),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _LawPanel:
    """Curves of one measure and regime that differ only along one axis, over a column of their cells."""

    measure: Measure
    regime: str
    laws: Sequence[Law]
    x: str


def over_pairs(measures: Sequence[Measure], *, axis: str) -> FigureData | Missing:
    """Return the figure of error against unique pairs, by architecture or strategy.

    There is a panel per measure at equal samples, and one per measure over one epoch. The measures need laws
    along compute and along data.
    """
    title = f"{measures[0].draws.error_unit.title} against data size, by {AXIS_WORDS[axis]}"
    # In one epoch a law over compute is also one over pairs: every sample is a new pair of equal cost.
    ways = (("equal-samples", "data"), ("one-epoch", "compute"))
    panels = [
        _LawPanel(measure=measure, regime=regime, laws=laws, x="subset_size")
        for measure in measures
        for regime, along in ways
        if (laws := _most(measure, along=along, axis=axis, regimes=(regime,)))
    ]
    if not panels:
        reason = "no curve over pairs at equal samples or over one epoch has two finished cells"
        return Missing(title=title, reason=reason)
    if axis == "strategy" and len({law.identity[axis] for panel in panels for law in panel.laws}) < 2:  # noqa: PLR2004 (two are compared)
        return Missing(title=title, reason=f"no two finished trials differ only in {AXIS_WORDS[axis]}")
    return _drawn(
        panels, axis=axis, name=f"error-data-{axis}", title=title, x_label="unique image-text pairs",
        against="the number of unique pairs",
    )  # fmt: skip


def over_epochs(measures: Sequence[Measure]) -> FigureData | Missing:
    """Return the figure of error against epochs, one curve per data size.

    There is a panel per measure, of at least one.
    """
    title = f"{measures[0].draws.error_unit.title} against epochs, by data size"
    panels = [
        _LawPanel(measure=measure, regime=str(laws[0].identity["regime"]), laws=laws, x="epochs")
        for measure in measures
        if (
            laws := _most(
                measure, along="compute", axis="subset_size", regimes=("fixed-compute", "equal-samples")
            )
        )
    ]
    if not any(len(panel.laws) > 1 for panel in panels):
        return Missing(title=title, reason="no two curves over compute differ only in the number of pairs")
    return _drawn(
        panels, axis="subset_size", name="error-epochs", title=title, x_label="epochs",
        against="epochs over the same pairs",
    )  # fmt: skip


def _most(measure: Measure, *, along: str, axis: str, regimes: tuple[str, ...]) -> list[Law]:
    """Return the curves that differ only along one axis and have the most cells, at the largest budget."""
    mine = [law for law in measure.laws if law.identity["regime"] in regimes]
    group = max(
        alike(mine, along=along, axis=axis),
        key=lambda group: (
            len(group) > 1,
            len(_cells_of(group)),
            float(group[0].identity.get("budget", 0.0)),
        ),
        default=[],
    )
    return sorted(group, key=lambda law: sort_key(axis, law.identity[axis]))


def _cells_of(laws: Sequence[Law]) -> list[int]:
    return [position for law in laws for position in law.positions.tolist()]


def _drawn(  # noqa: PLR0913 (what is drawn, and its words)
    panels: Sequence[_LawPanel], *, axis: str, name: str, title: str, x_label: str, against: str
) -> FigureData:
    metrics = list(dict.fromkeys(panel.measure.metric for panel in panels))
    by_regime = axis != "subset_size"
    rows: list[dict[str, Any]] = []
    for panel in panels:
        where = panel_text(
            panel.measure.metric if len(metrics) > 1 else "", panel.regime if by_regime else ""
        )
        for law in panel.laws:
            series = axis_text(axis, law.identity[axis])
            rows += curve_marks(
                panel.measure.draws, [law], law.positions, x=panel.x, series=series, panel=where
            )
    used = [law for panel in panels for law in panel.laws]
    unit = panels[0].measure.draws.error_unit
    held = dict.fromkeys(curve_text(panel.laws[0], without=axis) for panel in panels)
    return FigureData(
        name=name,
        title=title,
        x_label=x_label,
        y_label=error_label(*metrics),
        frame=mark_frame(rows),
        caption=said_once(
            f"{', '.join(map(metric_text, metrics))} against {against}, by {AXIS_WORDS[axis]}. Fixed: "
            f"{'; '.join(held)}",
            *runs_texts((panel.measure.draws, _cells_of(panel.laws)) for panel in panels),
            laws_text(used, unit),
            intervals_text([panel.measure.draws for panel in panels]),
        ),
        alt=f"{title}: {len(used)} curves. " + _ends_alt(rows, unit),
    )


def _ends_alt(rows: list[dict[str, Any]], unit: ErrorUnit) -> str:
    points = pd.DataFrame([row for row in rows if row["mark"] == "point"])
    parts = []
    for (panel, series), group in points.groupby(["panel", "series"], sort=False):
        first, last = group.iloc[0], group.iloc[-1]
        ends = ", ".join(f"{end['y']:{unit.form}}{unit.sign} at {end['x']:g}" for end in (first, last))
        parts.append(f"{panel and f'{panel}, '}{series}: {ends}")
    return "; ".join(parts) + "."


def isoflop(draws: CellDraws, profiles: Sequence[Profile], *, metric: str) -> FigureData | Missing:
    """Return the figure of the IsoFLOP profiles of the slice with the most sizes."""
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
    rows: list[dict[str, Any]] = []
    verdicts = []
    for one in group:
        budget = format_flops(float(one.identity["budget"]))
        rows += _profile_rows(draws, one, budget)
        verdicts.append(f"{budget}: {one.reason}")
    fixed = group[0].identity
    return FigureData(
        name="isoflop",
        title=title,
        x_label="model size (training FLOPs per sample)",
        y_label=error_label(metric),
        frame=mark_frame(rows),
        caption=said_once(
            f"{metric_text(metric)} against model size at each budget: {fixed['family']} family, "
            f"{held_text(fixed)}; the curves are polynomials through the joint estimates of the sizes near "
            "the lowest; the minimum is marked if the draws agree that it lies between these",
            *verdicts,
            _repetition_text([one for one in group if max(one.epochs) > 1]),
            runs_text(draws, [place for one in group for place in one.positions]),
            draws.explanation,
        ),
        alt=f"{title}. {'; '.join(verdicts)}.",
    )


def _repetition_text(group: Sequence[Profile]) -> str:
    """Return a caption text: the epochs along the profiles, and their effect on the best size."""
    if not group:
        return ""
    epochs = [
        f"{format_flops(float(one.identity['budget']))} {one.epochs[0]:.2g} to {one.epochs[1]:.2g}"
        for one in group
    ]
    return (
        f"epochs along the profiles, from the smallest model to the largest: {', '.join(epochs)}; repeated "
        "pairs are worth less than new ones, so with new pairs the best models would be no larger than here"
    )


def _profile_rows(draws: CellDraws, one: Profile, series: str) -> list[dict[str, Any]]:
    unit = draws.error_unit
    mark = "law" if one.status == "ok" else "tentative law"
    rows: list[dict[str, Any]] = [
        {"mark": mark, "series": series, "x": point["x"], "y": unit.factor * point["y"]}
        for point in records(one.band)
    ]
    rows += cell_marks(draws, one.positions, x="train_flops_per_sample", series=series)
    if one.status == "ok":
        # The interval is one of size, so it is drawn along x.
        first, last = float(one.band["x"].min()), float(one.band["x"].max())
        ends = (
            f"{format_flops(max(one.low, first))}{' or less' if one.low == 0 else ''}",
            f"{format_flops(min(one.high, last))}{' or more' if np.isinf(one.high) else ''}",
        )
        rows.append({
            "mark": "minimum", "series": series, "x": one.size,
            "y": unit.factor * float(np.interp(one.size, one.band["x"], one.band["y"])),
            "low": max(one.low, first), "high": min(one.high, last),
            "text": f"{series}: lowest at {format_flops(one.size)} per sample, [{ends[0]}, {ends[1]}]",
        })  # fmt: skip
    return rows
