"""The error of a sweep's runs over their hyper-parameters, as a surface fitted to all cells of a table.

In a cell, the error is a level, plus a cubic polynomial around the cell's expected optimum, plus a slope and
a bend of the cell, plus noise. All cells share the polynomial and the variances, which maximise the
restricted likelihood; the expected optimum is linear in what is known of a cell, such as the logarithms of
its model's size and samples seen. Fitted are the runs near the best of their cell: a polynomial does not hold
far from it, and runs that diverged say nothing of it. The posterior mean at the best run of a cell has no
bias of choosing: its noise is weighed against the runs around it and the surface of all cells.
"""

from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import minimize_scalar

from analysis.arrays import Floats, Indices, Mask

_ROUNDS, _MOVES, _RIDGE, _FARTHEST = 6, 4, 1e-4, 4.0
_SEVERAL, _PER_KNOWN = 3, 4
"""Runs of a cell, and such cells for each coefficient of the expected optimum."""
_OUTLIER, _WINDOW, _FIRST = 4.0, 6.0, 2.0
"""Largest residual, and height above the best of the cell, in deviations; first height, in median heights."""
_USUAL, _GIVE, _BEND = -3.0, 1.5, 4.0
"""Logarithm of the variance of slopes over the noise, as expected, its deviation, and slopes over bends."""


class Surface:
    """The fitted surface.

    Attributes:
        known: False if the table has too few runs; then nothing is fitted.
        height: Errors above the best of their cell, shape (runs,).
        used: Runs that the surface is fitted to.
        law: Coefficients of the expected optimum, shape (known of a cell, numbers).
        noise: Variance of a run.
    """

    def __init__(self, cell: Indices, x: Floats, y: Floats, z: Floats, *, numbers: int) -> None:
        """Fit the surface.

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
        self.law = np.zeros((self._z.shape[1], numbers))
        height = self.height = y - np.array([y[rows].min() for rows in self.rows])[cell]
        self.used = height <= (_FIRST * np.median(height[height > 0]) if height.any() else 0.0)
        terms = [term for power in (2, 3) for term in combinations_with_replacement(range(numbers), power)]
        squares = self._squares = numbers * (numbers + 1) // 2
        width = self.law.size + x.shape[1] - numbers
        freedom = self.used.sum() - len(z)
        self.known = bool(freedom > width + 2 * squares)
        cubic = freedom > 3 * (width + len(terms))
        for turn in range(_ROUNDS if self.known else 0):
            self._terms = terms if cubic and turn > 1 else terms[:squares]
            self._fit()
            used = self._near()
            if (used == self.used).all() and turn > 1:
                break
            self.used = used

    def _near(self) -> Mask:
        """Return the runs near the best of their cell whose residual is not far beyond the noise."""
        used = np.zeros(len(self._y), dtype=bool)
        deviation = np.sqrt(self.noise)
        for cell, rows in enumerate(self.rows):
            mean = self.at(cell, self._x[rows])[0]
            limit = mean[self.used[rows]].min() + _WINDOW * deviation
            used[rows] = (mean < limit) & (np.abs(self._y[rows] - mean) < _OUTLIER * deviation)
            used[rows[np.argmin(self._y[rows])]] = True
        return used

    def _fit(self) -> None:
        """Fit variances and coefficients, and move the expected optimum until it is the fitted one."""
        options = {"xatol": 0.2}
        self._ratio = np.exp(
            minimize_scalar(self._misfit, bounds=(-7, 7), method="bounded", options=options).x
        )
        for _ in range(_MOVES):
            self._misfit(np.log(self._ratio))
            value, vector = np.linalg.eigh(self.curvature(self._weights))
            value = np.maximum(value, 0.05 * np.abs(value).max(initial=1e-12))
            slopes = self._weights[: self.law.size].reshape(self.law.shape)
            law = self.law - np.clip(slopes @ vector / value @ vector.T, -1.0, 1.0)
            if np.abs(self._z @ law).max(initial=0.0) > _FARTHEST:
                break  # the runs do not show where it is
            self.law = law
        self._misfit(np.log(self._ratio))

    def _misfit(self, log_ratio: float) -> float:
        """Solve for the coefficients, and return minus the restricted log likelihood, up to a constant."""
        ratio = float(np.exp(log_ratio))
        normals = [self._normal(cell, ratio) for cell in range(len(self.rows))]
        total = np.sum([normal for normal, _ in normals], axis=0)
        self._precision = total[:-1, :-1] + _RIDGE * np.eye(len(total) - 1)
        self._weights = np.linalg.solve(self._precision, total[:-1, -1])
        freedom = max(int(self.used.sum()) - len(self.rows) - len(self._weights), 1)
        self.noise = max(float(total[-1, -1] - total[-1, :-1] @ self._weights) / freedom, 1e-24)
        size = sum(size for _, size in normals) + float(np.linalg.slogdet(self._precision)[1])
        doubt = ((log_ratio - _USUAL) / _GIVE) ** 2
        return 0.5 * (freedom * float(np.log(self.noise)) + size + doubt)

    def _normal(self, cell: int, ratio: float) -> tuple[Floats, float]:
        """Return the normal equations of a cell, of its features and errors without its level and slope."""
        alone, features, y = self._design(cell)
        told = np.c_[features, y]
        inner = alone.T @ alone + self._penalty(ratio)
        across = alone.T @ told
        size = float(np.linalg.slogdet(inner)[1]) + (self._x.shape[1] + self._squares) * np.log(ratio)
        return told.T @ told - across.T @ np.linalg.solve(inner, across), size

    def _design(self, cell: int) -> tuple[Floats, Floats, Floats]:
        """Return what a cell has alone (level, slope, bend), the features that all share, and the errors."""
        rows = self.rows[cell][self.used[self.rows[cell]]]
        return *self._mapped(cell, self._x[rows]), self._y[rows]

    def _mapped(self, cell: int, x: Floats) -> tuple[Floats, Floats]:
        places = x - np.r_[self.centre(cell), np.zeros(x.shape[1] - self._numbers)]
        numbers = places[:, : self._numbers]
        linear = np.einsum("q,nd->nqd", self._z[cell], numbers).reshape(len(x), -1)
        shape = [numbers[:, list(term)].prod(axis=1) for term in self._terms]
        alone = np.column_stack([np.ones(len(x)), places, *shape[: self._squares]])
        return alone, np.column_stack([linear, places[:, self._numbers :], *shape])

    def centre(self, cell: int) -> Floats:
        """Return the expected optimum of a cell."""
        return np.asarray(self._z[cell] @ self.law)

    def curvature(self, weights: Floats) -> Floats:
        """Return the second derivatives at the expected optimum, shape (numbers, numbers)."""
        hessian = np.zeros((self._numbers, self._numbers))
        for weight, term in zip(weights[-len(self._terms) :], self._terms, strict=True):
            if len(term) == 2:  # noqa: PLR2004
                hessian[term] += weight
                hessian[term[::-1]] += weight
        return hessian

    def curvatures(self, draws: int) -> Floats:
        """Return draws of the second derivatives at the expected optimum, shape (draws, numbers, numbers)."""
        spread = self.noise * np.linalg.inv(self._precision)
        weights = np.random.default_rng(0).multivariate_normal(self._weights, spread, size=draws)
        return np.array([self.curvature(draw) for draw in weights])

    def at(self, cell: int, x: Floats) -> tuple[Floats, Floats]:
        """Return the mean and the covariance of the errors without noise at points of a cell."""
        return self._moments(cell, np.column_stack(self._mapped(cell, x)))

    def _moments(self, cell: int, wanted: Floats) -> tuple[Floats, Floats]:
        """Return mean and covariance of combinations of a cell's level and slopes and of the coefficients."""
        alone, features, y = self._design(cell)
        inverse = np.linalg.inv(alone.T @ alone + self._penalty(self._ratio))
        pull = inverse @ alone.T
        effects = pull @ (y - features @ self._weights)
        count = len(effects)
        through = wanted[:, count:] - wanted[:, :count] @ pull @ features
        spread = wanted[:, :count] @ inverse @ wanted[:, :count].T
        spread = spread + through @ np.linalg.solve(self._precision, through.T)
        return wanted @ np.r_[effects, self._weights], self.noise * spread

    def slopes(self, cell: int) -> tuple[Floats, Floats]:
        """Return mean and covariance of a cell's slope at its centre."""
        shared = np.zeros((self._numbers, len(self._weights)))
        shared[:, : self.law.size] = np.kron(self._z[cell], np.eye(self._numbers))
        alone = np.eye(self._numbers, 1 + self._x.shape[1] + self._squares, 1)
        return self._moments(cell, np.c_[alone, shared])

    def _penalty(self, ratio: float) -> Floats:
        return np.diag([0.0, *[1.0 / ratio] * self._x.shape[1], *[_BEND / ratio] * self._squares])
