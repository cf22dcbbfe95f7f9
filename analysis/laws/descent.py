"""Damped Newton search (Marquardt 1963, Fletcher 1971) between bounds (Bertsekas 1982), many at once.

A law supplies its curvature by formulas, or by finite differences where the formulas are long. Each search
has its own damping and its own end; the searches still running are evaluated together.
"""

from collections.abc import Callable

import numpy as np

from analysis.arrays import Floats, Indices, Mask

Expand = Callable[[Indices, Floats], tuple[Floats, Floats, Floats, Floats]]
"""Numbers and parameters of some searches → objective, gradient, curvature and damping matrix of each."""

_TRIES = 300
_FLAT = 1e-11  # relative gain of a quiet step
_QUIET = 2
_DAMPING = (1e-6, 1e6)
_NEAR, _FAR = 0.75, 0.25  # gain of a step by that of the quadratic approximation
_STEP = 1e-6  # of the differences


def search(
    expand: Expand, starts: Floats, *, bounds: tuple[Floats, Floats], directions: Floats | None = None
) -> tuple[Floats, Floats]:
    """Search from each start for the lowest objective.

    Args:
        expand: Expansion of the objective along the directions. The damping matrix must be positive definite;
            the curvature need not be.
        starts: Logarithms and exponents, shape (searches, parameters).
        bounds: Lowest and highest parameters, each of shape (parameters,).
        directions: Directions in which the parameters may move, non-negative, shape (parameters, directions);
            by default each moves by itself.

    Returns:
        End of each search, in the shape of the starts, and its objective, shape (searches,).
    """
    theta = np.clip(starts, *bounds)
    along = np.eye(theta.shape[1]) if directions is None else directions
    active = np.arange(len(theta))
    value, gradient, curvature, damper = expand(active, theta)
    damping, quiet = np.full(len(theta), 1e-2), np.zeros(len(theta), dtype=np.int64)
    for _ in range(_TRIES):
        # The curvature plus damping times a positive definite matrix turns Newton into short descent.
        hessian = curvature[active]
        matrix = hessian + damping[active, None, None] * damper[active]
        lowest, highest = ((theta[active] == bound) @ along > 0 for bound in bounds)
        matrix, slope = resting(matrix, gradient[active], lowest, highest)
        move = _solved(matrix, slope)
        # A step beyond 1 leaves the range of the quadratic approximation.
        tried = np.clip(theta[active] - np.clip(move @ along.T, -1.0, 1.0), *bounds)
        new = expand(active, tried)
        gained = value[active] - new[0]
        better = gained > 0
        # Damping falls where the gain is near that of the quadratic approximation, g·s − s·H·s/2, and rises
        # where it is far from it: such a step may lead into the valley of a worse optimum (Fletcher 1971).
        expected = np.einsum("ri,ri->r", slope, move) - np.einsum("ri,rij,rj->r", move, hessian, move) / 2
        ratio = gained / np.where(expected > 0, expected, np.inf)
        factor = np.select([~better, ratio > _NEAR, ratio < _FAR], [8.0, 1 / 4, 2.0], 1.0)
        # A search ends after two quiet steps: small gains, or no gain at the strongest damping.
        damped = damping[active] >= _DAMPING[1]
        quiet[active] = np.where(gained > _FLAT * value[active], 0, quiet[active] + (better | damped))
        moved = active[better]
        theta[moved] = tried[better]
        for held, found in zip((value, gradient, curvature, damper), new, strict=True):
            held[moved] = found[better]
        damping[active] = np.clip(damping[active] * factor, *_DAMPING)
        active = active[quiet[active] < _QUIET]
        if not len(active):
            break
    return theta, value


def _solved(matrix: Floats, slope: Floats) -> Floats:
    """Return the step of each search, none along a parameter without effect."""
    try:
        return np.asarray(np.linalg.solve(matrix, slope[:, :, None])[:, :, 0])
    except np.linalg.LinAlgError:  # its damping is below rounding beside the other entries
        return np.asarray((np.linalg.pinv(matrix, hermitian=True) @ slope[:, :, None])[:, :, 0])


def resting(matrix: Floats, gradient: Floats, lowest: Mask, highest: Mask) -> tuple[Floats, Floats]:
    """Return the equations of a step that holds each parameter that is at a bound and would cross it.

    The other parameters then move to their optimum given the held ones. Cutting a full step at the bound
    would gain little or nothing. ``lowest`` and ``highest`` are true where a parameter is at that bound, in
    the shape of the gradient, (searches, parameters).
    """
    rests = (lowest & (gradient > 0)) | (highest & (gradient < 0))
    crossed = rests[:, :, None] | rests[:, None, :]
    return np.where(crossed, np.eye(gradient.shape[1]), matrix), np.where(rests, 0.0, gradient)


def descend(
    residual: Callable[[Floats], Floats], starts: Floats, *, weights: Floats, delta: float,
    bounds: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:  # fmt: skip
    """Search from each start for the lowest Σ w·Huber_δ(residual), by Gauss-Newton steps with differences.

    ``residual`` takes parameters of shape (rows, parameters) and returns residuals of shape (rows, points); δ
    is infinite for squares. Starts, bounds and the result are as in `search`.
    """

    def expand(_: Indices, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        rows, parameters = theta.shape
        eye = np.eye(parameters)
        # The parameters themselves and forward differences of each, all at once.
        shifts = np.vstack([np.zeros(parameters), _STEP * eye])
        found = residual((theta[:, None, :] + shifts).reshape(-1, parameters)).reshape(
            rows, 1 + parameters, -1
        )
        r, slopes = found[:, 0], (found[:, 1:] - found[:, :1]) / _STEP
        # Huber: r²/2 inside δ, δ·(|r| − δ/2) outside; with ψ = clip(r, ±δ), both are ψ·(r − ψ/2).
        psi = np.clip(r, -delta, delta)
        # Huber's weight is ψ(r)/r = min(1, δ/|r|); with it the gradient of the loss is that of squares.
        weighted = slopes * (weights * np.minimum(1.0, delta / np.maximum(np.abs(r), 1e-300)))[:, None, :]
        gram = weighted @ slopes.transpose(0, 2, 1)
        # Marquardt's scaling: damping in proportion to the diagonal, and a little for directions without
        # slope.
        diagonal = np.diagonal(gram, axis1=1, axis2=2)
        ridge = 1e-12 * diagonal.sum(axis=1)[:, None, None] * eye
        return (
            np.asarray((psi * (r - psi / 2)) @ weights),
            (weighted @ r[:, :, None])[:, :, 0],
            gram + ridge,
            diagonal[:, :, None] * eye,
        )

    return search(expand, starts, bounds=bounds)
