"""Data of the figures of error over compute: by architecture, by metric, all trials with their frontier."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.envelope import Envelope
from analysis.arrays import Indices
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.curves import X_COLUMNS, differing
from analysis.cells.pareto import costs
from analysis.cells.table import CELL, Trials, metrics, records, tidy
from analysis.charts.figure_data import (
    AXIS_WORDS,
    FRONTIER,
    JOINED,
    FigureData,
    Missing,
    cell_marks,
    error_label,
    intervals_text,
    mark_frame,
    runs_text,
    said_once,
)  # fmt: skip
from analysis.error_unit import ErrorUnit
from analysis.labels import (
    axis_text,
    budget_text,
    configuration_text,
    held_text,
    metric_text,
    sort_key,
)  # fmt: skip
from analysis.laws.form_choice import root_mean_square
from analysis.laws.laws import Law, Measure, laws
from budgets.quantity import plural

_CUT = 0.3  # of a value: no interval of an excess error goes lower, since a logarithm has no zero
_COSTS = {
    "train_flops": ("compute", "training compute", "training compute of one trial (FLOPs)"),
    "samples_seen": ("samples", "samples seen", "samples seen in one trial"),
}
_PANELS = 3


def slice_along(draws: CellDraws, axis: str) -> tuple[dict[str, Any], Indices]:
    """Return the fixed parts under which most cells compare along an axis, and these cells."""

    def worth(positions: Indices) -> tuple[int, int, float]:
        budgets = Counter(draws.cells["budget"].to_numpy()[positions].tolist())
        comparable = sum(count for count in budgets.values() if count > 1)
        return comparable, len(positions), float(draws.cells["subset_size"].to_numpy()[positions].max())

    groups = differing(draws, "budget", axis)
    return max(groups, key=lambda group: worth(group[1]), default=({}, np.empty(0, dtype=np.intp)))


def over_compute(
    measure: Measure, frontier: pd.DataFrame, *, axis: str, x: str = "train_flops"
) -> FigureData | Missing:
    """Return the figure of error against cost, one curve per architecture or strategy, with the best marked.

    The cost is ``train_flops`` or ``samples_seen``.
    """
    word = AXIS_WORDS[axis]
    short, cost, x_label = _COSTS[x]
    draws, metric, unit = measure.draws, measure.metric, measure.draws.error_unit
    title = f"{unit.title} against {short}, by {word}"
    held, positions = slice_along(draws, axis)
    series = sorted(
        {str(value) for value in draws.cells[axis].iloc[positions]}, key=lambda value: sort_key(axis, value)
    )
    if not series or (axis == "strategy" and len(series) < 2):  # noqa: PLR2004 (two are compared)
        return Missing(title=title, reason=f"no two finished trials differ only in {word}")
    drawn = _of_slice(measure, held)
    rows = _curve_rows(draws, drawn, positions, axis=axis, x=x)
    shown = set(positions.tolist())
    regime = draws.cells["regime"].to_numpy()
    rest = [place for place in range(len(regime)) if regime[place] == held["regime"] and place not in shown]
    others = cell_marks(draws, rest, x=x, mark="other", series="other configurations")
    best, ties = _best_rows(draws, frontier, axis, str(held["regime"]), x)
    lowest = f"Lowest measured {unit.word}: " + "; ".join(
        f"{mark['label']}, {mark['y']:{unit.form}}{unit.sign}" for mark in best
    )
    return FigureData(
        name=f"error-{short}-{axis}",
        title=title,
        x_label=x_label,
        y_label=error_label(metric),
        frame=mark_frame([*({**mark, "low": np.nan, "high": np.nan} for mark in others), *rows, *best]),
        caption=said_once(
            f"{metric_text(metric)} against {cost} in one trial, by {word}. Fixed: {held_text(held)}",
            f"{runs_text(draws, positions)}; other configurations in grey",
            laws_text(drawn, unit),
            f"Stars mark the best of all configurations at each budget{ties}",
            draws.explanation,
        ),
        alt=f"{title}: {', '.join(axis_text(axis, name) for name in series)}. {lowest}.",
    )


def excess_over_compute(measure: Measure, *, axis: str) -> FigureData | None:
    """Return the view of `over_compute` above each law's floor E, in log-log; None if no law has a floor.

    A law E + A·C^−α is a straight line there, whose slope is −α. Only curves with a law that is drawn have a
    known floor; cells at or below it are left out.
    """
    draws, metric, unit = measure.draws, measure.metric, measure.draws.error_unit
    held, _ = slice_along(draws, axis)
    drawn = [law for law in _of_slice(measure, held) if law.fit.supported]
    alone = axis == "strategy" and len({law.identity[axis] for law in drawn}) < 2  # noqa: PLR2004 (as above)
    if alone or not any(law.fit.floor > 0 for law in drawn):
        return None
    rows, below, slopes = [], 0, []
    for law in sorted(drawn, key=lambda law: sort_key(axis, law.identity[axis])):
        floor, name = unit.factor * law.fit.floor, axis_text(axis, law.identity[axis])
        marks = curve_marks(draws, law, x="train_flops", series=name)
        above = [mark for mark in marks if mark["y"] > floor]
        below += len(marks) - len(above)
        rows += [
            mark | {
                "y": mark["y"] - floor, "high": mark["high"] - floor,
                "low": max(mark["low"] - floor, _CUT * (mark["y"] - floor)),
                "text": mark.get("text", "")
                and f"{mark['text']}; {mark['y'] - floor:{unit.form}} above E",
            }
            for mark in above
        ]  # fmt: skip
        slopes.append(f"{name}: E = {unit.text(law.fit.floor)}, α = {law.fit.alpha:.2f}")
    word = AXIS_WORDS[axis]
    title = f"Excess {unit.word} against compute, by {word}"
    return FigureData(
        name=f"error-compute-{axis}-excess",
        title=title,
        x_label=_COSTS["train_flops"][2],
        y_label=unit.gap_heading_of(f"{metric_text(metric)} above E"),
        y_scale="log",
        view_of=f"error-compute-{axis}",
        frame=mark_frame(rows),
        caption=said_once(
            f"{metric_text(metric)} above the floor E of each curve's own law. Fixed: {held_text(held)}",
            "; ".join(slopes),
            f"Intervals and bands are those of the {unit.word}, with E as fitted, cut below 30 % of the "
            "value",
            f"Not drawn: {plural(below, 'mark')} at or below E" if below else "",
            draws.explanation,
        ),
        alt=f"{title}: {'; '.join(slopes)}.",
    )


def _of_slice(measure: Measure, held: Mapping[str, Any]) -> list[Law]:
    """Return the laws along compute of the curves with the given fixed parts."""
    return [
        law
        for law in measure.along("compute")
        if all(law.identity.get(name) == value for name, value in held.items())
    ]


def _curve_rows(
    draws: CellDraws, drawn: Sequence[Law], positions: Indices, *, axis: str, x: str
) -> list[dict[str, Any]]:
    """Return the marks of some cells by their value along an axis, with the given laws through them."""
    rows: list[dict[str, Any]] = []
    values = draws.cells[axis].to_numpy(object)
    for value in sorted(set(values[positions]), key=lambda value: sort_key(axis, value)):
        mine = positions[values[positions] == value]
        along = [law for law in drawn if law.identity[axis] == value]
        rows += _marks(draws, along, mine, x=x, series=axis_text(axis, value))
    return rows


def curve_marks(draws: CellDraws, law: Law, *, x: str, **fixed: object) -> list[dict[str, Any]]:
    """Return the marks of one curve over a column of its cells: its law, or a thin line, and its cells."""
    return _marks(draws, [law], law.positions, x=x, **fixed)


def _marks(
    draws: CellDraws, drawn: Sequence[Law], positions: Indices, *, x: str, **fixed: object
) -> list[dict[str, Any]]:
    lines = [row for law in drawn for row in _law_rows(draws, law, x=x, **fixed)]
    return [*lines, *cell_marks(draws, positions, x=x, line="" if lines else JOINED, **fixed)]


def _law_rows(draws: CellDraws, law: Law, *, x: str, **fixed: object) -> list[dict[str, Any]]:
    """Return the drawn points of a supported law in the unit of errors; ``tentative law`` if untested.

    The column of the cells for x is proportional to the law's own x along the curve.
    """
    cells, mark = draws.cells.iloc[law.positions], "law" if law.fit.tested else "tentative law"
    ratio = float((cells[x] / cells[X_COLUMNS[law.along]]).mean())
    unit, ends = draws.error_unit, ["low", "high"]
    band = law.band.assign(**law.band[ends].clip(0.0, unit.most))
    factor = dict.fromkeys(("y", *ends), unit.factor) | {"x": ratio}
    return [{"mark": mark} | point | fixed for point in records(band[list(factor)] * pd.Series(factor))]


def _best_rows(
    draws: CellDraws, frontier: pd.DataFrame, axis: str, regime: str, x: str
) -> tuple[list[dict[str, Any]], str]:
    rows: list[dict[str, Any]] = []
    verdicts = []
    for best in records(frontier):
        if best["regime"] != regime:
            continue
        verdict = str(best["verdict"])
        verdicts.append(verdict)
        if verdict == "beaten":
            continue
        same = [(draws.cells[name] == best[name]).to_numpy(bool) for name in CELL]
        stars = cell_marks(
            draws,
            np.flatnonzero(np.logical_and.reduce(same)),
            x=x,
            mark="best" if verdict == "clear" else "best, not clear",
            series=axis_text(axis, best[axis]),
            label=f"{best['at']}: {configuration_text(best)} ({verdict})",
        )
        rows += [star | {"text": f"{star['text']}; lowest for {best['at']}, {verdict}"} for star in stars]
    hollow = [words for name, words in (("tie", "a tie"), ("undecided", "undecided")) if name in verdicts]
    said = f", hollow if it is {' or '.join(hollow)}" if hollow else ""
    beaten = verdicts.count("beaten")
    return rows, said + (
        f"; there is none at {plural(beaten, 'budget')} where a cheaper trial is lower" if beaten else ""
    )


def laws_text(drawn: Sequence[Law], unit: ErrorUnit, x: str = "C") -> str:
    """Return a caption text: which laws over x are drawn, their misses, and why others are not drawn."""
    if not drawn:
        return "no law is drawn, since no curve has two levels"
    shown = [law for law in drawn if law.fit.supported]
    left = Counter(law.fit.status for law in drawn if not law.fit.supported)
    said = []
    for form in dict.fromkeys(law.fit.form for law in shown):
        mine = [law for law in shown if law.fit.form == form]
        formula = f"{form.formula.replace('x', x)} ({form.name})"
        said.append(f"{plural(len(mine), 'law')} {formula}{_misses_text(mine, unit)}")
    untested = sum(not law.fit.tested for law in shown)
    have = "has four levels or fewer and is" if untested == 1 else "have four levels or fewer and are"
    said += [f"{untested} of them {have} not tested (dashed)"] if untested else []
    said += [f"{count} not drawn ({status}); thin lines join their cells" for status, count in left.items()]
    return "; ".join(said)


def _misses_text(drawn: Sequence[Law], unit: ErrorUnit) -> str:
    """Return a caption text: the misses of the laws that have spare levels, and the part that is noise."""
    tested = [law.fit for law in drawn if law.fit.freedom]
    if not tested:
        return ""
    miss = unit.gap(root_mean_square(np.array([fit.miss for fit in tested])), fine=True)
    noise = root_mean_square(np.array([fit.noise for fit in tested]))
    said = f", {unit.gap(noise, fine=True)} of noise" if noise > 0 else ""
    lacking = sum(fit.status == "lack of fit" for fit in tested)
    more = f"; {lacking} of them by more than the noise allows" if lacking else ""
    return f" with misses of {miss} (root mean square{said}{more})"


def over_compute_of(
    results: pd.DataFrame, *, name: str, title: str, endings: tuple[str, ...]
) -> FigureData | Missing:
    """Return the figure of error by several metrics against compute, one panel per metric.

    ``endings`` are the metrics without the name of the evaluation set.
    """
    found = [] if results.empty else [one for one in metrics(results) if one.rpartition("/")[2] in endings]
    found = [one for one in found if results[one].notna().any()]
    if not found:
        return Missing(title=title, reason=f"no finished trial has any of the metrics {', '.join(endings)}")
    rows: list[dict[str, Any]] = []
    fitted: list[Law] = []
    held_words, counts, several = [], [], []
    for metric in found[:_PANELS]:
        draws = cell_draws(tidy(results, metric=metric), question=f"figure/{metric}")
        held, positions = slice_along(draws, "architecture")
        cut = draws.take(positions)
        mine = laws(cut, along="compute")
        every = np.arange(len(positions))
        marks = _curve_rows(cut, mine, every, axis="architecture", x="train_flops")
        rows += [mark | {"panel": metric_text(metric)} for mark in marks]
        fitted += mine
        held_words.append(held_text(held))
        counts.append(runs_text(draws, positions))
        several.append(draws)
    return FigureData(
        name=name,
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(*found[:_PANELS]),
        frame=mark_frame(rows),
        caption=said_once(
            f"{', '.join(map(metric_text, found[:_PANELS]))} against compute, by architecture. Fixed: "
            f"{'; '.join(dict.fromkeys(held_words))}",
            *counts,
            laws_text(fitted, several[0].error_unit),
            f"Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}" if found[_PANELS:] else "",
            intervals_text(several),
        ),
        alt=f"{title} against compute: {', '.join(map(metric_text, found[:_PANELS]))}.",
    )


def pareto(trials: Trials, envelopes: Sequence[Envelope]) -> FigureData | Missing:
    """Return the figure of every trial's error against compute, with the frontier of the cells' means.

    If there are several regimes, the one with the most trials is drawn. Under fixed compute a trial lies at
    its level, not at the whole batches below it.
    """
    title = "All trials and the Pareto frontier"
    if not envelopes:
        return Missing(title=title, reason="no trial has finished")
    unit = ErrorUnit.of(trials.metric)
    counts = trials.frame["regime"].value_counts()
    one = max(envelopes, key=lambda envelope: int(counts.get(envelope.regime, 0)))
    mine = trials.frame[trials.frame["regime"] == one.regime]
    names = sorted(mine["architecture"].unique(), key=lambda name: sort_key("architecture", name))
    rows: list[dict[str, Any]] = []
    for name in names:
        here = mine[mine["architecture"] == name]
        rows += [
            {
                "mark": "point", "series": str(name), "x": x, "y": unit.factor * row["error"],
                "text": f"{configuration_text(row)}, {budget_text(row['regime'], row['budget'])}, seed "
                f"{int(row['seed'])}: {unit.text(row['error'])}",
            }
            for row, x in zip(records(here), costs(here).tolist(), strict=True)
        ]  # fmt: skip
    cells = one.pareto
    steps = list(zip(costs(cells).tolist(), (unit.factor * cells["error"]).tolist(), strict=True))
    stairs = [steps[0], *(corner for (_, y), (x, low) in pairwise(steps) for corner in ((x, y), (x, low)))]
    stairs.append((max(row["x"] for row in rows), steps[-1][1]))
    rows += [{"mark": "line", "series": FRONTIER, "line": FRONTIER, "x": x, "y": y} for x, y in stairs]
    best = "; ".join(configuration_text(row) for row in records(cells))
    return FigureData(
        name="pareto",
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(trials.metric),
        frame=mark_frame(rows),
        caption=said_once(
            f"{metric_text(trials.metric)} of {plural(len(mine), 'finished trial')}, by architecture. "
            "Stairs: the lowest mean of any configuration at no more compute"
        ),
        alt=f"{title}: {plural(len(mine), 'trial')}; on the frontier: {best}.",
    )
