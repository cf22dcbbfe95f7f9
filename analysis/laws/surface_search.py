"""The search for the optimum of `surface`, many fits at once, with its analytic derivatives."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.arrays import Floats, Indices
from analysis.laws import descent

BOUNDS = (0.01, 5.0)
"""Bounds of both exponents."""
SMALLEST = 1e-6
"""Smallest term as a share of the lowest y; a term that small counts as zero."""

# Directions of the parameters: all five are free, or α and β move together.
_FREE = np.eye(5)
_SHARED = np.vstack([np.eye(4), [0.0, 0.0, 0.0, 1.0]])
_CHUNK = 32_768  # numbers per array of a chunk


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """The data of a fit, in centred logarithms.

    Attributes:
        log_n: ln N minus its mean, shape (points,).
        log_d: ln D minus its mean, shape (points,), or (draws, points) if each draw has its own.
        unit_n: Geometric mean of N.
        unit_d: Geometric mean of D.
        log_y: Shape (draws or 1, points).
        weights: Shape (draws or 1, points).
        delta: Huber's δ.
        moments: 1, n, n², d, d² and n·d of the logarithms, along a last axis after the axes of ``log_d``.
        unit_y: Lowest y.
        directions: Directions in which (E, ln A, ln B, α, β) may move, shape (5, free parameters).
    """

    log_n: Floats
    log_d: Floats
    unit_n: float
    unit_d: float
    log_y: Floats
    weights: Floats
    delta: float
    moments: Floats
    unit_y: float
    directions: Floats

    @classmethod
    def of(  # noqa: PLR0913 (what a surface is fitted to)
        cls, n: Floats, d: Floats, y: Floats, weights: Floats, delta: float, *, shared: bool = False
    ) -> "Data":
        """Return the data of a fit; ``shared`` keeps α = β."""
        log_n, log_d, log_y = np.log(n), np.log(d), np.log(y)
        mean_n, mean_d = float(log_n.mean()), float(log_d.mean())
        log_n, log_d = log_n - mean_n, log_d - mean_d
        of_n = (np.broadcast_to(values, log_d.shape) for values in (np.ones_like(log_n), log_n, log_n**2))
        moments = np.stack([*of_n, log_d, log_d**2, log_n * log_d], axis=-1)
        return cls(
            log_n=log_n, log_d=log_d, unit_n=float(np.exp(mean_n)), unit_d=float(np.exp(mean_d)), log_y=log_y,
            weights=weights, delta=delta, moments=moments,
            unit_y=float(y.min()), directions=_SHARED if shared else _FREE,
        )  # fmt: skip

    @property
    def lowest(self) -> float:
        """Smallest ln of a term."""
        return float(np.log(SMALLEST * self.unit_y))

    def rows(self, positions: Indices) -> tuple[Floats, Floats, Floats, Floats]:
        """Return ln y, weights, ln D and moments of some draws."""
        own = self.log_d.ndim > 1
        return (
            self.log_y if len(self.log_y) == 1 else self.log_y[positions],
            self.weights if len(self.weights) == 1 else self.weights[positions],
            self.log_d[positions] if own else self.log_d,
            self.moments[positions] if own else self.moments,
        )


def project(data: Data, exponents: Floats) -> Floats:
    """Return parameters (ln E, ln A, ln B, α, β) whose linear part is optimal at the given (α, β).

    The data are of one draw, the exponents of shape (starts, 2).
    """
    y, root = np.exp(data.log_y[0]), np.sqrt(data.weights[0])
    found = np.empty((len(exponents), 5))
    for row, (alpha, beta) in enumerate(exponents):
        columns = np.stack([np.ones_like(y), np.exp(-alpha * data.log_n), np.exp(-beta * data.log_d)], axis=1)
        # Least squares of (y − ŷ)/y, which approximates that of ln y − ln ŷ near the optimum.
        scaled = columns * (root / y)[:, None]
        gram, right = scaled.T @ scaled, scaled.T @ root
        # Non-negative least squares of three terms by enumeration: solve on each subset of the terms and keep
        # the best solution without a negative part.
        best, parts = np.inf, np.zeros(3)
        for kept in (list(some) for size in (1, 2, 3) for some in combinations(range(3), size)):
            solved = np.linalg.lstsq(gram[np.ix_(kept, kept)], right[kept], rcond=None)[0]
            value = -float(solved @ right[kept])
            if (solved >= 0).all() and value < best:
                best, parts = value, np.zeros(3)
                parts[kept] = solved
        # The logarithm of a zero term has no slope, so such a term starts at a hundredth of the lowest y.
        found[row, :3] = np.log(np.maximum(parts, 0.01 * y.min()))
        found[row, 3:] = alpha, beta
    return found


def search(data: Data, starts: Floats) -> tuple[Floats, Floats]:
    """Search from each start, in chunks that fit into the processor's cache.

    The data hold as many draws as starts, or one draw that all share. Returns the end of each search, in the
    shape of the starts, (starts, 5), and its objective.
    """
    ends, objectives = starts.copy(), np.empty(len(starts))
    rows = max(1, _CHUNK // data.log_d.shape[-1])
    for low in range(0, len(starts), rows):
        chunk = np.arange(low, min(low + rows, len(starts)))
        ends[chunk], objectives[chunk] = _search(data, chunk, starts[chunk])
    return ends, objectives


def _search(data: Data, chunk: Indices, theta: Floats) -> tuple[Floats, Floats]:
    # E is searched for as a share of the lowest y. Its logarithm would go far for a floor that vanishes, and
    # has no slope where one appears.
    bounds = np.array([[SMALLEST, np.inf], *[[data.lowest, np.inf]] * 2, *[BOUNDS] * 2]).T
    shares = np.column_stack([np.exp(theta[:, 0]) / data.unit_y, theta[:, 1:]])
    ends, objectives = descent.search(
        lambda searches, theta: _expand(data, chunk[searches], theta), shares,
        bounds=(bounds[0], bounds[1]), directions=data.directions,
    )  # fmt: skip
    return np.column_stack([np.log(ends[:, 0] * data.unit_y), ends[:, 1:]]), objectives


def _expand(data: Data, positions: Indices, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return objective, gradient, Hessian and damping matrix along the free directions.

    The damping matrix is the reweighted Gauss-Newton matrix, which is positive definite; the Hessian need not
    be.
    """
    log_y, weights, log_d, moments = data.rows(positions)
    terms = (
        theta[:, :1] * data.unit_y,
        np.exp(theta[:, 1:2] - theta[:, 3:4] * data.log_n),
        np.exp(theta[:, 2:3] - theta[:, 4:5] * log_d),
    )
    total = terms[0] + terms[1] + terms[2]
    # Derivatives of ln ŷ by E, in the unit of the search, and by ln A and ln B, which are their shares in ŷ.
    e, a, b = data.unit_y / total, terms[1] / total, terms[2] / total
    residual = log_y - np.log(total)
    size = np.abs(residual)
    inside = size <= data.delta
    slope = np.clip(residual, -data.delta, data.delta)
    # Huber: r²/2 inside, δ·(|r| − δ/2) outside; both are ψ·(r − ψ/2).
    value = np.einsum("ij,ij->i", np.broadcast_to(weights, residual.shape), slope * (residual - slope / 2))
    # ``pull`` is w·ψ(r), ``curve`` w·ψ'(r), which is zero where Huber's loss is linear.
    pull = weights * slope
    curve = weights * inside
    reweighted = weights * (np.minimum(data.delta / np.maximum(size, 1e-300), 1.0))
    # With share = term/ŷ, z the gradient of ln term and g that of ln ŷ, ∇² ln ŷ = Σ share·z·zᵀ − g·gᵀ. E, in
    # which ŷ is linear, has no part in the sum.
    of_a, of_b = _sums(pull * a, moments), _sums(pull * b, moments)
    gradient = -_slopes((pull * e).sum(axis=1), of_a, of_b)
    newton = _outer(moments, curve + pull, a, b, e) - _squares(of_a, of_b)
    damper = _outer(moments, reweighted, a, b, e)
    free = data.directions
    gradient, newton, damper = gradient @ free, free.T @ newton @ free, free.T @ damper @ free
    eye = np.eye(free.shape[1])
    # Keeps the damping matrix invertible for a term that the data do not determine. For E it is that of ln E:
    # a floor near zero hardly moves, since a step cut at zero would leave the steps of the others wrong.
    ridge = 1e-10 * np.trace(damper, axis1=1, axis2=2)[:, None, None] * eye + 1e-300 * eye
    ridge[:, 0, 0] /= theta[:, 0] ** 2
    return value, gradient, newton, damper + ridge


def _sums(values: Floats, moments: Floats) -> Floats:
    """Return the sums of the moments, weighted by each row's values."""
    return values @ moments if moments.ndim == 2 else (values[:, None, :] @ moments)[:, 0]  # noqa: PLR2004 (shared)


def _slopes(of_e: Floats, of_a: Floats, of_b: Floats) -> Floats:
    """Return Σ c·g with the gradient g = (e, a, b, −n·a, −d·b) of ln ŷ, from the sums of c·e, c·a and c·b."""
    return np.stack([of_e, of_a[:, 0], of_b[:, 0], -of_a[:, 1], -of_b[:, 3]], axis=1)


def _outer(moments: Floats, c: Floats, a: Floats, b: Floats, e: Floats) -> Floats:
    """Return Σ c·g·gᵀ."""
    ca, cb = c * a, c * b
    aa, bb, ab = _sums(ca * a, moments), _sums(cb * b, moments), _sums(ca * b, moments)
    ea, eb = _sums(ca * e, moments), _sums(cb * e, moments)
    ee = np.einsum("ij,ij,ij->i", np.broadcast_to(c, e.shape), e, e)
    # Upper triangle of the matrix, row by row.
    upper = (
        (ee, ea[:, 0], eb[:, 0], -ea[:, 1], -eb[:, 3]),
        (aa[:, 0], ab[:, 0], -aa[:, 1], -ab[:, 3]),
        (bb[:, 0], -ab[:, 1], -bb[:, 3]),
        (aa[:, 2], ab[:, 5]),
        (bb[:, 4],),
    )
    found = np.empty((len(a), 5, 5))
    for row, entries in enumerate(upper):
        for column, entry in enumerate(entries, start=row):
            found[:, row, column] = found[:, column, row] = entry
    return found


def _squares(of_a: Floats, of_b: Floats) -> Floats:
    """Return Σ c·Σ share·z·zᵀ over the terms of A and B, from the sums of c·a and c·b."""
    found = np.zeros((len(of_a), 5, 5))
    found[:, 1, 1], found[:, 2, 2] = of_a[:, 0], of_b[:, 0]
    found[:, 1, 3] = found[:, 3, 1] = -of_a[:, 1]
    found[:, 2, 4] = found[:, 4, 2] = -of_b[:, 3]
    found[:, 3, 3], found[:, 4, 4] = of_a[:, 2], of_b[:, 4]
    return found
