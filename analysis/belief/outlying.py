"""Runs that stand out from what the law and the other runs allow, such as broken ones that look finished.

Each run is compared with its prediction by all others: the joint law, the other seeds of its cell and the
other levels of its trunk. It stands out if it misses that by ``FAR`` standard deviations and by ``LEAST``.
Steep curves, crossings and configurations that are worse throughout do not: the law allows them.
"""

from dataclasses import dataclass

import numpy as np

from analysis.arrays import Floats, Mask

FAR = 4.0
"""Standard deviations. Of 5,304 runs of simulated grids none missed by so many, with three seeds or one."""
LEAST = 0.02
"""As an error, or a share of the typical loss: what is less is not worth a second run."""
NOISY = 5.0
"""Standard deviations between seeds from which on the noise is measured without a run, to begin with."""
ODDS = 5.0
"""Drop of the ln evidence for a run that stands out."""
_TOO_GOOD = 3  # runs that are broken are as improbable as one that is too good


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlying:
    """A run that stands out.

    Attributes:
        curve: Its curve.
        point: Its point of the curve.
        error: Its error.
        miss: Its error minus its prediction by all other runs.
        deviation: Standard deviation of that.
        far: The quotient of both, as that of a normal distribution which is as improbable.
    """

    curve: int
    point: int
    error: float
    miss: float
    deviation: float
    far: float


def left_out(rest: Floats, gain: Floats, covariance: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return what each run misses its prediction by the others by, and the variance of that.

    With C the covariance of all runs and d what they miss the law by, run i misses its prediction by
    (C⁻¹d)ᵢ/(C⁻¹)ᵢᵢ, of variance 1/(C⁻¹)ᵢᵢ (Rasmussen and Williams 2006, eq. 5.12). With the covariances N of
    the runs of a unit, S of the estimates of a curve, and B, its block of the inverse of that of all
    estimates, (C⁻¹)ᵢᵢ is that of N⁻¹ − N⁻¹(S − SBS)N⁻¹.

    Args:
        rest: Runs minus the true errors' posterior means, NaN without a run, shape (curves, units, points).
        gain: N⁻¹, shape (curves, units, points, points).
        covariance: S, shape (curves, points, points).
        precision: B, of the same shape.
    """
    posterior = covariance - covariance @ precision @ covariance
    pull = (gain @ np.nan_to_num(rest)[..., None])[..., 0]
    own = np.einsum("cupp->cup", gain) - ((gain @ posterior[:, None]) * gain).sum(axis=-1)
    own = np.where(np.isfinite(rest), own, np.nan)
    return pull / own, 1 / own


def as_normal(ratio: Floats, freedom: Floats) -> Floats:
    """Return the values of a normal distribution as improbable as those of Student's t (Wallace 1959)."""
    known = np.isinf(freedom)
    count = np.where(known, 1.0, freedom)
    found = np.sqrt(count * np.log1p(ratio**2 / count)) * (8 * count + 1) / (8 * count + 3)
    return np.where(known, ratio, np.copysign(found, ratio))


def chosen(miss: Floats, far: Floats, flagged: Mask, barred: Mask) -> Mask:
    """Return the flagged runs that still stand out, and the farthest other one of each curve that does.

    A run that stands out hides others of its curve, and makes them look as if they did.

    Args:
        miss: What runs miss their predictions by, NaN without a run, shape (curves, units, points).
        far: That in standard deviations of a normal distribution.
        flagged: Runs that are flagged so far.
        barred: Runs that were flagged and did not stand out then.
    """
    far = np.nan_to_num(np.abs(far))
    out = (far > FAR) & (np.abs(miss) > LEAST)
    fresh = np.where(out & ~flagged & ~barred, far, 0.0)
    farthest = (fresh == fresh.max(axis=(1, 2), keepdims=True)) & (fresh > 0)
    return np.asarray((flagged & out) | farthest)


def score(evidence: float, flagged: Mask, miss: Floats) -> float:
    """Return the ln evidence of a fit with the prior of its flagged runs: broken runs are worse."""
    return evidence - ODDS * float(np.where(miss[flagged] < 0, _TOO_GOOD, 1).sum())


def listed(
    errors: Floats, flagged: Mask, miss: Floats, deviation: Floats, far: Floats
) -> tuple[Outlying, ...]:
    """Return the flagged of some runs, of shape (curves, units, points), the farthest first."""
    runs = [
        Outlying(
            curve=at[0], point=at[2], error=float(errors[at]), miss=float(miss[at]),
            deviation=float(deviation[at]), far=float(far[at]),
        )
        for at in map(tuple, np.argwhere(flagged).tolist())
    ]  # fmt: skip
    return tuple(sorted(runs, key=lambda run: -abs(run.far)))
