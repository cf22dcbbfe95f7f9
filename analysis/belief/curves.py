"""Curves of a study: cells that differ only in compute or in pairs, and the interpolation between them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.cell_draws import CellDraws, stream
from analysis.belief.parameters import FORWARD, typical
from analysis.cells.table import CELL
from analysis.labels import POOL

X_COLUMNS = {"compute": "train_flops", "data": "subset_size"}
"""Direction of a curve → the column of the cells that is its x."""
_PRIOR, _WALK = 2.0, 0.01  # of the random walk: the cells that it counts as, and its deviation
_SAME = 1e-9  # smallest step in ln x, so that cells of equal x do not divide by zero


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A curve of cells.

    Attributes:
        along: ``compute`` (x is training FLOPs) or ``data`` (x is unique pairs).
        identity: Cell columns that all its cells share, with their values.
        positions: Positions of its cells in ``CellDraws.cells``, by rising x.
    """

    along: str
    identity: Mapping[str, Any]
    positions: Indices


def curves(draws: CellDraws, *, along: str) -> list[Curve]:
    """Return every curve of at least two cells.

    Along ``compute`` its cells differ only in budget, along ``data`` only in size.
    """
    x, all_curves = draws.column(X_COLUMNS[along]), []
    for held, positions in _differing(draws.cells, "budget" if along == "compute" else "subset_size"):
        if len(positions) > 1:
            ordered = positions[np.argsort(x[positions], kind="stable")]
            all_curves.append(Curve(along=along, identity=held, positions=ordered))
    return all_curves


def compared(cells: pd.DataFrame, axis: str, *along: str) -> Iterator[tuple[dict[str, Any], Indices]]:
    """Yield each group of cells that differ in a part of the configuration, and in the columns ``along``.

    Qualities are also compared within one pool, where a purer subset is a smaller one: at the largest subset
    of each.

    Yields:
        The columns of ``CELL`` that the cells share, with ``POOL`` as the size of largest subsets, and the
        positions of the cells.
    """
    yield from _differing(cells, *along, axis)
    if axis == "quality":
        sizes = cells["subset_size"].reset_index(drop=True)
        for held, places in _differing(cells, *along, axis, "subset_size"):
            groups = sizes[places].groupby([cells[name].to_numpy()[places] for name in (*along, axis)])
            largest = groups.idxmax().to_numpy(np.intp)
            if len(sizes[largest].unique()) > 1:
                yield held | {"subset_size": POOL}, largest


def _differing(cells: pd.DataFrame, *columns: str) -> Iterator[tuple[dict[str, Any], Indices]]:
    """Yield each group of cells that differ in some columns alone: what they share, and their positions."""
    one_epoch = cells["regime"].to_numpy(object) == "one-epoch"
    for rows in (np.flatnonzero(~one_epoch), np.flatnonzero(one_epoch)):
        # In one epoch each pair is seen once: more compute means more pairs, so both vary together.
        together = {"subset_size"} if "budget" in columns and one_epoch[rows].any() else set()
        shared = [name for name in CELL if name not in {*columns, *together}]
        for key, places in cells.iloc[rows].groupby(shared, sort=True).indices.items():
            values = key if isinstance(key, tuple) else (key,)
            yield dict(zip(shared, values, strict=True)), rows[places]


def read(draws: CellDraws, curve: Curve, at: Floats) -> Floats:
    """Return draws of the true errors of a curve at x, shape (draws, points).

    Along compute they are those of the joint law, without what single cells miss. Along data they are those
    of the cells and, beside them, of the law of a typical configuration plus what the cells lie beside it:
    between two cells this changes evenly but for a random walk (a Brownian bridge), beyond either end by one.
    """
    on_curve, family = draws.take(curve.positions), draws.families[str(curve.identity["regime"])]
    if curve.along == "compute":
        one = on_curve.cells["curve"].to_numpy(np.intp)[:1]
        return family.read(one, at[None, :])[:, 0]
    x, both = on_curve.column("subset_size"), np.concatenate([on_curve.column("subset_size"), at])
    size, samples = (
        np.full((1, len(both)), on_curve.column(name).mean())
        for name in ("train_flops_per_sample", "samples_seen")
    )
    law = typical(family, curve.identity, size / FORWARD, samples, both[None, :])[:, 0]
    beside = on_curve.draws - law[:, : len(x)]
    walk = _walk(np.log(x), np.median(beside, axis=0), family.belief.scale)
    generator = stream(f"data/{sorted(curve.identity.items(), key=str)}")
    steps = generator.standard_normal((len(beside), len(x) + 1))
    gap, variance = _gaps(np.log(x), np.log(at))
    errors = law[:, len(x) :] + straight_lines(x, beside, at) + walk * np.sqrt(variance) * steps[:, gap]
    return np.asarray(np.clip(errors, 0.0, family.most))


def _walk(log_x: Floats, beside: Floats, scale: float) -> float:
    """Return the deviation of the random walk of what cells lie beside their law, for one unit of ln x.

    It is measured by how far each cell lies from the line between its neighbours.
    """
    left, right = np.diff(log_x)[:-1], np.diff(log_x)[1:]
    middle = (beside[:-2] * right + beside[2:] * left) / (left + right)
    squares = (beside[1:-1] - middle) ** 2 * (left + right) / (left * right)
    return float(np.sqrt((squares.sum() + _PRIOR * (_WALK * scale) ** 2) / (len(squares) + _PRIOR)))


def _gaps(log_x: Floats, log_at: Floats) -> tuple[Indices, Floats]:
    """Return the number of cells below each x, and the variance of a unit random walk that the cells fix."""
    gap = np.searchsorted(log_x, log_at)
    before = log_at - np.concatenate([[-np.inf], log_x])[gap]
    after = np.concatenate([log_x, [np.inf]])[gap] - log_at
    shorter, longer = np.minimum(before, after), np.maximum(before, after)
    return gap.astype(np.intp), np.asarray(shorter / (1 + shorter / longer))


def straight_lines(x: Floats, error: Floats, at: Floats) -> Floats:
    """Interpolate the cells of a curve linearly in ln x; beyond either end the end value is kept.

    x rises and has at least one cell; errors are of shape (rows, cells), the result is of shape (rows,
    points).
    """
    log_x, log_at = np.log(x), np.clip(np.log(at), np.log(x[0]), np.log(x[-1]))
    above = np.clip(np.searchsorted(log_x, log_at), min(1, len(x) - 1), len(x) - 1)
    below = np.maximum(above - 1, 0)
    share = (log_at - log_x[below]) / np.maximum(log_x[above] - log_x[below], _SAME)
    return np.asarray(error[:, below] + share * (error[:, above] - error[:, below]))
