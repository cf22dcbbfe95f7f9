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

from analysis.laws.excess_variance import Excess, excess

Floats = NDArray[np.float64]

ASYMMETRY = 6**-0.5
"""Standard deviation of β − α for two exponents that are each uniform between 0 and 1."""
NEIGHBOURS = 2
"""Sizes on either side of the lowest that take part in a fit."""

_STRAIGHT = 1e-12
_RESOLUTION = 1e-7
_WIDEST = 100.0


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
    root = 1 / np.sqrt(np.maximum(variance, 1e-30))
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


def form_error(valleys: Sequence[Valley]) -> Excess:
    """The variance of what the form cannot follow, one for all profiles of a family."""
    tested = [valley for valley in valleys if valley.freedom > 0]
    if not tested:
        return Excess()
    return excess(
        lambda variance: sum(valley.statistic(variance) for valley in tested),
        freedom=sum(valley.freedom for valley in tested),
        noise=float(np.mean([valley.variance.mean() for valley in tested])),
        highest=_WIDEST * max(float(np.var(valley.error)) for valley in tested),
    )
