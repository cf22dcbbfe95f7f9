"""Verdicts on a paper's claims: supported, contradicted or undecided by the results of any study.

A claim is a set of comparisons. Each is an effect in points of error, with a standard deviation, that
supports the claim when it is not negative. A claim is ``supported`` if more than half of the effects are
positive outside the noise, ``contradicted`` if more than half are negative outside the noise, ``undecided``
otherwise, and ``not testable`` without comparisons. The reason counts the comparisons and names those against
the verdict.
"""

from dataclasses import dataclass
from math import isnan
from typing import Literal, cast

import numpy as np
import pandas as pd

from analysis.cells.intervals import COVERAGE, QUANTILE
from analysis.claims.data_claims import DATA
from analysis.claims.model_claims import MODELS
from analysis.claims.robustness_claims import ROBUSTNESS
from analysis.claims.slice import Claim, Effect
from analysis.claims.strategy_claims import STRATEGIES
from budgets.quantity import plural

CLAIMS = tuple(sorted((*DATA, *MODELS, *ROBUSTNESS, *STRATEGIES), key=lambda claim: claim.name))
"""Claims of "Scaling (Down) CLIP" (Li et al. 2024, arXiv 2404.08197), in the order of the paper.

Ids, wording and thresholds follow ``results/paper/claims.csv``. Sizes are the paper's own: a claim about
sizes that a study does not have is not testable there. A claim whose parts differ in their verdict on the
paper's own figures is judged part by part.
"""

ClaimVerdict = Literal["supported", "contradicted", "undecided", "not testable"]

_HALF = 0.5
_ROUNDING = 1e-9
_NAMED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The verdict on one claim.

    Attributes:
        claim: The claim.
        verdict: The verdict, see the module.
        supporting: Number of comparisons that support the claim.
        tested: Number of comparisons.
        effect: Mean effect in points; NaN without comparisons.
        low: Lower end of the interval of ``effect``; NaN if the noise was not measured.
        high: Upper end of the interval.
        reason: The verdict in one sentence.
    """

    claim: Claim
    verdict: ClaimVerdict
    supporting: int
    tested: int
    effect: float
    low: float
    high: float
    reason: str


def judge(claim: Claim, frame: pd.DataFrame, *, by_counts: bool = False) -> Finding:
    """Judge one claim on a frame of `claim_frame`.

    Args:
        claim: The claim.
        frame: The measurements.
        by_counts: Count effects by their sign, whatever their noise. For results without seeds, such as the
            paper's, whose only known noise is the reading error.
    """
    found = claim.compare(frame)
    if not found:
        nan = float("nan")
        return Finding(
            claim=claim, verdict="not testable", supporting=0, tested=0, effect=nan, low=nan, high=nan,
            reason="the results do not contain such a comparison",
        )  # fmt: skip
    effect, sd = np.array([one.value for one in found]), np.array([one.sd for one in found])
    supporting = int((effect >= -_ROUNDING).sum())
    mean, spread = float(effect.mean()), float(np.sqrt(np.square(sd).sum()) / len(sd))
    verdict, reason = _verdict(found, by_counts=by_counts)
    return Finding(
        claim=claim, verdict=verdict, supporting=supporting, tested=len(found), effect=mean,
        low=mean - QUANTILE * spread, high=mean + QUANTILE * spread, reason=reason,
    )  # fmt: skip


def findings(frame: pd.DataFrame, *, by_counts: bool = False) -> tuple[Finding, ...]:
    """Judge every claim on a frame; see `judge`."""
    return tuple(judge(claim, frame, by_counts=by_counts) for claim in CLAIMS)


def _verdict(found: list[Effect], *, by_counts: bool) -> tuple[ClaimVerdict, str]:
    support = [one for one in found if one.value >= -_ROUNDING]
    against = [one for one in found if one.value < -_ROUNDING]
    counts = f"{len(support)} of {plural(len(found), 'comparison')} in support"
    if not by_counts and any(isnan(one.sd) for one in found):
        return "undecided", f"{counts}, but the noise between seeds was not measured"
    for verdict, those, others, word in (
        ("supported", support, against, "not"), ("contradicted", against, support, "only"),
    ):  # fmt: skip
        clear = [one for one in those if by_counts or abs(one.value) > QUANTILE * one.sd]
        if len(clear) > _HALF * len(found):
            return cast("ClaimVerdict", verdict), counts + (
                f"; {word} at {_places(others)}" if others else ""
            )
    clear = [one for one in found if by_counts or abs(one.value) > QUANTILE * one.sd]
    return "undecided", f"{counts}; {len(clear)} of all {len(found)} outside the {COVERAGE:.0%} noise"


def _places(found: list[Effect]) -> str:
    names = list(dict.fromkeys(one.at for one in found))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more
