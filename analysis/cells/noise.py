"""The noise of several groups of runs, each shrunk towards the pooled noise (Smyth 2004).

The true variances of the groups are modelled as s₀²·d₀/χ²(d₀). The estimate for a group with variance s² and
d degrees of freedom is then (d₀·s₀² + d·s²)/(d₀ + d), with d₀ + d degrees of freedom; s₀² is the pooled
variance. d₀ follows from the excess: the variance of the groups' log variances beyond what d degrees of
freedom explain (Smyth 2004, §6.2). With few groups the excess is poorly known. A noisy group that is mistaken
for a quiet one produces false winners, so the excess of configurations is taken at its upper ``LIMIT``
confidence limit. That of levels is taken at its median: there each group has the runs of all configurations.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.table import group_numbers

LIMIT = 0.9
"""Confidence limit for groups that are compared with one another."""
_MEDIAN = 0.5
_LEAST = 1e-4
_STEPS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelNoise:
    """The levels of a study, which differ in their noise.

    Attributes:
        number: Level of each cell, shape (cells,).
        noise: Noise of a run at each level, as a multiple of that over all levels.
        degrees: Degrees of freedom of these; infinite if the levels do not differ.
    """

    number: Indices
    noise: Floats
    degrees: Floats

    @classmethod
    def of(cls, cells: pd.DataFrame, residuals: Floats, position: Indices, runs: Indices) -> "LevelNoise":
        """Return the levels of cells, from the residuals of their runs.

        Residuals are in units of the counting noise, inflated by √(n/(n−1)); ``position`` has the cell of
        each.
        """
        number = group_numbers(cells, ("regime", "budget"))
        freedom = np.asarray(np.bincount(number, runs - 1.0), dtype=np.float64)
        squares = squares_of(residuals, runs[position], number[position], len(freedom))
        if not squares.any():
            return cls(number=number, noise=np.ones(len(freedom)), degrees=np.full(len(freedom), np.inf))
        noise, degrees = moderated(squares, freedom, limit=_MEDIAN)
        return cls(number=number, noise=noise / np.sqrt(squares.sum() / freedom.sum()), degrees=degrees)


def squares_of(residuals: Floats, runs: Indices, group: Indices, groups: int) -> Floats:
    """Return the sum of squared deviations of each group from their cells' means.

    Residuals were inflated by √(n/(n−1)); the factor (n−1)/n takes that back.
    """
    found = np.bincount(group, residuals**2 * (1.0 - 1.0 / runs), minlength=groups)
    return np.asarray(found, dtype=np.float64)


def moderated(squares: Floats, freedom: Floats, *, limit: float = LIMIT) -> tuple[Floats, Floats]:
    """Return the standard deviation of each group and its degrees of freedom.

    Args:
        squares: Sum of squared deviations of each group's runs from their cells' means.
        freedom: Runs minus cells of each group, not all zero. A group with zero gets the pooled noise.
        limit: One-sided confidence limit at which the excess is taken.

    Returns:
        Standard deviations and degrees of freedom. The latter are infinite if the groups do not differ in
        their noise; all then have the pooled noise, with the degrees of freedom of all runs together.
    """
    total = float(freedom.sum())
    pooled = float(squares.sum()) / total
    prior = _prior_freedom(squares, freedom, pooled, limit)
    if np.isinf(prior):
        return np.full(len(freedom), np.sqrt(pooled)), np.full(len(freedom), np.inf)
    variance = (prior * pooled + squares) / (prior + freedom)
    degrees = np.where(freedom > 0, np.minimum(prior + freedom, total), total)
    return np.sqrt(variance), degrees


def _prior_freedom(squares: Floats, freedom: Floats, pooled: float, limit: float) -> float:
    """Return d₀; infinite if the variances vary no more than equal ones would, or only one was measured."""
    known = freedom > 0
    degrees = freedom[known]
    if len(degrees) < 2 or pooled == 0:  # noqa: PLR2004 (one variance does not vary)
        return float("inf")
    from scipy.special import digamma, gammaincinv, polygamma  # noqa: PLC0415 (slow to import)

    variance = np.maximum(squares[known] / degrees, _LEAST * pooled)
    # E[ln s²] = ln σ² + ψ(d/2) − ln(d/2) and Var[ln s²] = ψ'(d/2), ψ the digamma function.
    logarithm = np.log(variance) - digamma(degrees / 2) + np.log(degrees / 2)
    spread = float(((logarithm - logarithm.mean()) ** 2).sum())
    quantile = 2 * float(gammaincinv((len(degrees) - 1) / 2, 1 - limit))
    excess = spread / quantile - float(polygamma(1, degrees / 2).mean())
    if excess <= 0:
        return float("inf")
    # Newton's method for ψ'(d₀/2) = excess, from below, where it converges (Smyth 2004, appendix).
    half = 0.5 + 1 / excess
    for _ in range(_STEPS):
        slope = polygamma(1, half)
        half += slope * (1 - slope / excess) / polygamma(2, half)
    return 2 * float(half)


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

    ``several`` is true for the runs that have a residual, shape (runs,).
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
