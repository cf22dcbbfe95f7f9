"""Damped Gauss-Newton search (Levenberg 1944) with derivatives by differences, many searches at once.

For laws whose analytic derivatives are long. Huber's loss is handled by reweighting the squares. Each search
has its own damping and its own end; the searches still running are evaluated together.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Step of the differences, most iterations, damping at which a search gives up, relative gain that ends it.
_STEP, _TRIES, _MOST_DAMPED, _FLAT = 1e-6, 600, 1e9, 1e-10


def descend(
    residual: Callable[[Floats], Floats], starts: Floats, *, weights: Floats, delta: float,
    bounds: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:  # fmt: skip
    """Search from each start for the lowest Σ w·Huber_δ(residual).

    Args:
        residual: Parameters of shape (rows, parameters) → residuals of shape (rows, points).
        starts: Shape (searches, parameters).
        weights: Shape (points,).
        delta: Huber's δ; infinite for squares.
        bounds: Lowest and highest parameters, each of shape (parameters,).

    Returns:
        End of each search, in the shape of the starts, and its objective.
    """
    theta = np.clip(starts, *bounds)
    r = residual(theta)
    value, damping = _objective(r, weights, delta), np.full(len(theta), 1e-2)
    gram, gradient = _expand(residual, theta, r, weights, delta)
    active, eye = np.arange(len(theta)), np.eye(theta.shape[1])
    for _ in range(_TRIES):
        matrix = gram[active]
        diagonal = np.diagonal(matrix, axis1=1, axis2=2)
        # Marquardt's scaling: damping in proportion to the diagonal, and a little for directions without
        # slope.
        ridge = damping[active, None] * diagonal + 1e-12 * diagonal.sum(axis=1, keepdims=True)
        step = np.linalg.solve(matrix + ridge[:, :, None] * eye, gradient[active][:, :, None])[:, :, 0]
        # Parameters are logarithms and exponents: a step beyond 1 leaves the range of the linear
        # approximation.
        tried = np.clip(theta[active] - np.clip(step, -1.0, 1.0), *bounds)
        new = residual(tried)
        gained = value[active] - _objective(new, weights, delta)
        better = gained > 0
        moved = active[better]
        theta[moved], r[moved] = tried[better], new[better]
        value[moved] -= gained[better]
        damping[active] *= np.where(better, 1 / 4, 8.0)
        # A search ends when a step gains next to nothing, or when even the shortest step gains nothing.
        ended = np.where(better, gained <= _FLAT * value[active], damping[active] >= _MOST_DAMPED)
        # The matrix and the gradient stay valid after a rejected step, so only moved searches recompute them.
        onward = active[better & ~ended]
        if len(onward):
            gram[onward], gradient[onward] = _expand(residual, theta[onward], r[onward], weights, delta)
        active = active[~ended]
        if not len(active):
            break
    return theta, value


def _objective(r: Floats, weights: Floats, delta: float) -> Floats:
    # Huber: r²/2 inside δ, δ·(|r| − δ/2) outside; with ψ = clip(r, ±δ), both are ψ·(r − ψ/2).
    slope = np.clip(r, -delta, delta)
    return np.asarray((slope * (r - slope / 2)) @ weights, dtype=np.float64)


def _expand(
    residual: Callable[[Floats], Floats], theta: Floats, r: Floats, weights: Floats, delta: float
) -> tuple[Floats, Floats]:
    """Return the Gauss-Newton matrix Jᵀ·W·J and the gradient Jᵀ·W·r of each search, W Huber's weights."""
    rows, parameters = theta.shape
    # Forward differences of all parameters at once: one row per search and parameter.
    shifted = (theta[:, None, :] + _STEP * np.eye(parameters)).reshape(-1, parameters)
    slopes = (residual(shifted).reshape(rows, parameters, -1) - r[:, None, :]) / _STEP
    # Huber's weight is ψ(r)/r = min(1, δ/|r|); with it the gradient of the loss is that of squares.
    pull = weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300))
    weighted = slopes * pull[:, None, :]
    return weighted @ slopes.transpose(0, 2, 1), (weighted @ r[:, :, None])[:, :, 0]
