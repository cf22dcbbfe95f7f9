"""The curves of a study: cells that differ in compute alone, or in the number of pairs alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.cells.bootstrap import CellDraws
from analysis.cells.table import CELL
from analysis.labels import budget_text, held_text

Floats = NDArray[np.float64]

X_COLUMNS = {"compute": "train_flops", "data": "subset_size"}
"""The column of the cells that a curve runs along."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One curve.

    Attributes:
        along: ``compute`` (x is training FLOPs) or ``data`` (x is unique pairs).
        identity: The columns of the cell that it holds.
        positions: Its cells among all, by rising x.
    """

    along: str
    identity: Mapping[str, Any]
    positions: NDArray[np.intp]


class _HasCurve(Protocol):
    @property
    def along(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...


C = TypeVar("C", bound=_HasCurve)


def curves(draws: CellDraws, *, along: str) -> list[Curve]:
    """Return every curve of at least two cells.

    Args:
        draws: The study's cells.
        along: ``compute``: curves of cells that differ in budget alone; ``data``: in subset size alone.
    """
    left = "budget" if along == "compute" else "subset_size"
    regimes = draws.cells["regime"].to_numpy(object)
    x = draws.cells[X_COLUMNS[along]].to_numpy(np.float64)
    found = []
    for one_epoch in (False, True):
        # In one epoch each pair is seen once: more compute is more pairs, along one and the same curve.
        free = {"budget", "subset_size"} if one_epoch and along == "compute" else {left}
        identity = [name for name in CELL if name not in free]
        kept = np.flatnonzero((regimes == "one-epoch") == one_epoch)
        for key, places in draws.take(kept).groups(identity):
            positions = kept[places]
            if len(positions) < 2:  # noqa: PLR2004 (one cell is no curve)
                continue
            ordered = positions[np.argsort(x[positions], kind="stable")]
            held = dict(zip(identity, key, strict=True))
            found.append(Curve(along=along, identity=held, positions=ordered))
    return found


def by_length(found: Sequence[Curve]) -> list[list[Curve]]:
    """Group curves by the number of their cells: those of one length are fitted at once."""
    groups: dict[int, list[Curve]] = {}
    for curve in found:
        groups.setdefault(len(curve.positions), []).append(curve)
    return list(groups.values())


def curve_text(curve: _HasCurve, *, without: str = "") -> str:
    """Return what a curve holds, in words, with its budget where it has one."""
    identity = curve.identity
    held = {name: value for name, value in identity.items() if name not in ("regime", "budget", without)}
    if "budget" not in identity:
        return held_text(held)
    return f"{held_text(held)} at {budget_text(str(identity['regime']), identity['budget'])}"


def alike(found: Sequence[C], *, along: str, axis: str) -> list[list[C]]:
    """Group the curves along one axis of x that differ in one part of the configuration alone."""
    groups: dict[tuple[tuple[str, Any], ...], list[C]] = {}
    for curve in found:
        if curve.along == along:
            key = tuple((name, value) for name, value in curve.identity.items() if name != axis)
            groups.setdefault(key, []).append(curve)
    return list(groups.values())
