"""A paper's claims as statements that any study's results support, contradict or leave undecided.

A claim is a number of comparisons, each an effect that must not be negative (in points of error) with its
standard deviation. It is ``supported`` when every comparison is, ``supported in part`` when at least half
are, ``contradicted`` otherwise; ``undecided`` when the noise hides more than half of them, ``not testable``
when the results hold none.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.claims.all import CLAIMS
from analysis.claims.slice import Claim
from analysis.intervals import COVERAGE
from analysis.labels import plural

Verdict = Literal["supported", "supported in part", "contradicted", "undecided", "not testable"]

_QUANTILE = 1.6448536269514722
_HALF = 0.5
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One claim, judged.

    Attributes:
        claim: What was claimed.
        verdict: See the module.
        supporting: Comparisons that support it.
        tested: Comparisons in all.
        effect: Mean effect of the comparisons in points, NaN when there are none.
        low: Lower end of its interval; NaN without a measured noise.
        high: Upper end.
        reason: The verdict in one sentence.
    """

    claim: Claim
    verdict: Verdict
    supporting: int
    tested: int
    effect: float
    low: float
    high: float
    reason: str


def judge(claim: Claim, frame: pd.DataFrame, *, by_counts: bool = False) -> Finding:
    """Holds one claim against a frame of `statement_frame`.

    Args:
        claim: What is claimed.
        frame: The measurements.
        by_counts: Judge by the comparisons as they stand. That is all that can be said where no seeds were
            run, as in the paper: the interval is then the reading error alone, and hides no comparison.
    """
    found = claim.compare(frame)
    if not found:
        nan = float("nan")
        return Finding(
            claim=claim, verdict="not testable", supporting=0, tested=0, effect=nan, low=nan, high=nan,
            reason="the results hold no such comparison",
        )  # fmt: skip
    effect, sd = np.array([one.value for one in found]), np.array([one.sd for one in found])
    supporting = int((effect >= -_ROUNDING).sum())
    mean, spread = float(effect.mean()), float(np.sqrt(np.square(sd).sum()) / len(sd))
    verdict, reason = _verdict(effect, sd, supporting, by_counts=by_counts)
    return Finding(
        claim=claim, verdict=verdict, supporting=supporting, tested=len(found), effect=mean,
        low=mean - _QUANTILE * spread, high=mean + _QUANTILE * spread, reason=reason,
    )  # fmt: skip


def findings(frame: pd.DataFrame, *, by_counts: bool = False) -> tuple[Finding, ...]:
    """Holds every claim against a frame; see `judge`."""
    return tuple(judge(claim, frame, by_counts=by_counts) for claim in CLAIMS)


def _verdict(
    effect: NDArray[np.float64], sd: NDArray[np.float64], supporting: int, *, by_counts: bool
) -> tuple[Verdict, str]:
    counts = f"{supporting} of {plural(len(effect), 'comparison')} in support"
    if np.isnan(sd).any() and not by_counts:
        return "undecided", f"{counts}, but the noise between seeds was not measured"
    clear = float((np.abs(effect) > _QUANTILE * sd).mean())
    if clear < _HALF and not by_counts:
        return "undecided", f"{counts}, but only {clear:.0%} of them are outside the {COVERAGE:.0%} noise"
    if supporting == len(effect):
        return "supported", counts
    return ("supported in part" if supporting >= _HALF * len(effect) else "contradicted"), counts
