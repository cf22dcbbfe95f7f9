"""Outliers: runs far from what the law and the other runs allow, such as broken ones that look finished.

Each run is compared with its prediction by all others: the joint law, the other seeds of its cell and the
other levels of its trunk. It stands out if it misses that by ``FAR`` standard deviations and by ``LEAST``.
Steep curves, crossings and configurations that are worse throughout do not: the law allows them.
"""

import numpy as np

from analysis.arrays import Floats

FAR = 4.0
"""Standard deviations. Of 5,304 runs of simulated grids none missed by so many, with three seeds or one."""
LEAST = 0.02
"""As an error, or a share of the typical loss: what is less is not worth a second run."""
NOISY = 5.0
"""Standard deviations between seeds from which on the noise is first measured without a run."""
ODDS, TOO_GOOD = 5.0, 15.0
"""What a run that stands out costs of the ln evidence: broken runs are worse, seldom better."""


def left_out(rest: Floats, gain: Floats, covariance: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return what each run misses its prediction by the others by, and the variance of that.

    With C the covariance of all runs and d what they miss the law by, run i misses its prediction by
    (C⁻¹d)ᵢ/(C⁻¹)ᵢᵢ, of variance 1/(C⁻¹)ᵢᵢ (Rasmussen and Williams 2006, eq. 5.12).
    Its curve's block of C⁻¹ is N⁻¹ − N⁻¹(S − SBS)N⁻¹.

    Args:
        rest: Runs minus the true errors' posterior means, NaN without a run, shape (curves, units, points).
        gain: N⁻¹ of the covariance N of a unit's runs, shape (curves, units, points, points).
        covariance: Covariance S of the estimates, shape (curves, points, points).
        precision: Block B of the inverse of that of all estimates, of the same shape.
    """
    posterior = covariance - covariance @ precision @ covariance
    diagonal = np.einsum("cupp->cup", gain) - ((gain @ posterior[:, None]) * gain).sum(axis=-1)
    diagonal = np.where(np.isfinite(rest), diagonal, np.nan)
    return (gain @ np.nan_to_num(rest)[..., None])[..., 0] / diagonal, 1 / diagonal


def left_out_together(
    rest: Floats, gain: Floats, covariance: Floats, precision: Floats, *, points: int
) -> tuple[Floats, Floats]:
    """Return the same where all runs of a curve at its first ``points`` are left out together.

    With B these runs of one curve, they miss by (C⁻¹_BB)⁻¹·(C⁻¹d)_B, of covariance (C⁻¹_BB)⁻¹.
    """
    posterior = covariance - covariance @ precision @ covariance
    out = np.isfinite(rest) & (np.arange(rest.shape[2]) < points)
    units = np.eye(rest.shape[1])[:, None, :, None]
    inverse = gain[:, :, :, None] * units
    inverse -= np.einsum("cupr,cvrs->cupvs", gain @ posterior[:, None], gain)
    both = out[..., None, None] & out[:, None, None]
    size = out[0].size
    block = np.where(both, inverse, 0.0).reshape(-1, size, size) + np.eye(size) * ~out.reshape(-1, 1, size)
    inverted = np.linalg.inv(block)
    pull = np.where(out, (gain @ np.nan_to_num(rest)[..., None])[..., 0], 0.0)
    miss = (inverted @ pull.reshape(-1, size, 1)).reshape(out.shape)
    variance = np.einsum("cpp->cp", inverted).reshape(out.shape)
    return np.where(out, miss, np.nan), np.where(out, variance, np.nan)


def as_normal(ratio: Floats, freedom: Floats) -> Floats:
    """Return the sizes of a normal distribution's values as improbable as Student's t (Wallace 1959)."""
    few = np.minimum(freedom, 1e6)
    return np.asarray(np.sqrt(few * np.log1p(ratio**2 / few)) * (8 * few + 1) / (8 * few + 3))
