"""Joint draws of the true errors of all cells of a grid, run or not.

Along a curve the error is a law plus a discrepancy, and a run is the error plus its noise:

    f(x) = law(x; slope, x₀, E, A) + d(x),   run = f(x) + N(0, v)
    cov(d(x), d(x')) = s²·(½·[x = x'] + ½·min(ln x/x₁, ln x'/x₁)),   x₁ the smallest x

The law has one of two forms of ``analysis.laws.forms``: the power law with floor and shift, and, if the error
of chance is known, the bounded law. Slope, x₀ and E lie on a coarse grid. Around a point of the grid the
law is linear in A and, to first order, in the others' deviations, all normal. So f is normal, with mean,
covariance and evidence in closed form. The belief about a curve is the mixture over the grid, weighted by
the evidence and by shares that all curves of a family have in common:

* The shares are estimated from all curves by expectation maximisation (Kiefer and Wolfowitz 1956), most of
  them kept uniform. A curve with few runs takes its shape from its family.
* The evidence of the whole family weighs the values of s; for a forecast some of it is kept uniform.
  Evidence is the product of the densities of each result given those before it, so cells without a run are
  as wide as forecasts of results have missed.
* Estimates of the errors from runs, and the noise of runs, are those of ``analysis.design.measured``. Each
  draw stretches a curve by √(ν/χ²ν), ν the degrees of freedom of its noise.

The draws are Matheron's: a draw of the prior, moved by the gain times (data − drawn data).
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Indices, Mask
from analysis.design.law_grid import law_grid
from analysis.design.measured import Measured, estimates, noise_of

DISCREPANCIES = (0.004, 0.01, 0.02, 0.04)
"""Values of s."""
_KEPT_UNIFORM, _ROUNDS = 0.75, 6
_FAR_UNIFORM = 0.3  # share of the weights of s; smooth runs do not rule out a break beyond them
_WHITE, _WALK = 0.5, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Belief:
    """Joint draws of the true errors.

    Attributes:
        draws: Shape (draws, curves, points).
        noise: Variance of one run, shape (curves, points).
    """

    draws: Floats
    noise: Floats


def believe(measured: Measured, *, draws: int, generator: np.random.Generator, far: bool = False) -> Belief:
    """Draw the true errors of all points of a family.

    Args:
        measured: The runs.
        draws: Number of draws.
        generator: Source of randomness.
        far: True if the draws are read beyond the levels that were run, where a law may break: some of the
            weights of s are then kept uniform.
    """
    noise, freedom, shared = noise_of(measured)
    laws = law_grid(measured.x, chance=measured.chance)
    seen = measured.runs > 0
    estimate, covariance = estimates(measured, noise, shared)
    residual = np.where(seen, estimate - laws.middle, 0.0)
    # Covariance of d in units of s². Axes below: h values of s, g shapes, c curves, p and q points, s draws.
    along = np.log(measured.x / measured.x.min())
    walked = np.minimum(along[:, :, None], along[:, None, :])
    beside = _WHITE * np.eye(along.shape[1]) + _WALK * walked
    sigmas = np.array(DISCREPANCIES)
    prior = laws.covariance[None] + (sigmas**2)[:, None, None, None, None] * beside
    inverse = np.linalg.inv(prior + covariance)
    pull = np.einsum("hgcpq,gcq->hgcp", inverse, residual)
    # ln evidence = −½·ln|K| − ½·rᵀ·K⁻¹·r up to a constant, with K = prior + covariance and ln|K⁻¹| = −ln|K|.
    evidence = 0.5 * np.linalg.slogdet(inverse)[1] - 0.5 * (residual * pull).sum(axis=-1)
    weights, by_sigma = _weights(evidence, np.asarray(seen.any(axis=1)))
    if far:
        by_sigma = _FAR_UNIFORM / len(by_sigma) + (1 - _FAR_UNIFORM) * by_sigma
    # Posterior mean of f for each s and shape: μ + G·r with the gain G = prior·K⁻¹.
    gains = (prior @ inverse) * seen[:, None, :]
    centre = laws.middle + np.einsum("hgcpq,gcq->hgcp", gains, residual)

    # Each draw has one s for the family and one shape for each curve, at the weights of the mixture.
    curves, points = measured.x.shape
    sigma = generator.choice(len(sigmas), size=draws, p=by_sigma)
    ahead = np.cumsum(weights, axis=1)
    chosen = np.empty((draws, curves), dtype=np.intp)
    uniform = generator.random((draws, curves))
    for h in range(len(sigmas)):
        here = sigma == h
        chosen[here] = _drawn(ahead[h], uniform[here])
    chosen = np.minimum(chosen, len(laws.middle) - 1)
    # Matheron: a draw of the prior (law and discrepancy) and of the data around it; the draw of the
    # posterior is the posterior mean plus prior draw − G·(drawn data).
    each = np.arange(curves)[None, :]
    path = np.einsum(
        "scpk,sck->scp", laws.columns[chosen, each], generator.standard_normal((draws, curves, 4))
    )
    loose = np.einsum("cpq,scq->scp", np.linalg.cholesky(beside),
                      generator.standard_normal((draws, curves, points)))  # fmt: skip
    path += sigmas[sigma][:, None, None] * loose
    of_runs = np.einsum("cpq,scq->scp", np.linalg.cholesky(covariance),
                        generator.standard_normal((draws, curves, points)))  # fmt: skip
    drawn = path + np.where(seen, of_runs, 0.0)
    here = sigma[:, None]
    spread = path - np.einsum("scpq,scq->scp", gains[here, chosen, each], drawn)
    stretch = np.sqrt(freedom / generator.chisquare(freedom, size=(draws, curves)))
    found = centre[here, chosen, each] + stretch[:, :, None] * spread
    return Belief(draws=np.clip(found, 0.0, 1.0), noise=noise)


def _weights(evidence: Floats, known: Mask) -> tuple[Floats, Floats]:
    """Return the weights of the shapes for each s and curve, shape (s, shapes, curves), and those of s.

    Args:
        evidence: ln evidence, shape (s, shapes, curves).
        known: True for the curves with runs, shape (curves,).
    """
    shapes = evidence.shape[1]
    top = evidence.max(axis=1, keepdims=True)  # subtracted before exp, so that nothing overflows
    likelihood = np.exp(evidence - top)
    shared = np.full((len(evidence), shapes, 1), 1 / shapes)
    # Expectation maximisation: the weights of each curve given the shares, then the shares as their mean.
    for _ in range(_ROUNDS if known.any() else 0):
        each = shared * likelihood
        each /= each.sum(axis=1, keepdims=True)
        mean = each[:, :, known].mean(axis=2, keepdims=True)
        shared = _KEPT_UNIFORM / shapes + (1 - _KEPT_UNIFORM) * mean
    each = shared * likelihood
    total = each.sum(axis=1, keepdims=True)
    # Curves are independent given s: the evidence of s is the product over them.
    whole = (np.log(total) + top)[:, 0, :].sum(axis=1)
    by_sigma = np.exp(whole - whole.max())
    return each / total, by_sigma / by_sigma.sum()


def _drawn(ahead: Floats, uniform: Floats) -> Indices:
    """Return the shape that each uniform number draws, shape (draws, curves).

    Args:
        ahead: Weights of the shapes up to each, (shapes, curves).
        uniform: Numbers from 0 to 1, shape (draws, curves).
    """
    return np.stack(list(map(np.searchsorted, ahead.T, uniform.T)), axis=1)
