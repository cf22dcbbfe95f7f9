"""Data of the figures of error over compute, pairs or epochs, with a curve for each value of one part."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.arrays import Indices
from analysis.belief.cell_draws import CellDraws
from analysis.belief.curves import X_COLUMNS, compared
from analysis.belief.verdict import LEADS
from analysis.cells.table import REGIMES, records
from analysis.charts.figure_data import (
    AXIS_WORDS,
    JOINED,
    FigureData,
    Missing,
    architecture_families,
    architecture_order,
    band_marks,
    cell_marks,
    error_label,
    finding,
    mark_frame,
    star,
)  # fmt: skip
from analysis.labels import (
    POOL,
    axis_text,
    budget_text,
    capital,
    epochs_text,
    fixed_factors_text,
    listed,
    metric_text,
    quality_fraction,
    regime_text,
    sort_key,
)  # fmt: skip
from analysis.laws.laws import Law, Measure

_PANELS, _CURVES = 3, 8
_ONCE = 0.04  # half the height, as a share of the range of errors, of the dash where repetition begins


class _Axis(NamedTuple):
    """A column for x: in titles, on its axis and in captions, and what varies with it in each regime."""

    title: str
    label: str
    words: str
    ways: Mapping[str, Sequence[Sequence[str]]]


OVER = {
    "train_flops": _Axis(
        "compute", "training compute of one trial (FLOPs)", "training compute of one trial",
        dict.fromkeys(REGIMES, (("budget",),)),
    ),
    "subset_size": _Axis(
        "data size", "unique image-text pairs", "the number of unique pairs",
        {"equal-samples": (("subset_size",), ("subset_size", "budget")), "one-epoch": (("budget",),)},
    ),
    "epochs": _Axis(
        "epochs", "epochs", "epochs over the same pairs",
        dict.fromkeys(("fixed-compute", "equal-samples"), (("budget",),)),
    ),
}  # fmt: skip
"""Columns of the cells that errors are drawn against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """Cells of one measure that share the parts ``held``, with the laws through them, over one column."""

    measure: Measure
    held: Mapping[str, Any]
    positions: Indices
    x: str

    @property
    def cells(self) -> pd.DataFrame:
        return self.measure.draws.cells.iloc[self.positions]

    def laws(self, positions: Indices) -> list[Law]:
        """Return the laws through some of the cells along the column for x."""
        along = "data" if self.x == "subset_size" and self.held["regime"] != "one-epoch" else "compute"
        mine = set(positions.tolist())
        return [law for law in self.measure.along(along) if mine.issuperset(law.positions.tolist())]


def slice_along(
    draws: CellDraws, axis: str, along: Sequence[str] = ("budget",), regimes: Iterable[str] = REGIMES
) -> tuple[dict[str, Any], Indices]:
    """Return the fixed parts under which most cells compare along an axis, and the positions of these cells.

    The cells differ in that part of the configuration and in the columns ``along``, of which the first is the
    one at whose values they compare.
    """

    def worth(group: tuple[dict[str, Any], Indices]) -> tuple[int, int, float]:
        counts = Counter(draws.column(along[0])[group[1]].tolist())
        comparable = sum(count for count in counts.values() if count > 1)
        return comparable, len(group[1]), float(draws.column("subset_size")[group[1]].max())

    groups = [
        (held, places)
        for held, places in compared(draws.cells, axis, *along)
        if held["regime"] in regimes and (held["regime"], held.get("subset_size")) != ("one-epoch", POOL)
    ]
    return max(groups, key=worth, default=({}, np.empty(0, dtype=np.intp)))


def over_compute(measure: Measure, contrasts: pd.DataFrame, *, axis: str) -> FigureData | Missing:
    """Return the figure of error against compute, by a part of the configuration, with the best marked.

    ``contrasts`` is the table of `contrasts`; at a budget whose comparison lacks runs no star is filled. Of
    many curves those are drawn that lead somewhere, then those of the most cells.
    """
    draws, word, unit = measure.draws, AXIS_WORDS[axis], measure.draws.error_unit
    title = f"{unit.title} against compute, by {word}"
    held, positions = slice_along(draws, axis)
    values = draws.cells[axis].to_numpy(object)
    counts = Counter(values[positions].tolist())
    if not counts or (axis != "architecture" and len(counts) < 2):  # noqa: PLR2004 (two are compared)
        return Missing(title=title, reason=f"no two finished trials differ only in {word}")
    panel = _Panel(measure=measure, held=held, positions=positions, x="train_flops")
    verdicts = _verdicts(contrasts, axis, panel)
    text = finding(verdicts, unit)
    led = Counter(row["best"] for row in verdicts)
    drawn = sorted(counts, key=lambda value: (-led[axis_text(axis, value)], -counts[value]))[:_CURVES]
    positions = positions[[value in drawn for value in values[positions]]]
    panel = replace(panel, positions=positions)
    shown, same = set(positions.tolist()), draws.cells["regime"].to_numpy(object) == held["regime"]
    rest = [place for place in np.flatnonzero(same).tolist() if place not in shown]
    others = cell_marks(draws, rest, x="train_flops", mark="other", series="other configurations")
    # Elsewhere cells of one budget differ in compute, so none is the best at it.
    compute, stars = held["regime"] == "fixed-compute", list[dict[str, Any]]()
    leaders = {(row["budget"], row["best"]): row for row in verdicts if compute}
    for place in positions.tolist():
        series = axis_text(axis, values[place])
        if row := leaders.get((draws.column("budget")[place], series)):
            stars += cell_marks(draws, [place], x="train_flops", series=series, mark=star(row["verdict"]))
    return _figure(
        [panel], axis=axis, name="quality" if axis == "quality" else f"error-compute-{axis}", title=title,
        finding=text if compute or not text else f"{capital(regime_text(str(held['regime'])))}: {text}",
        before=[mark | {"low": np.nan, "high": np.nan} for mark in others], after=stars,
        also=("grey: other configurations",) if rest else (),
    )  # fmt: skip


def _verdicts(contrasts: pd.DataFrame, axis: str, panel: _Panel) -> list[dict[str, Any]]:
    """Return the rows of `contrasts` between cells of a panel, by budget; none is clear that lacks runs."""
    if contrasts.empty:
        return []
    # In one epoch cells are compared at each number of pairs.
    sizes = set[float]() if "subset_size" in {axis, *panel.held} else set(panel.cells["subset_size"])
    texts = {fixed_factors_text({**panel.held, "subset_size": size}) for size in sizes} or {
        fixed_factors_text(panel.held)
    }
    mine = contrasts[(contrasts["axis"] == axis) & (contrasts["regime"] == panel.held["regime"])]
    return [
        row
        | {"at": budget_text(row["regime"], row["budget"])}
        | ({"verdict": "undecided"} if row["verdict"] in LEADS and row["lacking"] else {})
        for row in records(mine[mine["held"].isin(texts)].sort_values("budget"))
    ]


def over_data(measure: Measure, contrasts: pd.DataFrame) -> FigureData | Missing:
    """Return the figure of error against unique pairs, one curve per budget, with where repetition begins."""
    draws, unit = measure.draws, measure.draws.error_unit
    title = f"{unit.title} against data size and repetition"
    held, positions = slice_along(draws, "subset_size")
    if len(np.unique(draws.column("subset_size")[positions])) < 2:  # noqa: PLR2004 (two are compared)
        return Missing(title=title, reason="no two finished trials differ only in the number of pairs")
    panel = _Panel(measure=measure, held=held, positions=positions, x="subset_size")
    errors = unit.factor * panel.cells["error"]
    half, dashes = _ONCE * float(np.ptp(errors)), []
    for budget, cells in panel.cells.sort_values("subset_size").groupby("budget"):
        once, pairs = float(cells["samples_seen"].mean()), cells["subset_size"].to_numpy(np.float64)
        if pairs[0] < once < pairs[-1]:
            y = float(np.interp(np.log(once), np.log(pairs), errors[cells.index]))
            name = f"one epoch at {budget_text(held['regime'], float(str(budget)))}"
            dashes += [
                {"mark": "reference", "line": name, "x": once, "y": end} for end in (y - half, y + half)
            ]
    verdicts = _verdicts(contrasts, "subset_size", panel)
    return _figure(
        [panel], axis="budget", name="error-data", title=title, after=dashes,
        finding=finding(verdicts, unit),
        also=("left of a dash across its curve pairs are repeated",) if dashes else (),
    )  # fmt: skip


def over(measures: Sequence[Measure], *, axis: str, x: str) -> FigureData | Missing:
    """Return the figure of error against a column of the cells, one of ``OVER``, by one part of them.

    There is a panel per measure and regime in which cells with two qualities, or two values of that column
    and of the part unless it is the architecture, differ only in these.
    """
    what = OVER[x]
    title, panels = f"{measures[0].draws.error_unit.title} against {what.title}, by {AXIS_WORDS[axis]}", []
    needed = {"quality"} if axis == "quality" else {x, axis} - {"architecture"}
    for measure, (regime, ways) in product(measures, what.ways.items()):
        for along in ways:
            held, positions = slice_along(measure.draws, axis, along, regimes=(regime,))
            panel = _Panel(measure=measure, held=held, positions=positions, x=x)
            if all(len(set(panel.cells[part])) > 1 for part in needed):
                panels.append(panel)
                break
    if not panels:
        regimes = " or ".join(map(regime_text, what.ways))
        reason = f"no finished trials of {regimes} differ only in {what.title} and {AXIS_WORDS[axis]}"
        return Missing(title=title, reason=reason)
    by = "" if axis == "subset_size" else f"-{axis}"
    name = axis if axis == "quality" else f"error-{what.title.split()[0]}{by}"
    return _figure(panels, axis=axis, name=name, title=title)


def _figure(  # noqa: PLR0913 (what is drawn, and its words)
    panels: Sequence[_Panel], *, axis: str, name: str, title: str, finding: str = "",
    before: Sequence[dict[str, Any]] = (), after: Sequence[dict[str, Any]] = (), also: Sequence[str] = (),
) -> FigureData:  # fmt: skip
    """Return the figure of panels; curves whose law can't be drawn are cells joined by a thin line."""
    what, regimes = OVER[panels[0].x], {panel.held["regime"] for panel in panels}
    metrics = list(dict.fromkeys(panel.measure.metric for panel in panels))
    every = pd.concat([panel.cells for panel in panels])
    sized = axis == "architecture"
    marks, fixed, order = [*before], dict[str, None](), architecture_order(every) if sized else {}
    for panel in panels:
        cells, regime = panel.cells, str(panel.held["regime"])
        words = [metric_text(panel.measure.metric)] if len(metrics) > 1 else []
        where = ", ".join([*words, *([regime_text(regime)] if len(regimes) > 1 else [])])
        for value in sorted(cells[axis].unique(), key=float if axis == "budget" else partial(sort_key, axis)):
            mine = panel.positions[(cells[axis] == value).to_numpy(bool)]
            series = budget_text(regime, value) if axis == "budget" else axis_text(axis, value)
            marks += [mark | {"series": series, "panel": where} for mark in _curve(panel, mine)]
            if axis == "quality" and quality_fraction(value) <= 1:
                order[series] = quality_fraction(value)
            elif axis in ("budget", "subset_size"):
                order[series] = float(value)
        factors = fixed_factors_text(panel.held)
        if "budget" in panel.held:
            factors += f" at {budget_text(regime, panel.held['budget'])}"
        fixed[factors] = None
    if any(mark["mark"] == "law" for mark in marks):
        also = ["lines: the joint law", *also]
    caption = f"{listed([*map(metric_text, metrics)])} against {what.words}, by {AXIS_WORDS.get(axis, axis)}"
    caption += f" ({'; '.join(fixed)})"
    return FigureData(
        name=name, title=title, x_label=what.label, by=axis, order=order,
        y_label=error_label(*metrics), finding=finding or _lowest(marks),
        families=architecture_families(every) if sized else {},
        frame=mark_frame([*marks, *after]),
        caption=f"{capital('; '.join([caption, *also]))}.",
    )  # fmt: skip


def _lowest(marks: Iterable[Mapping[str, Any]]) -> str:
    """Return the lowest cell of each panel in one sentence."""
    lowest: dict[str, Mapping[str, Any]] = {}
    for mark in marks:
        if mark["mark"] == "point" and mark["y"] < lowest.get(mark["panel"], {"y": np.inf})["y"]:
            lowest[mark["panel"]] = mark
    texts = [f"{panel and f'{panel}, '}{mark['text']}" for panel, mark in lowest.items()]
    return f"Lowest: {'; '.join(texts)}." if texts else ""


def _curve(panel: _Panel, positions: Indices) -> list[dict[str, Any]]:
    """Return the marks of the cells of a series, and of its laws or else of a thin line."""
    draws = panel.measure.draws
    lines = list[dict[str, Any]]()
    for law in panel.laws(positions):
        # The column for x is proportional to the law's own x along the curve.
        cells = draws.cells.iloc[law.positions]
        ratio = float((cells[panel.x] / cells[X_COLUMNS[law.along]]).mean())
        lines += band_marks("law", law.band, draws.error_unit, ratio=ratio)
    points = cell_marks(draws, positions, x=panel.x, line="" if lines else JOINED)
    if panel.x == "subset_size":
        epochs = draws.column("epochs")[positions].tolist()
        points = [
            mark | {"text": f"{mark['text']}, {epochs_text(value)} epochs"}
            for mark, value in zip(points, epochs, strict=True)
        ]
    return [*lines, *sorted(points, key=lambda mark: mark["x"])]
