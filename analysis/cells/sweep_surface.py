"""The error of a sweep's runs over their hyper-parameters, as a surface fitted to all cells of a table.

In a cell, the error is a level, plus a cubic polynomial around the cell's expected optimum, plus a slope and
a smooth deviation of the cell, plus noise. All cells share the polynomial and the variances, which maximise
the restricted likelihood; the expected optimum is linear in what is known of a cell, such as the logarithms
of its model's size and samples seen. It is fitted to the runs near the best of their cell: a polynomial does
not hold far from it, and runs that diverged say nothing of it.

The posterior mean at the best run of a cell has no bias of choosing: the noise in its own result is weighed
against the runs around it and the surface of all cells.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from analysis.arrays import Floats, Indices, Mask

_ROUNDS, _RIDGE, _FARTHEST = 6, 1e-4, 4.0
_SEVERAL, _PER_KNOWN = 3, 4
"""Runs of a cell, and such cells for each coefficient of the expected optimum."""
_OUTLIER, _WINDOW, _GAP = 4.0, 6.0, 2.0
"""Largest residual, and height above the best of the cell, in deviations; first height, in median heights."""
_STARTS = [(smooth, slope) for smooth in (-6.0, -3.0, 0.0, 3.0) for slope in (-6.0, -3.0, 0.0)]


_USUAL, _GIVE = np.array([-3.0, -2.0]), np.array([1.0, 2.0])
"""Logarithms of the smooth and the slope's variance over the noise, as expected, and their deviations."""
_REACH = 1.5
"""Distance over which the smooth deviation changes."""
_STEP = 0.3
"""Distance over which slopes are taken."""
_Design = tuple[Floats, Floats, Floats, Floats]
"""Of cells with equally many runs: features, nearness, products of places, errors."""


class _Sums(NamedTuple):
    """Normal equations of one cell or of all, with the level of each cell projected out."""

    precision: Floats
    product: Floats
    squares: float
    determinant: float
    freedom: int

    @property
    def weights(self) -> Floats:
        """The coefficients."""
        return np.asarray(np.linalg.solve(self.precision, self.product))

    @property
    def noise(self) -> float:
        """The variance of a run."""
        return max((self.squares - float(self.product @ self.weights)) / max(self.freedom, 1), 1e-24)


class Surface:
    """The fitted surface.

    Attributes:
        rows: Runs of each cell.
        used: Runs that the surface is fitted to.
        law: Coefficients of the expected optimum ``z @ law``, shape (known, numbers).
        noise: Variance of a run.
        known: False if there are too few runs; then nothing is fitted.
    """

    def __init__(self, cell: Indices, x: Floats, y: Floats, z: Floats, *, numbers: int) -> None:
        """Fit the surface to runs of at least one cell.

        Args:
            cell: Cell of each run, from 0.
            x: Hyper-parameters of each run, in units of about one deviation: first the logarithms of numbers,
                then 0 or 1 for names; shape (runs, hyper-parameters).
            y: Errors, shape (runs,).
            z: What is known of each cell; the first column is 1; shape (cells, known).
            numbers: Number of hyper-parameters that are numbers.
        """
        self.rows = [np.flatnonzero(cell == place) for place in range(len(z))]
        several = sum(len(rows) >= _SEVERAL for rows in self.rows)
        self._x, self._y, self._z, self._numbers = x, y, z[:, : max(1, several // _PER_KNOWN)], numbers
        self._pairs = [
            each for power in (2, 3) for each in combinations_with_replacement(range(numbers), power)
        ]
        self.law = np.zeros((self._z.shape[1], numbers))
        self._level = np.array([y[rows].min() for rows in self.rows])[cell]
        height = y - self._level
        self.used = height <= _GAP * np.median(height[height > 0]) if height.any() else height <= 0
        self._starts = list(map(np.array, _STARTS))
        freedom = sum(max(int(self.used[rows].sum()) - 1, 0) for rows in self.rows)
        width = self.law.size + x.shape[1] - numbers
        self.known = freedom > width + numbers * (numbers + 1)
        cubic = freedom > 3 * (width + len(self._pairs))
        for turn in range(_ROUNDS if self.known else 0):
            self._fit(cubic=cubic and turn > 1)
            used = self._near()
            if (used == self.used).all() and turn > 1:
                break
            self.used = used

    def _near(self) -> Mask:
        """Return the runs near the best of their cell whose residual is not far beyond the noise."""
        used = np.zeros(len(self._y), dtype=bool)
        deviation = np.sqrt(self.noise)
        for cell, rows in enumerate(self.rows):
            mean, _ = self.at(cell, self._x[rows])
            limit = mean[self.used[rows]].min(initial=np.inf) + _WINDOW * deviation
            residual = np.abs(self._y[rows] - mean)
            used[rows] = (mean < limit) & (residual < _OUTLIER * np.hypot(deviation, np.sqrt(self._smooth)))
            used[rows[np.argmin(self._y[rows])]] = True
        return used

    def _fit(self, *, cubic: bool) -> None:
        """Fit variances and coefficients, and move the expected optimum until it is the fitted one."""
        self._terms = self._pairs[: None if cubic else self._numbers * (self._numbers + 1) // 2]
        self._prepare()
        self._starts = [min(self._starts, key=self._misfit)]
        simplex = np.array(self._starts[0]) + np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        options = {"xatol": 0.1, "fatol": 0.02, "maxfev": 40, "initial_simplex": simplex}
        self._starts = [minimize(self._misfit, simplex[0], method="Nelder-Mead", options=options).x]
        for _ in range(4):
            self._solve(self._starts[0])
            if np.abs(self._recentre()).max(initial=0.0) < 0.02:  # noqa: PLR2004
                break
            self._prepare()
        self._prepare()
        self._solve(self._starts[0])

    def _prepare(self) -> None:
        """Design each cell with several runs; its level is all that a run alone shows."""
        groups: dict[int, list[tuple[int, Indices]]] = {}
        for cell, rows in enumerate(self.rows):
            kept = rows[self.used[rows]]
            groups.setdefault(len(kept), []).append((cell, kept))
        self._designs = [self._design(rows) for count, rows in groups.items() if count > 1]

    def _misfit(self, ratios: Floats) -> float:
        """Return minus the restricted log likelihood, up to a constant."""
        total = self._with_ridge(ratios)
        size = float(np.linalg.slogdet(total.precision)[1]) + total.determinant
        doubt = 0.5 * float((((ratios - _USUAL) / _GIVE) ** 2).sum())
        return 0.5 * (total.freedom * float(np.log(total.noise)) + size) + doubt

    def _solve(self, ratios: Floats) -> None:
        total = self._total = self._with_ridge(ratios)
        self._weights, self.noise = total.weights, total.noise
        self._smooth, self._slope = self.noise * np.exp(np.clip(ratios, -14, 14))

    def _with_ridge(self, ratios: Floats) -> _Sums:
        found = self._sums(self._designs, ratios)
        return found._replace(precision=found.precision + _RIDGE * np.eye(len(found.product)))

    def _sums(self, groups: Iterable[_Design], ratios: Floats) -> _Sums:
        smooth, slope = np.exp(np.clip(ratios, -14, 14))
        width = self.law.size + self._x.shape[1] - self._numbers + len(self._terms)
        total = _Sums(np.zeros((width, width)), np.zeros(width), 0.0, 0.0, 0)
        for terms, near, along, y in groups:
            root = np.linalg.cholesky(np.eye(near.shape[1]) + smooth * near + slope * along)
            white = np.linalg.solve(root, np.concatenate([np.ones((*y.shape, 1)), terms, y[..., None]], 2))
            one = white[:, :, :1]
            square = (one**2).sum(axis=1, keepdims=True)
            rest = (white - one * ((one * white).sum(axis=1, keepdims=True) / square)).reshape(y.size, -1)
            known, told = rest[:, 1:-1], rest[:, -1]
            size = 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum() + np.log(square).sum()
            total = _Sums(
                total.precision + known.T @ known, total.product + known.T @ told,
                total.squares + float(told @ told), total.determinant + float(size),
                total.freedom + y.size - len(y),
            )  # fmt: skip
        return total

    def _design(self, rows: Sequence[tuple[int, Indices]]) -> _Design:
        """Return what is known of the runs of some cells with equally many."""
        terms, x = [], []
        for cell, runs in rows:
            x.append(self._around(cell, self._x[runs]))
            terms.append(self._features(cell, x[-1]))
        found = np.array(x)
        y = self._y[np.array([runs for _, runs in rows])]
        return np.array(terms), _near(found, found), np.matmul(found, found.swapaxes(1, 2)), y

    def centre(self, cell: int) -> Floats:
        """Return the expected optimum of a cell."""
        return np.asarray(self._z[cell] @ self.law)

    def _around(self, cell: int, x: Floats) -> Floats:
        """Return hyper-parameters relative to the expected optimum of a cell."""
        return np.asarray(np.c_[x[:, : self._numbers] - self.centre(cell), x[:, self._numbers :]])

    def _features(self, cell: int, x: Floats) -> Floats:
        linear = np.einsum("q,nd->nqd", self._z[cell], x[:, : self._numbers]).reshape(len(x), -1)
        shape = [x[:, list(term)].prod(axis=1) for term in self._terms]
        return np.asarray(np.column_stack([linear, x[:, self._numbers :], *shape]))

    def curvature(self, weights: Floats) -> Floats:
        """Return the second derivatives at the expected optimum, shape (numbers, numbers)."""
        found = np.zeros((self._numbers, self._numbers))
        start = self.law.size + self._x.shape[1] - self._numbers
        for weight, term in zip(weights[start:], self._terms, strict=True):
            if len(term) == 2:  # noqa: PLR2004
                found[term] += weight
                found[term[::-1]] += weight
        return found

    def curvatures(self, draws: int) -> Floats:
        """Return draws of the second derivatives at the expected optimum, shape (draws, numbers, numbers)."""
        spread = self.noise * np.linalg.inv(self._total.precision)
        weights = np.random.default_rng(0).multivariate_normal(self._weights, spread, size=draws)
        return np.array([self.curvature(each) for each in weights])

    def _recentre(self) -> Floats:
        """Move the expected optimum to the fitted one, by at most one unit."""
        value, vector = np.linalg.eigh(np.asarray(self.curvature(self._weights)))
        value = np.maximum(value, 0.05 * np.abs(value).max(initial=1e-12))
        gradient = self._weights[: self.law.size].reshape(self.law.shape)
        step = np.clip(-(gradient @ vector / value) @ vector.T, -1.0, 1.0)
        law = self.law + step
        if np.abs(self._z @ law).max(initial=0.0) > _FARTHEST:
            return np.zeros(0)  # the runs do not show where it is
        self.law = law
        return np.asarray(step)

    def at(self, cell: int, x: Floats) -> tuple[Floats, Floats]:
        """Return the mean and the covariance of the errors without noise at points of a cell."""
        rows = self.rows[cell][self.used[self.rows[cell]]]
        ran, asked = self._around(cell, self._x[rows]), self._around(cell, x)
        terms = self._features(cell, ran)
        inverse = np.linalg.inv(self._apart(ran, ran) + self.noise * np.eye(len(rows)))
        across = self._apart(asked, ran)
        one = np.ones(len(rows))
        size = one @ inverse @ one
        rest = self._y[rows] - terms @ self._weights
        level = one @ inverse @ rest / size
        wanted = self._features(cell, asked)
        mean = level + across @ inverse @ (rest - level) + wanted @ self._weights
        open_ = 1.0 - across @ inverse @ one
        unknown = wanted - across @ inverse @ terms - np.outer(open_, one @ inverse @ terms / size)
        spread = self._apart(asked, asked) - across @ inverse @ across.T + np.outer(open_, open_) / size
        return mean, spread + self.noise * unknown @ np.linalg.solve(self._total.precision, unknown.T)

    def _apart(self, one: Floats, other: Floats) -> Floats:
        """Return the covariance of a cell's deviations from the polynomial."""
        return np.asarray(self._smooth * _near(one, other) + self._slope * one @ other.T)

    def slopes(self, cell: int, names: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Return mean and covariance of a cell's slope at its centre, by all runs and by the other cells.

        ``names`` are the 0 and 1 of a run.
        """
        count = self._numbers
        step = np.c_[np.eye(count), -np.eye(count)]
        points = np.c_[_STEP * step.T + self.centre(cell), np.repeat(names[None], 2 * count, axis=0)]
        mean, spread = self.at(cell, points)
        kept = self.rows[cell][self.used[self.rows[cell]]]
        own = self._sums([self._design([(cell, kept)])], self._starts[0])
        precision, around = self._total.precision - own.precision, self._around(cell, points)
        terms = self._features(cell, around)
        others = terms @ np.linalg.solve(precision, self._total.product - own.product)
        apart = self._apart(around, around) + self.noise * terms @ np.linalg.solve(precision, terms.T)
        step = step / (2 * _STEP)
        return (step @ mean, step @ spread @ step.T), (step @ others, step @ apart @ step.T)


def _near(one: Floats, other: Floats) -> Floats:
    apart = one[..., :, None, :] - other[..., None, :, :]
    return np.asarray(np.exp(-0.5 * (apart**2).sum(axis=-1) / _REACH**2))
