"""The lowest point of a valley of errors over model size, fitted near the lowest measured size.

At fixed compute C the error over t = ln N is a constant plus A·e^(−αt) + B·e^(βt) (Hoffmann et al. 2022, eq.
2, D = C/6N). At its minimum the third derivative is β − α times the second: a parabola whose asymmetry the
exponents bound. It is fitted as c₀ + c₁t + c₂t² + c₃t³, c₂ ≥ 0, with
c₃ ~ N(0, (c₂·ASYMMETRY/3)²): a parabola where the data cannot tell the third term, a cubic where they can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ASYMMETRY = 6**-0.5
"""Standard deviation of β − α for two exponents that are each uniform between 0 and 1."""
NEIGHBOURS = 2
"""Sizes on either side of the lowest that take part in a fit."""

_STRAIGHT = 1e-12
_RESOLUTION = 1e-7
_STEPS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Valley:
    """One profile's points near its lowest measured size, and the form's statistic there.

    Attributes:
        t: ln size, rising, shape (points,).
        error: Shape (points,).
        variance: Of the noise of each error.
    """

    t: Floats
    error: Floats
    variance: Floats

    @property
    def freedom(self) -> int:
        """Points less the three parameters that the prior leaves free."""
        return len(self.t) - 3

    def statistic(self, form: float) -> float:
        """χ² of the residuals with an additive variance ``form`` of what the fitted form cannot follow.

        The covariance of the points is that of their noise, the variance of the form, and c₃'s prior.
        """
        t = self.t - self.t[self.error.argmin()]
        bend = fit(t, self.error[None, :], self.variance + form, np.zeros(1))[0, 2]
        cube = t**3 * (ASYMMETRY * bend / 3)
        inverse = np.linalg.inv(np.diag(self.variance + form) + np.outer(cube, cube))
        basis = np.vander(t, 3, increasing=True)
        solved = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ self.error)
        residual = self.error - basis @ solved
        return float(residual @ inverse @ residual)


def near(t: Floats, lowest: int) -> NDArray[np.intp]:
    """Positions of the sizes at most ``NEIGHBOURS`` sizes from one of them.

    Args:
        t: Rising; equal values are one size.
        lowest: Position of that one.
    """
    rank = np.cumsum(np.diff(t, prepend=t[0]) > 0)
    return np.flatnonzero(np.abs(rank - rank[lowest]) <= NEIGHBOURS)


def resolvable(variance: Floats, error: Floats) -> Floats:
    """Variances that are at least those of rounding, so that they have an inverse."""
    return np.asarray(np.maximum(variance, (_RESOLUTION * np.abs(error).mean()) ** 2), dtype=np.float64)


def fit(t: Floats, error: Floats, variance: Floats, pull: Floats) -> Floats:
    """Coefficients c₀ … c₃ of each row of errors, shape (rows, 4).

    Args:
        t: ln size from the lowest point, shape (points,).
        error: Shape (rows, points).
        variance: Of each point, shape (points,).
        pull: The prior mean of c₃ of each row, in units of its standard deviation: zero for an estimate,
            drawn from a standard normal for a draw (a draw of the prior and of the data is, fitted, one of
            the posterior).
    """
    root = 1 / np.sqrt(variance)
    basis = np.vander(t, 3, increasing=True) * root[:, None]
    scaled = error * root
    inverse = np.linalg.pinv(basis)
    free = scaled @ inverse.T
    # Rounding bends a straight line by some 1e-16.
    straight = free[:, 2] <= _STRAIGHT * np.abs(error).max(axis=1, initial=0.0)
    cube = t**3 * root
    rest = cube - basis @ (inverse @ cube)
    spread = np.where(straight, 0.0, ASYMMETRY * free[:, 2] / 3)
    third = (spread**2 * (scaled @ rest) + spread * pull) / (spread**2 * (rest @ rest) + 1)
    found = (scaled - third[:, None] * cube) @ inverse.T
    line = np.pad(scaled @ np.linalg.pinv(basis[:, :2]).T, ((0, 0), (0, 1)))
    return np.column_stack([np.where(straight[:, None], line, found), third])


def value(coefficients: Floats, t: Floats) -> Floats:
    """The curve of each row of coefficients at its own t, shape (rows,)."""
    c0, c1, c2, c3 = coefficients.T
    return np.asarray(c0 + t * (c1 + t * (c2 + t * c3)), dtype=np.float64)


def lowest(coefficients: Floats, first: float, last: float) -> Floats:
    """Where each row's curve is lowest between two ends, at its minimum or at an end, shape (rows,)."""
    _, c1, c2, c3 = coefficients.T
    inside = c2**2 - 3 * c1 * c3
    with np.errstate(divide="ignore", invalid="ignore"):
        minimum = -c1 / (c2 + np.sqrt(inside))
    minimum = np.where((inside > 0) & (minimum > first) & (minimum < last), minimum, first)
    ends = np.stack([minimum, np.full_like(minimum, first), np.full_like(minimum, last)])
    heights = np.stack([value(coefficients, at) for at in ends])
    # A cubic may fall again beyond its own minimum; what lies there is the cubic's doing, not the data's.
    heights[1:] = np.where(minimum > first, np.inf, heights[1:])
    return np.asarray(np.take_along_axis(ends, heights.argmin(axis=0)[None, :], axis=0)[0], dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class FormError:
    """What a form cannot follow beside the noise, one variance for all profiles of a family.

    Attributes:
        variance: σ², zero where the noise alone explains the residuals.
        noise: Mean variance of the points' noise.
        statistic: χ² of the residuals with the noise alone.
        freedom: Degrees of freedom behind both.
    """

    variance: float
    noise: float
    statistic: float
    freedom: int

    def drawn(self, draws: int, generator: np.random.Generator) -> Floats:
        """Standard deviations as the degrees of freedom allow: of s²·ν/χ²ν less the noise, shape (draws,)."""
        if not self.freedom:
            return np.zeros(draws)
        least = self.noise * self.statistic / self.freedom
        whole = self.variance + self.noise if self.variance > 0 else least
        scale = self.freedom / generator.chisquare(self.freedom, draws)
        return np.sqrt(np.maximum(0.0, whole * scale - self.noise))


def form_error(valleys: Sequence[Valley]) -> FormError:
    """Estimate the form's error from the profiles of a family.

    Its variance is the one at which the residuals' χ² equals its degrees of freedom (Mandel and Paule 1970).
    """
    tested = [valley for valley in valleys if valley.freedom > 0]
    if not tested:
        return FormError(variance=0.0, noise=0.0, statistic=0.0, freedom=0)
    freedom = sum(valley.freedom for valley in tested)

    def statistic(variance: float) -> float:
        return sum(valley.statistic(variance) for valley in tested)

    alone = statistic(0.0)
    low, high = -40.0, float(np.log(max(np.var(valley.error) for valley in tested) + 1e-300)) + 5.0
    for _ in range(_STEPS if alone > freedom else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(float(np.exp(middle))) > freedom else (low, middle)
    return FormError(
        variance=float(np.exp(high)) if alone > freedom else 0.0,
        noise=float(np.mean([valley.variance.mean() for valley in tested])),
        statistic=alone,
        freedom=freedom,
    )
