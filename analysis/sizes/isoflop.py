"""IsoFLOP profiles of a study: error against model size at each budget (Hoffmann et al. 2022, §3.2)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.arrays import Indices
from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import with_families
from analysis.sizes.size_profile import Profile, profiles_of


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoFlopCurve:
    """The profile of one budget, with data, strategy and family of architectures fixed.

    Attributes:
        identity: ``regime``, ``budget``, ``subset_size``, ``quality``, ``strategy``, ``family``.
        positions: Positions of its cells in ``CellDraws.cells``, by rising training FLOPs per sample, the
            size on its axis.
        epochs: Epochs of the smallest and of the largest size.
        profile: The fitted profile.
    """

    identity: Mapping[str, Any]
    positions: Indices
    epochs: tuple[float, float]
    profile: Profile


def isoflop_curves(draws: CellDraws) -> list[IsoFlopCurve]:
    """Fit the profiles of all fixed-compute budgets with at least two sizes of a family."""
    named = with_families(draws)
    columns = ["regime", "subset_size", "quality", "strategy", "family", "budget"]
    # Profiles of one family share a form error, so all its budgets are fitted together.
    together: dict[tuple[Hashable, ...], list[tuple[dict[str, Any], Indices]]] = {}
    for key, positions in named.groups(columns):
        size = named.column("train_flops_per_sample")[positions]
        if key[0] != "fixed-compute" or len(np.unique(size)) < 2:  # noqa: PLR2004 (one size is no profile)
            continue
        ordered = positions[np.argsort(size, kind="stable")]
        identity = dict(zip(columns, key, strict=True))
        together.setdefault(key[:-1], []).append((identity, ordered))
    found = [curve for key, parts in together.items() for curve in _curves(named, str(key), parts)]
    return sorted(found, key=lambda curve: float(curve.identity["budget"]))


def _curves(
    draws: CellDraws, question: str, parts: Sequence[tuple[dict[str, Any], Indices]]
) -> list[IsoFlopCurve]:
    groups, size = [positions for _, positions in parts], draws.column("train_flops_per_sample")
    fitted, epochs = profiles_of(draws, size, groups, question=question), draws.column("epochs")
    return [
        IsoFlopCurve(
            identity=identity, positions=positions, profile=found,
            epochs=(float(epochs[positions[0]]), float(epochs[positions[-1]])),
        )
        for (identity, positions), found in zip(parts, fitted, strict=True)
    ]  # fmt: skip
