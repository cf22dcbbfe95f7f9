"""The curves of a study: cells that differ only in compute, or only in the number of pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from analysis.arrays import Indices
from analysis.cells.bootstrap import CellDraws
from analysis.cells.table import CELL
from analysis.labels import budget_text, held_text, with_regime

X_COLUMNS = {"compute": "train_flops", "data": "subset_size"}
"""Direction of a curve → the column of the cells that is its x."""


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
