"""Data of the bar figures: error by one part of the configuration, in groups with the rest fixed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.contrasts import Comparison, along_axis, compared, decide, densest
from analysis.belief.cell_draws import CellDraws
from analysis.cells.pareto import SAME_COST, costs
from analysis.cells.table import REGIMES
from analysis.charts.figure_data import (
    FigureData,
    Missing,
    bar_place,
    cell_marks,
    error_label,
    intervals_text,
    mark_frame,
    panel_text,
    runs_texts,
    said_once,
)
from analysis.labels import POOL, are_mixed, axis_text, budget_text, held_text, listed, metric_text, sort_key
from analysis.laws.laws import Measure

_ONCE = "In one epoch a purer subset is smaller and costs less"


@dataclass(frozen=True, kw_only=True, slots=True)
class _BarPanel:
    """Groups of bars side by side: cells that differ along one axis, ordered along it."""

    measure: Measure
    regime: str
    groups: Sequence[Comparison]


def quality_bars(measures: Sequence[Measure], *, waiting: pd.DataFrame | None = None) -> FigureData | Missing:
    """Return the figure of error by quality at each budget, one panel per measure and regime.

    No bar is clear beside planned trials that wait for a result, see ``study_frames.missing``.
    """
    mixed = any(are_mixed(measure.draws.cells["quality"]) for measure in measures)
    title = f"{'Mixtures of pools' if mixed else 'Quality of the data'} at each budget"
    panels = _panels(measures, "quality")
    if not panels:
        return Missing(title=title, reason="no two finished trials differ only in the quality of their data")
    once = any(panel.regime == "one-epoch" for panel in panels)
    return _bars(
        panels, axis="quality", title=title, waiting=waiting, x_label="" if once else "budget of one trial",
        note=_ONCE if once else "",
    )  # fmt: skip


def strategy_bars(measures: Sequence[Measure]) -> FigureData | Missing:
    """Return the figure of error by strategy on each number of pairs, one group per comparison."""
    title = "Training strategies on each data size"
    panels = _panels(measures, "strategy")
    if not panels:
        return Missing(title=title, reason="no two finished trials differ only in training strategy")
    return _bars(panels, axis="strategy", title=title, x_label="unique image-text pairs")


def _panels(measures: Sequence[Measure], axis: str) -> list[_BarPanel]:
    return [
        _BarPanel(measure=measure, regime=regime, groups=groups)
        for measure in measures
        for regime in REGIMES
        if (groups := _groups(measure.draws, axis, regime))
    ]


def _groups(draws: CellDraws, axis: str, regime: str) -> Sequence[Comparison]:
    if axis == "quality" and regime == "one-epoch":
        return _once(draws)
    found = [each for each in compared(draws, axis) if each.held["regime"] == regime]
    if axis == "quality":
        return densest(found)
    return sorted(found, key=lambda each: float(each.held["subset_size"]))


def _once(draws: CellDraws) -> list[Comparison]:
    """Return one-epoch groups of qualities: at each number of pairs, and at each quality's largest subset."""
    ways: list[list[Comparison]] = [[]]
    here = np.flatnonzero(draws.cells["regime"].to_numpy(object) == "one-epoch")
    for (architecture, strategy), places in draws.take(here).groups(["architecture", "strategy"]):
        positions = here[places]
        cells = draws.cells.iloc[positions]
        held = {"regime": "one-epoch", "architecture": architecture, "strategy": strategy}
        sizes = cells.groupby("subset_size").indices.items()
        found = [(size, positions[np.asarray(rows)]) for size, rows in sizes]
        largest = cells.groupby("quality")["subset_size"].idxmax().to_numpy(np.intp)
        if len(set(cells.loc[largest, "subset_size"])) > 1:
            found.append((POOL, largest))
        ways.append(
            [
                Comparison(held=held | {"subset_size": size}, positions=along_axis(draws, "quality", group))
                for size, group in found
                if len(group) > 1
            ]
        )
    return max(ways, key=lambda groups: sum(len(group.positions) for group in groups))


def _label(axis: str, held: Mapping[str, Any]) -> str:
    """Return what distinguishes a group from the others of its panel."""
    if axis == "quality" and held["regime"] != "one-epoch":
        return budget_text(held["regime"], float(held["budget"]))
    return held_text({"subset_size": held["subset_size"]})


def _bars(  # noqa: PLR0913 (what is drawn, and its words)
    panels: Sequence[_BarPanel], *, axis: str, title: str, x_label: str, note: str = "",
    waiting: pd.DataFrame | None = None,
) -> FigureData:  # fmt: skip
    """Return the figure; groups of qualities differ in compute, and their beaten bars get no star."""
    values = {
        str(value)
        for panel in panels
        for group in panel.groups
        for value in panel.measure.draws.cells[axis].iloc[group.positions]
    }
    series = [axis_text(axis, value) for value in sorted(values, key=lambda value: sort_key(axis, value))]
    rows: list[dict[str, Any]] = []
    said = []
    metrics = list(dict.fromkeys(panel.measure.metric for panel in panels))
    regimes = {panel.regime for panel in panels}
    for panel in panels:
        metric, regime = panel.measure.metric, panel.regime
        panel_title = panel_text(metric if len(metrics) > 1 else "", regime if len(regimes) > 1 else "")
        verdicts = []
        for place, group in enumerate(panel.groups):
            beaten = _beaten(panel, group) if axis == "quality" else set()
            here = panel.measure.draws.take(group.positions)
            marks, verdict = _group_marks(here, group.held, axis=axis, beaten=beaten, waiting=waiting)
            for mark in marks:
                x = bar_place(place, series.index(mark["series"]), len(series))
                rows.append(mark | {"panel": panel_title, "x": x})
            verdicts.append(f"{_label(axis, group.held)}: {verdict}" if len(panel.groups) > 1 else verdict)
        said.append(f"{panel_title}: {'; '.join(verdicts)}" if panel_title else "; ".join(verdicts))
    mixed = any(are_mixed(panel.measure.draws.cells["quality"]) for panel in panels)
    words = {"quality": "mixture of pools" if mixed else "quality of the data"}.get(axis, "training strategy")
    stars = {row["mark"] for row in rows} - {"column"}
    filled = ["filled if it is clear"] if "best" in stars else []
    hollow = ["hollow on all that tie, or if it is undecided"] if "best, not clear" in stars else []
    return FigureData(
        name=axis,
        title=title,
        kind="columns",
        x_label=x_label,
        y_label=error_label(*metrics),
        frame=mark_frame(rows),
        caption=said_once(
            f"{listed([*map(metric_text, metrics)])} by {words}, in groups with the rest fixed: "
            f"{'; '.join(dict.fromkeys(held_text(_shared(panel.groups)) for panel in panels))}",
            *runs_texts((panel.measure.draws, _places(panel)) for panel in panels),
            note,
            f"Bars start at zero; stars mark the lowest of each group, {', '.join(filled + hollow)}",
            *said,
            intervals_text([panel.measure.draws for panel in panels]),
        ),
        alt=f"{title}. Lowest: {'. '.join(said)}.",
    )


def _places(panel: _BarPanel) -> list[int]:
    return [place for group in panel.groups for place in group.positions.tolist()]


def _beaten(panel: _BarPanel, group: Comparison) -> set[int]:
    """Return the places of a group's bars that a bar of another group beats at no higher cost."""
    cells = panel.measure.draws.cells
    cost, error = costs(cells), cells["error"].to_numpy(np.float64)
    others = np.setdiff1d(np.asarray(_places(panel), dtype=np.intp), group.positions)
    return {
        bar
        for bar, place in enumerate(group.positions)
        if ((cost[others] <= cost[place] * SAME_COST) & (error[others] < error[place])).any()
    }


def _shared(groups: Sequence[Comparison]) -> dict[str, Any]:
    """Return the fixed parts that all groups share."""
    first, *others = (group.held for group in groups)
    return {name: value for name, value in first.items() if all(value == other[name] for other in others)}


def _group_marks(
    draws: CellDraws, held: Mapping[str, Any], *, axis: str, beaten: set[int], waiting: pd.DataFrame | None
) -> tuple[list[dict[str, Any]], str]:
    """Return the bars of a group with their stars, and its verdict in words."""
    bars = [axis_text(axis, value) for value in draws.cells[axis]]
    best, star, verdict = _marked(draws, bars, axis=axis, held=held, waiting=waiting)
    starred = {*best} - beaten
    if len(starred) < len({*best}):
        verdict += ", but another bar is lower at no higher cost"
    rows: list[dict[str, Any]] = []
    columns = cell_marks(draws, range(len(bars)), x="runs", mark="column", label=_label(axis, held))
    for bar, (series, column) in enumerate(zip(bars, columns, strict=True)):
        rows.append(column | {"series": series})
        if bar in starred:
            rows.append(rows[-1] | {"mark": star, "text": f"{column['text']}; {verdict}"})
    return rows, verdict


def _marked(
    draws: CellDraws, bars: Sequence[str], *, axis: str, held: Mapping[str, Any], waiting: pd.DataFrame | None
) -> tuple[Collection[int], str, str]:
    """Return the bars of a group that get a star, the kind of star, and the verdict in words."""
    choice = decide(draws, axis, held)
    if choice.kind == "tie":
        members = sorted(choice.members)
        return members, "best, not clear", f"tie of {listed([bars[member] for member in members])}"
    if choice.kind == "clear" and _waits(held, waiting):
        return [choice.leader], "best, not clear", f"{bars[choice.leader]} so far, others have no result yet"
    mark = "best" if choice.kind == "clear" else "best, not clear"
    return [choice.leader], mark, f"{bars[choice.leader]}, {choice.kind}"


def _waits(held: Mapping[str, Any], waiting: pd.DataFrame | None) -> bool:
    """Return whether a planned cell of a group has no result but may still get one."""
    if waiting is None or waiting.empty:
        return False
    same = [(waiting[name] == value).to_numpy(bool) for name, value in held.items() if value != POOL]
    diverged = waiting["reason"].str.startswith("diverged").to_numpy(bool)
    return bool((np.logical_and.reduce(same) & ~diverged).any())
