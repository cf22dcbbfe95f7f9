"""A variance beside the noise: what a curve misses its points by that the noise does not explain.

It is such that the χ² of the residuals under noise and this variance equals its degrees of freedom ν (Mandel
and Paule 1970), zero where the noise alone explains them. A draw takes s²·ν/χ²ν less the noise, s² the whole
variance of the residuals: few degrees of freedom leave it open how large it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 60
_RANGE = 40.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """An estimate.

    Attributes:
        variance: That beside the noise.
        noise: Mean variance of the points' noise.
        freedom: ν; 0 when nothing tells it.
    """

    variance: float = 0.0
    noise: float = 0.0
    freedom: int = 0

    @property
    def sd(self) -> float:
        """Its standard deviation; NaN when nothing tells it."""
        return float(np.sqrt(self.variance)) if self.freedom else float("nan")

    def drawn(self, draws: int, generator: np.random.Generator) -> Floats:
        """Standard deviations as ν degrees of freedom allow, shape (draws,)."""
        if not self.variance:
            return np.zeros(draws)
        whole = (self.variance + self.noise) * self.freedom / generator.chisquare(self.freedom, draws)
        return np.asarray(np.sqrt(np.maximum(0.0, whole - self.noise)), dtype=np.float64)


def by_moments(squares: float, *, freedom: int, noise: float) -> Excess:
    """Estimate the variance beside the noise of residuals that weigh alike: Σ r²/ν − noise, or zero.

    Args:
        squares: Σ r².
        freedom: ν.
        noise: Mean variance of the points' noise.
    """
    if freedom <= 0:
        return Excess()
    return Excess(variance=max(0.0, squares / freedom - noise), noise=noise, freedom=freedom)


def excess(statistic: Callable[[float], float], *, freedom: int, noise: float, highest: float) -> Excess:
    """Estimate the variance beside the noise.

    Args:
        statistic: χ² of the residuals under the noise and a variance beside it, falling in that.
        freedom: ν.
        noise: Mean variance of the points' noise.
        highest: A variance that the estimate is below.
    """
    if freedom <= 0:
        return Excess()
    if statistic(0.0) <= freedom:
        return Excess(noise=noise, freedom=freedom)
    high = float(np.log(highest))
    low = high - _RANGE
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(float(np.exp(middle))) > freedom else (low, middle)
    return Excess(variance=float(np.exp(high)), noise=noise, freedom=freedom)
