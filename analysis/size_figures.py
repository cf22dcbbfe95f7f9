"""The figures of error over data size and over model size, as data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.bootstrap import CellDraws
from analysis.compute_figures import law_rows, laws_text, on_axis
from analysis.contrasts import held_text
from analysis.figure_data import FigureData, Missing, cell_marks, mark_frame, runs_text
from analysis.isoflop import Curve
from analysis.labels import axis_text, budget_text, capital, metric_text, plural
from analysis.laws import Law, alike, curve_text
from budgets.quantity import format_flops

_PANELS = 3


def over_data(draws: CellDraws, laws: Sequence[Law], *, metric: str) -> FigureData | Missing:
    """Error against unique pairs: one curve a budget, one panel an architecture, quality and strategy."""
    title = "Error against data size"
    groups: dict[tuple[Any, ...], list[Law]] = {}
    for law in laws:
        key = tuple(law.identity[name] for name in ("regime", "architecture", "quality", "strategy"))
        groups.setdefault(key, []).append(law)
    if not groups:
        return Missing(title=title, reason="no two finished trials differ in the number of pairs alone")
    ranked = sorted(groups.items(), key=lambda group: -sum(len(law.positions) for law in group[1]))
    rows: list[dict[str, Any]] = []
    shown: list[int] = []
    for (regime, architecture, quality, strategy), panel_laws in ranked[:_PANELS]:
        panel = ", ".join((str(architecture), axis_text("quality", quality), axis_text("strategy", strategy)))
        for law in panel_laws:
            series = budget_text(str(regime), float(law.identity["budget"]))
            rows += law_rows(law, series=series, panel=panel)
            rows += cell_marks(draws, law.positions, x="subset_size", series=series, panel=panel)
            shown += law.positions.tolist()
    left = (
        f" Not drawn, in the table of fits: {plural(len(ranked) - _PANELS, 'further panel')}."
        if len(ranked) > _PANELS
        else ""
    )
    used = [law for _, group in ranked[:_PANELS] for law in group]
    return FigureData(
        name="error-data",
        title=title,
        kind="curves",
        x_label="unique image-text pairs",
        y_label=f"{metric_text(metric)} (%)",
        frame=mark_frame(rows),
        caption=(
            f"{capital(metric_text(metric))} against the number of unique pairs at each budget. "
            f"{runs_text(draws, shown)}. {laws_text(used).replace('C^-α', 'D^-α')}{left} "
            f"{capital(draws.explanation)}."
        ),
        alt=f"{title}: {len(used)} curves. " + _ends_alt(rows),
    )


def by_architecture(draws: CellDraws, laws: Sequence[Law], *, metric: str) -> FigureData | Missing:
    """Error against unique pairs by architecture: one panel at equal samples, one for one epoch."""
    title = "Error against data size, by architecture"
    rows: list[dict[str, Any]] = []
    shown: list[int] = []
    used: list[Law] = []
    # In one epoch a law over compute is one over pairs: a sample is a pair, and costs the same along a curve.
    for regime, along in (("equal-samples", "data"), ("one-epoch", "compute")):
        mine = [law for law in laws if law.along == along and law.identity["regime"] == regime]
        group = max(alike(mine, along=along, axis="architecture"), key=_cells_of, default=[])
        for law in group:
            panel = f"{regime.replace('-', ' ')}: {curve_text(law, without='architecture')}"
            fixed = {"series": str(law.identity["architecture"]), "panel": panel}
            x = "train_flops" if along == "data" else "samples_seen"
            rows += on_axis(law_rows(law, **fixed), draws, law, x)
            rows += cell_marks(draws, law.positions, x="subset_size", **fixed)
            shown += law.positions.tolist()
        used += group
    if not rows:
        return Missing(
            title=title,
            reason="no curve over pairs at equal samples or over one epoch has two finished cells",
        )
    return FigureData(
        name="error-data-architecture",
        title=title,
        kind="curves",
        x_label="unique image-text pairs",
        y_label=f"{metric_text(metric)} (%)",
        frame=mark_frame(rows),
        caption=(
            f"{capital(metric_text(metric))} against the number of unique pairs by architecture, at equal "
            f"samples and in one epoch where the study has them. {runs_text(draws, shown)}. "
            f"{laws_text(used).replace('C^-α', 'D^-α')} {capital(draws.explanation)}."
        ),
        alt=f"{title}: {len(used)} curves. " + _ends_alt(rows),
    )


def _cells_of(group: list[Law]) -> tuple[int, float]:
    return sum(len(law.positions) for law in group), float(group[0].identity.get("budget", 0.0))


def _ends_alt(rows: list[dict[str, Any]]) -> str:
    points = pd.DataFrame([row for row in rows if row["mark"] == "point"])
    parts = []
    for (panel, series), group in points.groupby(["panel", "series"], sort=False):
        first, last = group.iloc[0], group.iloc[-1]
        ends = f"{first['y']:.1f} % with {first['x']:g} pairs, {last['y']:.1f} % with {last['x']:g}"
        parts.append(f"{panel} at {series}: {ends}")
    return "; ".join(parts) + "."


def isoflop(draws: CellDraws, curves: Sequence[Curve], *, metric: str) -> FigureData | Missing:
    """Error against training FLOPs per sample at each budget: the slice that has the most sizes."""
    title = "IsoFLOP profiles: error against model size"
    groups: dict[tuple[Any, ...], list[Curve]] = {}
    for curve in curves:
        key = tuple(curve.identity[name] for name in ("family", "strategy", "subset_size", "quality"))
        groups.setdefault(key, []).append(curve)
    complete = {
        key: group
        for key, group in groups.items()
        if any(curve.profile.status != "too few sizes" for curve in group)
    }
    if not complete:
        most = max((len(curve.positions) for curve in curves), default=1)
        return Missing(
            title=title,
            reason=f"{plural(most, 'model size')} of one family at a budget; a profile needs three",
        )
    key, group = max(
        complete.items(),
        key=lambda item: (sum(len(curve.positions) for curve in item[1]), float(item[0][2])),
    )
    rows: list[dict[str, Any]] = []
    verdicts = []
    for curve in group:
        budget = budget_text("fixed-compute", float(curve.identity["budget"]))
        rows += _profile_rows(draws, curve, budget)
        verdicts.append(f"{budget}: {curve.profile.reason}")
    name, strategy, size, quality = key
    return FigureData(
        name="isoflop",
        title=title,
        kind="curves",
        x_label="model size (training FLOPs per sample)",
        y_label=f"{metric_text(metric)} (%)",
        frame=mark_frame(rows),
        caption=(
            f"{capital(metric_text(metric))} against model size at each budget: {name} family, "
            f"{held_text({'strategy': strategy, 'subset_size': size, 'quality': quality})}; parabola in the "
            "logarithm of the size, drawn where its minimum lies between the sizes tried, marked where the "
            "draws agree. "
            f"{'; '.join(verdicts)}. {runs_text(draws, [p for c in group for p in c.positions])}. "
            f"{capital(draws.explanation)}."
        ),
        alt=f"{title}. {'; '.join(verdicts)}.",
    )


def _profile_rows(draws: CellDraws, curve: Curve, series: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    x = draws.cells["train_flops_per_sample"].to_numpy(np.float64)[curve.positions]
    profile = curve.profile
    if profile.status in ("ok", "one seed", "unstable"):
        mark = "law" if profile.status == "ok" else "tentative law"
        at = np.geomspace(x.min(), x.max(), 60)
        rows += [
            {"mark": mark, "series": series, "x": float(size), "y": 100 * float(error)}
            for size, error in zip(at, profile(at), strict=True)
        ]
    rows += cell_marks(draws, curve.positions, x="train_flops_per_sample", series=series)
    if profile.status == "ok":
        # Its interval is one of size and lies along x.
        lowest = float(profile(np.array([profile.size]))[0])
        rows.append({
            "mark": "minimum", "series": series, "x": profile.size, "y": 100 * lowest,
            "low": profile.ends.low, "high": profile.ends.high,
            "text": f"{series}: lowest at {format_flops(profile.size)} a sample, "
            f"[{format_flops(profile.ends.low)}, {format_flops(profile.ends.high)}]",
        })  # fmt: skip
    return rows
