"""The minimum of a valley of errors over model size, fitted near the lowest measured size.

At fixed compute C the error over t = ln N is a constant plus A·e^(−αt) + B·e^(βt) (Hoffmann et al. 2022, eq.
2, with D = C/6N). At its minimum the third derivative is (β − α) times the second, so it is a parabola with
an asymmetry that the exponents bound. The fit is c₀ + c₁t + c₂t² + c₃t³ with c₂ ≥ 0 and the prior c₃ ~ N(0,
(c₂·ASYMMETRY/3)²): a parabola if the data do not determine c₃, a cubic if they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.laws.excess_variance import Excess, excess

ASYMMETRY = 6**-0.5
"""Standard deviation of β − α for exponents that are independent and uniform on [0, 1], 1/√6."""
NEIGHBOURS = 2
"""Number of sizes on either side of the lowest that take part in a fit."""

_STRAIGHT = 1e-12  # c₂ below this share of the error is rounding
_RESOLUTION = 1e-7  # smallest standard deviation as a share of the mean error
_WIDEST = 100.0  # bound of the form error in variances of the errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Valley:
    """The points of a profile near its lowest measured size, by rising t = ln size.

    The variance is that of the noise of each error.
    """

    t: Floats
    error: Floats
    variance: Floats

    @property
    def freedom(self) -> int:
        """Number of points minus three parameters; the prior determines the fourth."""
        return len(self.t) - 3

    def statistic(self, form: float) -> float:
        """Return χ² of the residuals with an additive variance ``form`` for the form error.

        The covariance of the points is diag(noise + form) + (ASYMMETRY·c₂/3)²·t³·t³ᵀ, the last from the prior
        of c₃.
        """
        t = self.t - self.t[self.error.argmin()]
        bend = fit(t, self.error[None, :], self.variance + form, np.zeros(1))[0, 2]
        # Standard deviation of c₃·t³ under the prior, for the fitted c₂.
        cube = t**3 * (ASYMMETRY * bend / 3)
        inverse = np.linalg.inv(np.diag(self.variance + form) + np.outer(cube, cube))
        basis = np.vander(t, 3, increasing=True)
        # Generalised least squares of the parabola: (XᵀV⁻¹X)⁻¹XᵀV⁻¹y.
        solved = np.linalg.solve(basis.T @ inverse @ basis, basis.T @ inverse @ self.error)
        residual = self.error - basis @ solved
        return float(residual @ inverse @ residual)


def near(t: Floats, lowest: int) -> Indices:
    """Return the positions of the sizes within ``NEIGHBOURS`` sizes of the lowest; equal ones count once."""
    # Number of the distinct size, so that several cells of one size count once.
    rank = np.cumsum(np.diff(t, prepend=t[0]) > 0)
    return np.flatnonzero(np.abs(rank - rank[lowest]) <= NEIGHBOURS)


def resolvable(variance: Floats, error: Floats) -> Floats:
    """Return variances raised to that of rounding, so that their inverses are finite."""
    return np.asarray(np.maximum(variance, (_RESOLUTION * np.abs(error).mean()) ** 2), dtype=np.float64)


def fit(t: Floats, error: Floats, variance: Floats, pull: Floats) -> Floats:
    """Return the coefficients c₀ … c₃ of each row of errors, shape (rows, 4).

    t is ln size relative to the lowest point. ``pull`` is the prior mean of c₃ of each row, in units of its
    standard deviation: zero for an estimate, a standard normal deviate for a draw. A fit to a draw of the
    data and of the prior mean is a draw of the posterior.
    """
    root = 1 / np.sqrt(np.maximum(variance, 1e-30))
    basis = np.vander(t, 3, increasing=True) * root[:, None]
    scaled = error * root
    inverse = np.linalg.pinv(basis)
    free = scaled @ inverse.T
    # Rounding bends a straight line by about 1e-16, so a smaller c₂ is zero: there is no valley.
    straight = free[:, 2] <= _STRAIGHT * np.abs(error).max(axis=1, initial=0.0)
    cube = t**3 * root
    rest = cube - basis @ (inverse @ cube)
    spread = np.where(straight, 0.0, ASYMMETRY * free[:, 2] / 3)
    # c₃ by ridge regression: the part of t³ orthogonal to the parabola (``rest``), with the prior as penalty.
    third = (spread**2 * (scaled @ rest) + spread * pull) / (spread**2 * (rest @ rest) + 1)
    found = (scaled - third[:, None] * cube) @ inverse.T
    # If c₂ ≤ 0, the best convex curve is the straight line.
    line = np.pad(scaled @ np.linalg.pinv(basis[:, :2]).T, ((0, 0), (0, 1)))
    return np.column_stack([np.where(straight[:, None], line, found), third])


def value(coefficients: Floats, t: Floats) -> Floats:
    """Return the curve of each row of coefficients at the row's t, shape (rows,)."""
    c0, c1, c2, c3 = coefficients.T
    return np.asarray(c0 + t * (c1 + t * (c2 + t * c3)), dtype=np.float64)


def lowest(coefficients: Floats, first: float, last: float) -> Floats:
    """Return the t of each row's lowest point between two ends: its minimum or an end, shape (rows,)."""
    _, c1, c2, c3 = coefficients.T
    # Root of c₁ + 2c₂t + 3c₃t² with positive second derivative, written without division by c₃.
    inside = c2**2 - 3 * c1 * c3
    with np.errstate(divide="ignore", invalid="ignore"):
        minimum = -c1 / (c2 + np.sqrt(inside))
    minimum = np.where((inside > 0) & (minimum > first) & (minimum < last), minimum, first)
    # Candidates for the lowest point: the inner minimum (or the first end without one) and both ends.
    ends = np.stack([minimum, np.full_like(minimum, first), np.full_like(minimum, last)])
    heights = np.stack([value(coefficients, at) for at in ends])
    # Beyond its minimum a cubic may fall again. That is an artefact of the form, so an inner minimum wins.
    heights[1:] = np.where(minimum > first, np.inf, heights[1:])
    return np.asarray(np.take_along_axis(ends, heights.argmin(axis=0)[None, :], axis=0)[0], dtype=np.float64)


def form_error(valleys: Sequence[Valley]) -> Excess:
    """Estimate the form error of a family: the variance, common to all profiles, that the fits miss."""
    tested = [valley for valley in valleys if valley.freedom > 0]
    if not tested:
        return Excess()
    return excess(
        lambda variance: sum(valley.statistic(variance) for valley in tested),
        freedom=sum(valley.freedom for valley in tested),
        noise=float(np.mean([valley.variance.mean() for valley in tested])),
        highest=_WIDEST * max(float(np.var(valley.error)) for valley in tested),
    )
