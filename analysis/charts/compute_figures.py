"""Data of the figures of error over compute: by architecture, by metric, all trials with their frontier."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Indices
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.belief.curves import X_COLUMNS, differing
from analysis.cells.table import CELL, metrics, records, tidy
from analysis.charts.figure_data import (
    AXIS_WORDS,
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
from analysis.labels import axis_text, configuration_text, held_text, metric_text, sort_key
from analysis.laws.laws import Law, Measure, laws, root_mean_square
from budgets.quantity import plural

_PANELS = 3


def slice_along(draws: CellDraws, axis: str) -> tuple[dict[str, Any], Indices]:
    """Return the fixed parts under which most cells compare along an axis, and these cells."""

    def worth(positions: Indices) -> tuple[int, int, float]:
        budgets = Counter(draws.cells["budget"].to_numpy()[positions].tolist())
        comparable = sum(count for count in budgets.values() if count > 1)
        return comparable, len(positions), float(draws.cells["subset_size"].to_numpy()[positions].max())

    groups = differing(draws, "budget", axis)
    return max(groups, key=lambda group: worth(group[1]), default=({}, np.empty(0, dtype=np.intp)))


def over_compute(measure: Measure, best: pd.DataFrame, *, axis: str) -> FigureData | Missing:
    """Return the figure of error against compute, by architecture or strategy, with the best marked."""
    word = AXIS_WORDS[axis]
    draws, metric, unit = measure.draws, measure.metric, measure.draws.error_unit
    title = f"{unit.title} against compute, by {word}"
    held, positions = slice_along(draws, axis)
    series = sorted(
        {str(value) for value in draws.cells[axis].iloc[positions]}, key=lambda value: sort_key(axis, value)
    )
    if not series or (axis == "strategy" and len(series) < 2):  # noqa: PLR2004 (two are compared)
        return Missing(title=title, reason=f"no two finished trials differ only in {word}")
    drawn = [
        law
        for law in measure.along("compute")
        if all(law.identity.get(name) == value for name, value in held.items())
    ]
    rows = _curve_rows(draws, drawn, positions, axis=axis)
    shown = set(positions.tolist())
    regime = draws.cells["regime"].to_numpy()
    rest = [place for place in range(len(regime)) if regime[place] == held["regime"] and place not in shown]
    others = cell_marks(draws, rest, x="train_flops", mark="other", series="other configurations")
    stars, ties = _best_rows(draws, best, axis, str(held["regime"]))
    lowest = f"Lowest measured {unit.word}: " + "; ".join(
        f"{mark['label']}, {mark['y']:{unit.form}}{unit.sign}" for mark in stars
    )
    return FigureData(
        name=f"error-compute-{axis}",
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(metric),
        frame=mark_frame([*({**mark, "low": np.nan, "high": np.nan} for mark in others), *rows, *stars]),
        caption=said_once(
            f"{metric_text(metric)} against training compute in one trial, by {word}",
            f"Fixed: {held_text(held)}",
            f"{runs_text(draws, positions)}; other configurations in grey",
            laws_text(drawn, unit),
            f"Stars mark the best of all configurations at each budget{ties}",
            draws.explanation,
        ),
        alt=f"{title}: {', '.join(axis_text(axis, name) for name in series)}. {lowest}.",
    )


def _curve_rows(
    draws: CellDraws, drawn: Sequence[Law], positions: Indices, *, axis: str
) -> list[dict[str, Any]]:
    """Return the marks of some cells by their value along an axis, with the given laws through them."""
    rows: list[dict[str, Any]] = []
    values = draws.cells[axis].to_numpy(object)
    for value in sorted(set(values[positions]), key=lambda value: sort_key(axis, value)):
        mine = positions[values[positions] == value]
        along = [law for law in drawn if law.identity[axis] == value]
        rows += curve_marks(draws, along, mine, x="train_flops", series=axis_text(axis, value))
    return rows


def curve_marks(
    draws: CellDraws, drawn: Sequence[Law], positions: Indices, *, x: str, **fixed: object
) -> list[dict[str, Any]]:
    """Return the marks of curves over a column of their cells: their laws, or a thin line, and the cells."""
    lines = [row for law in drawn for row in _law_rows(draws, law, x=x, **fixed)]
    return [*lines, *cell_marks(draws, positions, x=x, line="" if lines else JOINED, **fixed)]


def _law_rows(draws: CellDraws, law: Law, *, x: str, **fixed: object) -> list[dict[str, Any]]:
    """Return the drawn points of a law in the unit of errors.

    The column of the cells for x is proportional to the law's own x along the curve.
    """
    cells = draws.cells.iloc[law.positions]
    ratio = float((cells[x] / cells[X_COLUMNS[law.along]]).mean())
    factor = dict.fromkeys(("y", "low", "high"), draws.error_unit.factor) | {"x": ratio}
    return [{"mark": "law"} | point | fixed for point in records(law.band[list(factor)] * pd.Series(factor))]


def _best_rows(
    draws: CellDraws, found: pd.DataFrame, axis: str, regime: str
) -> tuple[list[dict[str, Any]], str]:
    rows: list[dict[str, Any]] = []
    verdicts = []
    for best in records(found):
        if best["regime"] != regime:
            continue
        verdicts.append(verdict := str(best["verdict"]))
        if verdict == "beaten" or not best["runs"]:  # its own run there may stand out, far from its error
            continue
        same = [(draws.cells[name] == best[name]).to_numpy(bool) for name in CELL]
        stars = cell_marks(
            draws,
            np.flatnonzero(np.logical_and.reduce(same)),
            x="train_flops",
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


def laws_text(drawn: Sequence[Law], unit: ErrorUnit) -> str:
    """Return a caption text: what the lines are, by how much they miss, and why others are not drawn."""
    if not drawn:
        return "no line is drawn, since no curve has two levels"
    shown = [law for law in drawn if law.status == "ok"]
    left = Counter(law.status for law in drawn if law.status != "ok")
    said = []
    if shown:
        miss, noise = (
            unit.gap(root_mean_square(np.array([getattr(law, name) for law in shown])), fine=True)
            for name in ("miss", "noise")
        )
        line = "the joint law of all trials" if shown[0].along == "compute" else "straight lines in ln x"
        said.append(f"lines: {line}, with misses of {miss} (root mean square; noise of the means {noise})")
    said += [
        f"{plural(count, 'curve')} without one ({status}): thin lines join the cells"
        for status, count in left.items()
    ]
    return "; ".join(said)


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
    shown = ", ".join(map(metric_text, found[:_PANELS]))
    for metric in found[:_PANELS]:
        # Trials that finished without this metric were not evaluated by it: they are not lost.
        draws = cell_draws(
            tidy(results[(results["status"] != "finished") | results[metric].notna()], metric=metric)
        )
        held, positions = slice_along(draws, "architecture")
        cut = draws.take(positions)
        mine = laws(cut, along="compute")
        marks = _curve_rows(cut, mine, np.arange(len(positions)), axis="architecture")
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
            f"{shown} against compute, by architecture. Fixed: {'; '.join(dict.fromkeys(held_words))}",
            *counts,
            laws_text(fitted, several[0].error_unit),
            f"Not drawn: {', '.join(map(metric_text, found[_PANELS:]))}" if found[_PANELS:] else "",
            intervals_text(several),
        ),
        alt=f"{title} against compute: {shown}.",
    )
