"""Excess variance: the part of a curve's misses that the noise of its points does not explain.

It is the additive variance at which χ² of the residuals equals its number of degrees of freedom ν (Mandel and
Paule 1970), or zero if the noise alone explains the residuals. A draw of it is s²·ν/χ²ν minus the noise,
where s² is the whole variance of the residuals; few degrees of freedom make the draws vary widely.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats

_STEPS = 60
_RANGE = 40.0  # width of the bisection in ln variance; after 60 halvings it is below 1e-16


@dataclass(frozen=True, kw_only=True, slots=True)
class Excess:
    """An excess variance, the mean variance of the points' noise, and the degrees of freedom ν of both.

    ν is 0 when the data do not determine the excess.
    """

    variance: float = 0.0
    noise: float = 0.0
    freedom: int = 0

    @property
    def sd(self) -> float:
        """Standard deviation; NaN when the data do not determine it."""
        return float(np.sqrt(self.variance)) if self.freedom else float("nan")

    def drawn(self, draws: int, generator: np.random.Generator) -> Floats:
        """Return draws of the standard deviation given ν degrees of freedom, shape (draws,)."""
        if not self.variance:
            return np.zeros(draws)
        # s²·ν/χ²ν is a draw of the whole variance; less than the noise leaves no excess.
        whole = (self.variance + self.noise) * self.freedom / generator.chisquare(self.freedom, draws)
        return np.sqrt(np.maximum(0.0, whole - self.noise))


def by_moments(squares: float, *, freedom: int, noise: float) -> Excess:
    """Estimate the excess variance of equally weighted residuals as Σ r²/ν − noise, at least zero."""
    if freedom <= 0:
        return Excess()
    return Excess(variance=max(0.0, squares / freedom - noise), noise=noise, freedom=freedom)


def excess(statistic: Callable[[float], float], *, freedom: int, noise: float, highest: float) -> Excess:
    """Estimate the excess variance, at most ``highest``, from χ² of the residuals as a falling function."""
    if freedom <= 0:
        return Excess()
    # The noise alone already explains the residuals.
    if statistic(0.0) <= freedom:
        return Excess(noise=noise, freedom=freedom)
    # Bisection of the logarithm: the statistic falls with the variance.
    high = float(np.log(highest))
    low = high - _RANGE
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(float(np.exp(middle))) > freedom else (low, middle)
    return Excess(variance=float(np.exp(high)), noise=noise, freedom=freedom)
