"""Questions of an adaptive study, the answers that a belief gives so far, and the gains of further runs.

A configuration is dropped where it is within the indifference of the best in fewer than ``HOPELESS`` of the
draws. These hold every law that its runs leave plausible, also the one that falls fastest. Nothing is
dropped for good: each decision draws again.

The belief is given as joint draws of the true errors; curves are independent. Let t be the error that a
question is about, and y the mean of the further runs of one cell. A linear regression of t on y over the
draws, with t and y taken as normal, gives the distribution of t after each result y.

* ``best``: naming configuration k is right if no other is lower by more than the indifference. The
  probability that the curve of the run is right is a function of t alone, and so is that of each of the
  likeliest other curves; all draws estimate these functions. The gain is the mean over y of the largest
  probability, minus the largest mean probability: the drop in the probability of naming a wrong best (the
  knowledge gradient, Frazier et al. 2008). It is zero if no single run can unseat the leader. The gain is
  then the drop in p(1 − p), where p is the probability that the leader is right; this is the variance of p
  over y.
* ``forecast``: the share of the variance of the forecast that the run would remove, Cov²/(Var y · Var
  forecast).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.belief.family import Family, families
from analysis.belief.verdict import CLEAR, NEAR, VerdictKind, apart_text, judge, shares
from analysis.cells.intervals import interval
from analysis.cells.pareto import same_cost
from analysis.cells.table import Trials
from analysis.error_unit import ErrorUnit

HOPELESS = 0.005
_LEADERS = 3
_TABLE = 65
_UNLIKELY = 1e-3
# Quadrature over y, in standard deviations. Its nodes reach far out, because only an extreme result lets a
# doubtful configuration win.
_OUTCOMES = np.linspace(-3.2, 3.2, 17)
_WEIGHTS = np.exp(-(_OUTCOMES**2) / 2) / np.exp(-(_OUTCOMES**2) / 2).sum()
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(5)  # quadrature over t given y


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """The questions of an adaptive study.

    Attributes:
        best: Computes of the questions about the best; every level of the grid if empty; None for no
            question.
        indifference: Difference in error that counts as a tie.
        forecast: Compute at which the error of the best is to be forecast; None without a forecast.
        width: Half-width of the 90 % interval at which the forecast counts as answered.
        confidence: Probability at which a question counts as answered.
    """

    best: Sequence[float] | None = ()
    indifference: float = 0.01
    forecast: float | None = None
    width: float = 0.02
    confidence: float = CLEAR


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to one question so far.

    Attributes:
        regime: Regime of the compared configurations.
        flops: Compute of the question.
        leader: Configuration that is most probably the best.
        probability: Probability that it is the best.
        right: Probability that no other is lower by more than the indifference.
        error: Median of its true error.
        low: Lower end of its 90 % interval.
        high: Upper end of its 90 % interval.
        runs: Its runs at the compute of the question.
        verdict: Kind of the verdict, see ``analysis.belief.verdict``.
        distance: How far the leader is from its own runs, see ``Family.distance``.
        tied: Configurations that together are the best with probability ``confidence``, the leader first.
        chances: Probability of each of these that it is the best.
        dropped: Configurations that can no longer reach the best, the most probable first.
        returns: Probability of each of these that it is the best nevertheless.
        settled: True if the question is answered.
        apart: Configurations that lost runs, see ``Verdict.apart``.
        by_trunk: True if its runs are trunk states alone.
        unlearned: Why trunk states don't count as runs, if some tied with it have no run, see `Family`.
        kind: ``best`` or ``forecast``.
    """

    regime: str
    flops: float
    leader: str
    probability: float
    right: float
    error: float
    low: float
    high: float
    runs: int
    verdict: VerdictKind
    distance: float
    tied: tuple[str, ...]
    chances: tuple[float, ...]
    dropped: tuple[str, ...]
    returns: tuple[float, ...]
    settled: bool
    apart: str = ""
    by_trunk: bool = False
    unlearned: str = ""
    kind: Literal["best", "forecast"] = "best"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """An open question.

    Attributes:
        errors: Draws of all curves' errors at its compute, shape (draws, curves), infinite for curves that
            do not take part.
        place: Cell that each curve is read at, -1 if none.
        indifference: NaN for a forecast.
    """

    errors: Floats
    place: Indices
    indifference: float


def computes(family: Family, best: Sequence[float] | None) -> list[float]:
    """Return the computes at which a family is asked for the best, see ``Ask``.

    These are the levels of fixed compute; elsewhere the given ones, or those of all cells.
    """
    levels = np.unique(family.levels[np.isfinite(family.levels)])
    if best is None:
        return []
    if family.regime == "fixed-compute":
        return [one for one in levels.tolist() if not best or same_cost(np.array(best), one).any()]
    return sorted(best) if best else levels.tolist()


def answers_to(trials: Trials, grid: pd.DataFrame, ask: Ask) -> list[Answer]:
    """Return the answers from the results so far and a grid with the columns of a plan."""
    unit = ErrorUnit.of(trials.metric)
    return [
        answer
        for family in families(trials, grid).values()
        if family.measured.runs.any()
        for answer in answers_of(family, ask, unit)[0]
    ]


def answers_of(family: Family, ask: Ask, unit: ErrorUnit) -> tuple[list[Answer], list[Goal]]:
    """Return the answers, and the open questions."""
    answers, goals = [], []
    questions = [(flops, False) for flops in computes(family, ask.best)]
    for flops, forecast in [*questions, *([] if ask.forecast is None else [(ask.forecast, True)])]:
        values, place = family.at(flops)
        if not np.isfinite(values).any():  # the regime has no cell there
            continue
        runs, lost = family.runs(place), family.apart(flops, place)
        ranking = np.where([bool(text) for text in lost], np.inf, values)
        # No further runs at a cell that lost some: it would not be ranked after them either.
        open_ = np.where([cell in family.lost for cell in enumerate(place.tolist())], np.inf, values)
        if not np.isfinite(ranking).any():
            answers.append(_nothing(family, flops, lost, forecast=forecast))
            if np.isfinite(open_).any():
                indifference = np.nan if forecast else ask.indifference
                goals.append(Goal(errors=open_, place=place, indifference=indifference))
            continue
        distance = family.distance(flops)
        verdict = judge(
            values, family.names, distance=distance, lost=lost, confidence=ask.confidence, unit=unit
        )
        if family.source == "none":
            verdict = replace(verdict, kind="undecided")
        within = shares(values, ask.indifference)
        near = not verdict.gap > ask.indifference
        lowest = ranking.min(axis=1) if forecast else values[:, verdict.leader]
        low, high = interval(lowest)
        settled = verdict.kind == "clear" or bool(
            near and within[verdict.leader] >= ask.confidence and verdict.distance <= NEAR
        )
        if forecast:
            settled = (high - low) / 2 <= ask.width
        settled = settled and family.source != "none"
        dropped = [one for one in np.argsort(-verdict.probability, kind="stable") if within[one] < HOPELESS]
        answers.append(Answer(
            regime=family.regime, flops=flops, leader=family.names[verdict.leader],
            probability=float(verdict.probability[verdict.leader]), right=float(within[verdict.leader]),
            error=float(np.median(lowest)), low=low, high=high, runs=int(runs[verdict.leader]),
            verdict=verdict.kind, distance=verdict.distance,
            tied=tuple(family.names[curve] for curve in verdict.members),
            chances=tuple(verdict.probability[[*verdict.members]].tolist()),
            dropped=tuple(family.names[curve] for curve in dropped),
            returns=tuple(verdict.probability[dropped].tolist()),
            settled=settled, apart=verdict.apart, kind="forecast" if forecast else "best",
            by_trunk=bool(family.by_trunk(place)[verdict.leader]),
            unlearned="" if runs[[*verdict.members]].all() else family.unlearned,
        ))  # fmt: skip
        if not settled:
            # If the next one is close, runs decide whether the leader is within the indifference; otherwise
            # they decide which is the best.
            indifference = np.nan if forecast else ask.indifference if near else 0.0
            goals.append(Goal(errors=open_, place=place, indifference=indifference))
    return answers, goals


def _nothing(family: Family, flops: float, lost: Sequence[str], *, forecast: bool) -> Answer:
    """Return the answer where all that can be read lost runs."""
    return Answer(
        regime=family.regime, flops=flops, leader="nothing can be ranked", probability=0.0, right=0.0,
        error=np.nan, low=np.nan, high=np.nan, runs=0, verdict="undecided", distance=np.inf, tied=(),
        chances=(), dropped=(), returns=(), settled=False, apart=apart_text(family.names, lost),
        kind="forecast" if forecast else "best",
    )  # fmt: skip


def best_gains(  # noqa: PLR0913 (a belief, options and what counts)
    values: Floats, draws: Floats, variance: Floats, curve: Indices, point: Indices, *, indifference: float
) -> Floats:  # fmt: skip
    """Return the drop in the probability of naming a wrong best that each option brings.

    Args:
        values: Draws of the error at the compute of the question, shape (draws, curves), infinite for curves
            that do not take part.
        draws: Draws of the errors of all points, shape (draws, curves, points).
        variance: Variance of the mean of the runs of each option, shape (options,).
        curve: Curve of each option.
        point: Point of each option.
        indifference: Difference in error that does not matter.
    """
    gains = np.zeros(len(curve))
    count = values.shape[1]
    likely = shares(values, indifference)
    leaders = np.argsort(-likely, kind="stable")[:_LEADERS]
    first = values.argmin(axis=1)
    lowest = values.min(axis=1)
    second = np.partition(values, 1, axis=1)[:, 1] if count > 1 else np.full(len(values), np.inf)
    for candidate in np.unique(curve):
        if likely[candidate] < _UNLIKELY or not np.isfinite(values[0, candidate]):
            continue
        others = np.where(first == candidate, second, lowest)
        options = np.flatnonzero(curve == candidate)
        target = _trimmed(values[:, candidate])
        # Each function is tabulated at quantiles of t. The curve itself is right if the lowest other is not
        # below t − indifference.
        table = np.quantile(target, np.linspace(0, 1, _TABLE))
        functions = [1 - np.searchsorted(np.sort(others), table - indifference) / len(others)]
        for leader in leaders[leaders != candidate]:
            error = values[:, leader]
            # Another is right if it is within the indifference of the lowest other and of t.
            error = np.sort(error[error <= others + indifference])
            functions.append(np.searchsorted(error - indifference, table, side="right") / len(others))
        slope, left = _regress(target, draws[:, candidate, :][:, point[options]], variance[options])
        # E[t | y] at each outcome y, and t around it: shapes (options, outcomes) and (…, nodes).
        posterior_mean = target.mean() + slope[:, None] * _OUTCOMES
        at = posterior_mean[..., None] + left[:, None, None] * _NODES
        # P(right | y) of each candidate, shape (candidates, options, outcomes).
        right_after = np.array([np.interp(at, table, one) @ _SHARES for one in functions]) / _SHARES.sum()
        mean = right_after @ _WEIGHTS
        # The leader is the curve itself, or else the first of the others, which are in order of probability.
        lead = right_after[0 if candidate == leaders[0] else 1]
        doubt = (lead - (lead @ _WEIGHTS)[:, None]) ** 2 @ _WEIGHTS
        gains[options] = np.maximum(right_after.max(axis=0) @ _WEIGHTS - mean.max(axis=0), doubt)
    return gains


def forecast_gains(
    forecast: Floats, draws: Floats, variance: Floats, curve: Indices, point: Indices
) -> Floats:
    """Return the share of the variance of a forecast, shape (draws,), that each option would remove.

    The other arguments are those of ``best_gains``.
    """
    target = _trimmed(forecast)
    target = target - target.mean()
    spread = float(target.var())
    if spread == 0:
        return np.zeros(len(curve))
    cells = _trimmed(draws)
    cells = cells - cells.mean(axis=0)
    covariance = np.einsum("s,scp->cp", target, cells) / len(target)
    # Cov²/(Var y · Var t). Chance correlations over n draws have a mean square of 1/n: four times that is
    # subtracted, so that cells unrelated to the forecast gain nothing.
    squared = covariance[curve, point] ** 2 / (cells.var(axis=0)[curve, point] + variance) / spread
    return np.asarray(np.maximum(squared - 4 / len(target), 0.0), dtype=np.float64)


def settle(draws: Floats, curve: int, point: int, variance: float, generator: np.random.Generator) -> None:
    """Narrow the draws of a curve, in place, by a run whose result equals its expectation.

    Each draw gets a simulated result y. The regression of the curve on y is subtracted, which leaves the
    posterior spread of the curve around an unchanged mean (Matheron).
    """
    cell = draws[:, curve, point]
    result = cell + np.sqrt(variance) * generator.standard_normal(len(cell))
    off = _trimmed(result) - result.mean()
    centred = draws[:, curve] - draws[:, curve].mean(axis=0)
    draws[:, curve] -= np.outer(off, off @ centred / max(float(off @ off), 1e-300))


def _regress(target: Floats, cells: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return the slope of t per standard deviation of each y, and the standard deviation of t given y."""
    cells = _trimmed(cells)
    deviation = np.sqrt(cells.var(axis=0) + variance)
    slope = (target - target.mean()) @ (cells - cells.mean(axis=0)) / len(target) / deviation
    return slope, np.sqrt(np.maximum(target.var() - slope**2, 1e-12))


def _trimmed(values: Floats) -> Floats:
    """Return draws, along the first axis, clipped to their central 99 %: far ones do not set a variance."""
    return np.clip(values, *np.quantile(values, (0.005, 0.995), axis=0))
