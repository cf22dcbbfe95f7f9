"""Curves of a study: cells that differ only in compute or in pairs, and the interpolation between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws
from analysis.cells.table import CELL
from analysis.labels import budget_text, held_text, with_regime

X_COLUMNS = {"compute": "train_flops", "data": "subset_size"}
"""Direction of a curve → the column of the cells that is its x."""
_SAME = 1e-9  # smallest step in ln x, so that cells of equal x do not divide by zero
_STEEPEST = 2.0  # largest exponent: a curve that stops falling would need an infinite one


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


C = TypeVar("C", bound=Curve)


def curves(draws: CellDraws, *, along: str) -> list[Curve]:
    """Return every curve of at least two cells.

    Along ``compute`` its cells differ only in budget, along ``data`` only in size.
    """
    x, found = draws.column(X_COLUMNS[along]), []
    for held, positions in differing(draws, "budget" if along == "compute" else "subset_size"):
        if len(positions) > 1:
            ordered = positions[np.argsort(x[positions], kind="stable")]
            found.append(Curve(along=along, identity=held, positions=ordered))
    return found


def differing(draws: CellDraws, *columns: str) -> Iterator[tuple[dict[str, Any], Indices]]:
    """Yield each group of cells that differ in some columns alone: what they share, and their positions."""
    one_epoch = draws.cells["regime"].to_numpy(object) == "one-epoch"
    for kept in (np.flatnonzero(~one_epoch), np.flatnonzero(one_epoch)):
        # In one epoch each pair is seen once: more compute means more pairs, so both vary together.
        together = {"subset_size"} if "budget" in columns and one_epoch[kept].any() else set()
        shared = [name for name in CELL if name not in {*columns, *together}]
        for key, places in draws.take(kept).groups(shared):
            yield dict(zip(shared, key, strict=True)), kept[places]


def by_length(found: Sequence[Curve]) -> list[list[Curve]]:
    """Group curves by number of cells, since curves of one length are fitted together."""
    groups: dict[int, list[Curve]] = {}
    for curve in found:
        groups.setdefault(len(curve.positions), []).append(curve)
    return list(groups.values())


def curve_text(curve: Curve, *, without: str = "", named: bool = False) -> str:
    """Return the fixed parts of a curve in words: its budget too if that is fixed, its regime if named."""
    regime = str(curve.identity["regime"])
    said = held_text({name: value for name, value in curve.identity.items() if name != without})
    if "budget" in curve.identity:
        said += f" at {budget_text(regime, curve.identity['budget'])}"
    return with_regime(said, regime, named=named)


def alike(found: Sequence[C], *, along: str, axis: str) -> list[list[C]]:
    """Group the curves along one x that differ only in one part of the configuration."""
    groups: dict[tuple[tuple[str, Any], ...], list[C]] = {}
    for curve in found:
        if curve.along == along:
            key = tuple((name, value) for name, value in curve.identity.items() if name != axis)
            groups.setdefault(key, []).append(curve)
    return list(groups.values())


def between(x: Floats, at: Floats) -> tuple[Indices, Floats]:
    """Return the last cell at or below each point, and the share of ln x from there to the next cell.

    x rises and has at least one cell. Before the first cell and from the last one on the share is 0.
    """
    log_x, log_at = np.log(x), np.log(at)
    below = np.clip(np.searchsorted(log_x, log_at, side="right") - 1, 0, len(x) - 1)
    step = np.append(np.diff(log_x), np.inf)[below]
    share = np.clip((log_at - log_x[below]) / np.where(step > 0, step, np.inf), 0.0, 1.0)
    return below.astype(np.intp), share


def straight_lines(x: Floats, error: Floats, at: Floats) -> Floats:
    """Interpolate the cells of a curve linearly in ln x; beyond either end the end value is kept.

    x rises and has at least one cell; errors are of shape (rows, cells), the result is of shape (rows,
    points).
    """
    below, share = between(x, at)
    above = np.minimum(below + 1, len(x) - 1)
    return error[:, below] + share * (error[:, above] - error[:, below])


def bends(x: Floats, error: Floats, at: Floats) -> Floats:
    """Return two estimates of how far a curve lies below the straight lines between its cells.

    Each uses a third cell beside the pair. One parabola is not enough: where the next two cells are flatter,
    it lies above a steep first step (at x^-1 and steps of 5 the law lies 1.9 times as far below the line).

    Returns:
        Shape (2, points): by the parabola through the pair and the cell before it, and by the power law with
        floor through the pair and the cell after it. NaN where that third cell does not exist; zero at and
        beyond the ends. With two cells in all, both are an eighth of their fall at the middle.
    """
    if len(x) == 1:
        return np.zeros((2, len(at)))
    log_x, log_at = np.log(x), np.log(at)
    right = np.clip(np.searchsorted(log_x, log_at, side="right"), 1, len(x) - 1)
    reach = np.maximum(0.0, log_at - log_x[right - 1]) * np.maximum(0.0, log_x[right] - log_at)
    step = np.maximum(np.diff(log_x), _SAME)
    if len(x) == 2:  # noqa: PLR2004 (no third cell)
        return np.repeat([reach * (error[0] - error[1]) / (2 * step[0] ** 2)], 2, axis=0)
    slope = np.diff(error) / step
    curvature = np.append(np.nan, np.diff(slope) / np.maximum(log_x[2:] - log_x[:-2], _SAME))
    # α of E + A·x^-α: the slopes of two neighbouring steps differ by a factor e^(-α·distance in ln x) between
    # the middles of the steps; this is exact if the steps are equal.
    fall = np.log(np.maximum(-slope, 1e-300))
    alpha = np.clip((fall[:-1] - fall[1:]) / ((step[:-1] + step[1:]) / 2), -_STEEPEST, _STEEPEST)
    alpha = np.append(np.where(alpha == 0, _SAME, alpha), np.nan)[right - 1]
    width = step[right - 1]
    share = np.clip((log_at - log_x[right - 1]) / width, 0.0, 1.0)
    # Share of the fall that the power law has made at each point; the straight line has made ``share``.
    fallen = np.expm1(-alpha * width * share) / np.expm1(-alpha * width)
    law = np.maximum(error[right - 1] - error[right], 0.0) * (fallen - share)
    return np.asarray([curvature[right - 1] * reach, law], dtype=np.float64)


def sags(x: Floats, error: Floats, at: float, draws: int, generator: np.random.Generator) -> Floats:
    """Draw how far a falling, flattening curve lies below its straight line: 0 to 2 times its bend.

    The bend is the larger estimate of `bends` at the point, at least zero; the result is of shape (draws,).
    """
    bend = max(0.0, float(np.nan_to_num(bends(x, error, np.array([at]))).max()))
    return bend * generator.uniform(0.0, 2.0, draws)
