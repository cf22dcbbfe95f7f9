"""The configuration to train for a compute and a data budget.

The verdict on the `options.Options` is that of the report, and the run that would decide or confirm it is
named with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.best import cheaper_text
from analysis.answers.least_compute import LeastCompute, least_compute
from analysis.answers.options import Asked, read_options, smallest_pool
from analysis.arrays import Floats, Mask
from analysis.belief.cell_draws import CellDraws
from analysis.belief.verdict import CLEAR, LEADS, MATTERS, Verdict, judge
from analysis.cells.intervals import column_intervals
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import CONFIGURATION, records
from analysis.error_unit import ErrorUnit
from analysis.labels import configuration_text, with_regime
from budgets.cost.serving import Served
from budgets.declaration.sections import FARTHEST
from budgets.quantity import format_flops, format_number, format_share, plural

_NAMED = 3  # reasons in an error
_WHOLE = 100
_LATER = (2.0, 4.0, 8.0, 16.0)
_MOST_SEEDS, _POWER = 30, 0.8
_SHOWN = NormalDist().inv_cdf(CLEAR) + NormalDist().inv_cdf(_POWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The configuration to train, and how sure that is.

    Attributes:
        candidates: One row per configuration that fits, the most probable one first: ``name`` (in words),
            ``regime``, the columns of ``CONFIGURATION``, ``flops`` (of training), ``serving_flops``,
            ``error`` (median of the draws) with ``low`` and ``high``, ``probability`` of being the best,
            ``measured`` (whether it was run there), ``by_trunk`` (whether it is read from its trunk state
            there), ``sizes`` (those that it was read from, in words, if not its own), ``pool`` (pairs that
            its pool must have), ``distance`` (from its own runs, see ``Family.distance``), ``share`` (of the
            budget for training that it spends), ``uses_up`` (whether one epoch of the data ends before the
            budget does), ``epochs``, ``own_epochs`` (most of its own runs) and ``most_epochs`` (of all runs
            of its regime).
        verdict: Verdict on the candidates, by their places.
        left_out: Configurations that take no part: ``curve``, ``reason``.
        pool: Pairs of the largest measured pool.
        better: Best configuration on the next larger pool that allows a lower error, as a row of
            ``candidates``; None without one.
        cheaper: Which measured cell is lower at a lower cost; empty without one.
        experiment: The run that would decide or confirm the choice.
        explanation: Source of the intervals.
        unlearned: Why trunk states don't count as runs, see `Family.unlearned`.
        flops: Training FLOPs of one trial, as asked, or the least that reach the error that was asked for.
        pairs: Pairs of the pool before filtering, as asked.
        error_unit: Unit of the errors.
        later: Compute from which on a candidate that holds less than ``MATTERS`` could hold more, and its
            name; None within ``_LATER`` times the budget.
        least: The least compute that reaches the error, if that was asked for.
    """

    candidates: pd.DataFrame
    verdict: Verdict
    left_out: pd.DataFrame
    pool: float
    better: Mapping[str, Any] | None
    cheaper: str
    experiment: str
    explanation: str
    unlearned: str
    flops: float
    pairs: float
    error_unit: ErrorUnit
    later: tuple[float, str] | None
    least: LeastCompute | None


def recommend(  # noqa: PLR0913 - what is asked
    draws: CellDraws, *, pairs: float, flops: float | None = None, error: float | None = None,
    limit: float = FARTHEST, serving: Mapping[str, Served] | None = None,
) -> Recommendation:  # fmt: skip
    """Recommend a configuration for a pool's pairs before filtering, and a trial's FLOPs or its error.

    Args:
        draws: The cells and families of a study.
        pairs: Pairs in the pool before filtering; the top 20 % are a fifth of them.
        flops: Training FLOPs of one trial.
        error: The error to reach with the least compute, in place of FLOPs: a fraction, or a loss.
        limit: Largest factor of extrapolation beyond the measured compute of a regime.
        serving: What architectures cost over their life when they serve, or why they can't, by name; the
            FLOPs are then those of training and serving together.

    Raises:
        ValueError: A number is below 1, no configuration can be read at the budget or reaches the error, or
            not just one of FLOPs and error is given.
    """
    if (flops is None) == (error is None):
        raise ValueError("give either the flops of a trial or the error to reach, not both or neither")
    for name, value in (("flops", flops), ("pairs", pairs), ("limit", limit)):
        if value is not None and not value >= 1:
            raise ValueError(f"{name} must be at least 1; found {value:g}")
    pairs = float(pairs)  # NumPy has no integers beyond 9e18
    asked = Asked(flops=float(flops or 0), pairs=pairs, limit=limit, serving=serving or {})
    least = None if error is None else least_compute(draws, error, asked)
    if least is not None:
        asked = replace(asked, flops=least.flops)
    options = read_options(draws, asked)
    unlearned = "; ".join(filter(None, (family.unlearned for family in draws.families.values())))
    if options.empty:
        why = [f"{row['curve']}: {row['reason']}" for row in options.left_out]
        more = f"; and {len(why) - _NAMED} more" if len(why) > _NAMED else ""
        if pools := [row["pool"] for row in options.too_large]:
            more += f"; the smallest pool that holds one has {min(pools):,} pairs"
        raise ValueError(
            f"no configuration can be read at {format_flops(asked.flops)}: "
            f"{'; '.join(why[:_NAMED]) or unlearned or 'nothing was measured'}{more}"
        )
    rows, values, middle = options.rows, options.draws, options.middle
    several = len({row["regime"] for row in rows}) > 1
    names = [with_regime(configuration_text(row), row["regime"], named=several) for row in rows]
    verdict = judge(
        values, names, distance=_column(rows, "distance"), lost=[row["lost"] for row in rows],
        measured=middle, unit=draws.error_unit, confidence=draws.confidence,
    )  # fmt: skip
    if verdict.runner_up is None and not verdict.apart:
        of = f"only one of {plural(1 + len(options.left_out), 'configuration')} fits"
        alone = of if options.left_out else "there is only one configuration"
        verdict = replace(verdict, reason=f"{alone}, so there is nothing to compare it with")
    low, high = column_intervals(values)
    candidates = pd.DataFrame(rows).assign(
        name=names, error=middle, low=low, high=high, probability=verdict.probability
    )
    candidates = candidates[candidates.pop("lost") == ""]
    best_first = records(candidates)
    held = np.array(list(map(smallest_pool, draws.column("subset_size").tolist(), draws.cells["quality"])))
    comparable = (held <= np.ceil(pairs)) & ~_costlier(draws, asked, best_first[0])
    cheaper = cheaper_text(
        draws.take(np.flatnonzero(comparable)), best_first[0]["flops"],
        values[:, 0] if draws.known else middle[:1],
    )  # fmt: skip
    experiment = _next_experiment(draws, best_first, verdict)
    if cheaper and verdict.kind in LEADS:
        name, at = best_first[0]["name"], _where(best_first[0])
        verdict = replace(verdict, kind="undecided", reason=f"{verdict.reason}, but {cheaper}")
        experiment = f"run {name} at {at}, or take the cheaper one"
    return Recommendation(
        candidates=candidates, verdict=verdict, experiment=experiment, explanation=draws.explanation,
        left_out=pd.DataFrame(options.left_out, columns=["curve", "reason"]),
        pool=float(held.max()), better=_better(options.too_large, float(middle[0])), cheaper=cheaper,
        unlearned=unlearned, flops=asked.flops, pairs=pairs, error_unit=draws.error_unit,
        later=_later(draws, best_first, asked), least=least,
    )  # fmt: skip


def _costlier(draws: CellDraws, asked: Asked, leader: Mapping[str, Any]) -> Mask:
    """Return which cells can't be deployed, or cost more than a leader when they serve."""
    served = [asked.serving.get(name, Served()) for name in draws.cells["architecture"]]
    return np.array([bool(one.why_not) or one.flops > leader["serving_flops"] for one in served], dtype=bool)


def _later(draws: CellDraws, rows: Sequence[Mapping[str, Any]], asked: Asked) -> tuple[float, str] | None:
    """Return the compute at which one that does not matter now does, and its name; None if none does."""
    now = {_one(row) for row in rows if row["probability"] < MATTERS}
    for times in _LATER if now else ():
        options = read_options(draws, replace(asked, flops=asked.flops * times))
        if options.empty:
            break
        matter = [place for place, row in enumerate(options.rows) if _one(row) in now]
        if matter and max(options.chance[matter]) >= MATTERS:
            row = options.rows[max(matter, key=lambda place: float(options.chance[place]))]
            return asked.flops * times, configuration_text(row)
    return None


def _one(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what stays of a configuration at another compute."""
    size = 0.0 if row["regime"] == "one-epoch" else row["subset_size"]
    return row["regime"], size, *(row[name] for name in CONFIGURATION[1:])


def _next_experiment(  # noqa: PLR0911 - an experiment for each case
    draws: CellDraws, rows: Sequence[Mapping[str, Any]], verdict: Verdict
) -> str:
    """Return what to run next: the leader, or leader and next one with enough seeds to resolve their gap."""
    first = rows[0]
    where = _where(first)
    if len(verdict.members) == 1 and verdict.apart and verdict.probability[0] < draws.confidence:
        return f"find why runs were lost: {verdict.apart}"
    if verdict.runner_up is None:
        return f"run one more configuration at {where}"
    if verdict.kind in LEADS and first["measured"]:
        return "nothing to run: it was measured and leads by more than the noise"
    if len(verdict.members) == 1 and not first["measured"] and draws.known:
        return f"{'to confirm, ' if verdict.kind in LEADS else ''}run {first['name']} at {where}"
    second, unit = rows[verdict.runner_up], draws.error_unit
    at = [_where(row) for row in (first, second)]
    both = f"{first['name']}{'' if at[0] == at[1] else ' at ' + at[0]} and {second['name']} at {at[1]}"
    if draws.source != "runs":
        return f"run {both} with three seeds each: the noise between seeds was not measured"
    noise = float(np.hypot(first["noise"], second["noise"]) / np.sqrt(2))
    # The difference of two means varies by √(2/seeds)·noise. The gap shows with probability ``_POWER`` if it
    # exceeds that by the quantiles of the verdict and of the power.
    gap = abs(verdict.gap)
    seeds = int(np.ceil(2 * (_SHOWN * noise / max(gap, 1e-12)) ** 2))
    if seeds > _MOST_SEEDS:
        small, which = unit.gap(gap, fine=True), "either" if at[0] == at[1] else "the cheaper"
        if not (first["measured"] and second["measured"]):
            return f"run {both} with two seeds each: the gap of {small} is a forecast"
        return (
            f"take {which} of {both}: to see a gap of {small} above a noise of "
            f"{unit.number(noise, fine=True)} needs more than {_MOST_SEEDS} seeds each"
        )
    there = max(row["runs"] if row["measured"] else 0 for row in (first, second))
    tied = len(verdict.members) - 2
    others = f"; {plural(tied, 'other')} {'is' if tied == 1 else 'are'} tied as well" if tied > 0 else ""
    return (
        f"run {both} until each has {plural(max(seeds, there + 1, 2), 'seed')}: enough to see a gap of "
        f"{unit.gap(gap)} in {format_share(_POWER)} of cases{others}"
    )


def _where(row: Mapping[str, Any]) -> str:
    """Return the compute that a configuration spends: the budget, up to the rounding to whole batches."""
    whole = row["share"] >= 1 / SAME_COST
    return format_flops(row["flops"] / row["share"] if whole else row["flops"])


def times_text(epochs: float) -> str:
    """Return how often pairs are seen: ``3.7 times``; ``2,050 times``."""
    return f"{format_number(epochs, ',.0f' if epochs >= _WHOLE else ',.1f')} times"


def _better(too_large: Sequence[Mapping[str, Any]], lowest: float) -> Mapping[str, Any] | None:
    better = [row for row in too_large if row["error"] < lowest]
    next_larger = min((row["pool"] for row in better), default=0) * SAME_COST
    near = [row for row in better if row["pool"] <= next_larger]
    return min(near, key=lambda row: float(row["error"]), default=None)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)
