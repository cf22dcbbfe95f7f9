"""The noise of each of several groups of runs, shrunk towards the noise of all (Smyth 2004).

A group's variance s² with d degrees of freedom is taken to be one of many whose own spread is that of
s₀²·d₀/χ²: its estimate is (d₀·s₀² + d·s²)/(d₀ + d), with d₀ + d degrees of freedom. s₀² is the pooled
variance. d₀ follows from how much the logarithms of the variances vary beyond what d degrees of freedom let
them (Smyth 2004, §6.2). Of few groups that excess is hardly known, and a noisy group that is taken for as
quiet as the others gives false winners: the excess is taken at its upper limit, of ``LIMIT``.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIMIT = 0.9
"""Of the excess of the log variances' spread over what equal noise would give: where it is taken."""
_LEAST = 1e-4
_STEPS = 12


def moderated(squares: Floats, freedom: Floats) -> tuple[Floats, Floats]:
    """Return each group's standard deviation and its degrees of freedom.

    Args:
        squares: Sum of squared deviations of each group's runs from their cells' means.
        freedom: Runs minus cells of each group, not all zero. A group without any gets the pooled noise.

    Returns:
        The degrees of freedom are infinite where the groups do not differ in their noise: it is the pooled
        one, known as well as all runs together tell.
    """
    total = float(freedom.sum())
    pooled = float(squares.sum()) / total
    prior = _prior_freedom(squares, freedom, pooled)
    if np.isinf(prior):
        return np.full(len(freedom), np.sqrt(pooled)), np.full(len(freedom), np.inf)
    variance = (prior * pooled + squares) / (prior + freedom)
    degrees = np.where(freedom > 0, np.minimum(prior + freedom, total), total)
    return np.sqrt(variance), degrees


def _prior_freedom(squares: Floats, freedom: Floats, pooled: float) -> float:
    """d₀: infinite where the variances vary no more than equal ones would, or only one was measured."""
    known = freedom > 0
    degrees = freedom[known]
    if len(degrees) < 2 or pooled == 0:  # noqa: PLR2004 (one variance does not vary)
        return float("inf")
    from scipy.special import digamma, gammaincinv, polygamma  # noqa: PLC0415 (slow to import)

    variance = np.maximum(squares[known] / degrees, _LEAST * pooled)
    logarithm = np.log(variance) - digamma(degrees / 2) + np.log(degrees / 2)
    spread = float(((logarithm - logarithm.mean()) ** 2).sum())
    quantile = 2 * float(gammaincinv((len(degrees) - 1) / 2, 1 - LIMIT))
    excess = spread / quantile - float(polygamma(1, degrees / 2).mean())
    if excess <= 0:
        return float("inf")
    # Newton's method for ψ'(d₀/2) = excess, from below, where it converges (Smyth 2004, appendix).
    half = 0.5 + 1 / excess
    for _ in range(_STEPS):
        slope = polygamma(1, half)
        half += slope * (1 - slope / excess) / polygamma(2, half)
    return 2 * float(half)
