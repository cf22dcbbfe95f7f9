"""Noise that the runs of a trunk share: trunks are resampled whole, as the units of the noise.

Levels of a curve that continue from one another (``schedule: trunk``) have a run at constant learning rate in
common, so their errors are not independent. A drawn study gives each trunk the residuals of one trunk, level
by level. Where that trunk has no residual, any residual is drawn: to repeat that of another level would say
that its levels agree exactly.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask


@dataclass(frozen=True, kw_only=True, slots=True)
class Trunks:
    """The units of the noise of a study with trunks.

    Attributes:
        unit: Unit of each run: its trunk, or the run itself; shape (runs,).
        level: Level of each run, counted from the lowest of its regime; shape (runs,).
        donors: Residual that each trunk with residuals gives at each level, -1 without one; shape (trunks,
            levels).
        of: Unit of each residual.
    """

    unit: Indices
    level: Indices
    donors: Indices
    of: Indices

    def picks(self, generator: np.random.Generator, draws: int) -> Indices:
        """Return the residual that each run gets in each draw, shape (draws, runs)."""
        chosen = generator.integers(len(self.donors), size=(draws, int(self.unit.max()) + 1))
        found = self.donors[chosen[:, self.unit], self.level]
        return np.where(found < 0, generator.integers(len(self.of), size=found.shape), found)

    def correlation(self, residuals: Floats) -> float:
        """Return the correlation of a trunk's residuals at different levels, at least 0."""
        sums, squares, counts = (np.bincount(self.of, each) for each in (residuals, residuals**2, None))
        # Σ rᵢrⱼ over the pairs of each trunk, over Σ (rᵢ² + rⱼ²)/2.
        pairs = float(((counts - 1.0) * squares)[counts > 1].sum())
        return float(np.clip((sums**2 - squares).sum() / pairs, 0.0, 1.0)) if pairs else 0.0


def level_excess(levels: Floats | Indices, shared: float) -> Floats:
    """Return 1 + (L − 1)r²: a unit's levels over the number of independent ones they are worth."""
    return 1.0 + np.maximum(levels - 1.0, 0.0) * shared**2


def find_trunks(runs: pd.DataFrame, several: Mask) -> Trunks | None:
    """Return the units of a study's noise; None if no trunk with several levels has residuals.

    Args:
        runs: One row per run: ``trial``, ``trunk``, ``regime`` and ``budget``.
        several: True for the runs that have a residual, shape (runs,).
    """
    shared = (runs["trunk"] != "").to_numpy(bool)
    if not (shared & several).any():
        return None
    unit = pd.factorize(runs["trunk"].where(shared, runs["trial"]))[0].astype(np.intp)
    level = runs.groupby("regime")["budget"].rank(method="dense").to_numpy(np.intp) - 1
    of, at = unit[several], level[several]
    trunks = np.unique(unit[several & shared])
    donors = np.full((len(trunks), level.max() + 1), -1, dtype=np.intp)
    place = np.searchsorted(trunks, of)
    mine = np.flatnonzero(np.isin(of, trunks))
    donors[place[mine], at[mine]] = mine
    return Trunks(unit=unit, level=level, donors=donors, of=of)
