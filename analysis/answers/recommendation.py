"""The configuration to train for a compute and a data budget.

Every configuration is read at the budget, see ``candidates``, and the best of those that fit is chosen. The
run that would decide or confirm the choice is named with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.candidates import (
    Reading,
    candidate_columns,
    every_candidate,
    read_at,
    read_by_surfaces,
    smallest_pool,
    usable_flops,
)
from analysis.answers.choice import CLEAR, Choice, and_more, choose, lost_text, of_measured
from analysis.answers.frontier import cells_of, may_lead
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import Curve
from analysis.cells.intervals import column_intervals
from analysis.cells.pareto import SAME_COST, costs, same_cost
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.labels import configuration_text, with_regime
from analysis.laws.holdout import Holdout
from analysis.laws.laws import Law
from budgets.declaration.sections import FARTHEST
from budgets.quantity import format_flops, plural

_NAMED = 3  # reasons in an error
_MOST_SEEDS = 30
_POWER = 0.8
_SHOWN = NormalDist().inv_cdf((1 + CLEAR) / 2) + NormalDist().inv_cdf(_POWER)
_REPEATED, _TIMES = 4.0, 2.0  # epochs that cost little (arXiv 2305.16264), and times beyond those measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The configuration to train, and how sure that is.

    Attributes:
        candidates: One row per configuration that fits, by rising error: ``name`` (in words), ``regime``,
            ``architecture``, ``strategy``, ``quality``, ``subset_size``, ``flops`` (spent), ``error`` with
            ``low`` and ``high``, ``probability`` of being the best, ``read`` (source of the error),
            ``measured``, ``pool`` (pairs that its pool must have), ``factor`` (compute over its largest
            measured compute), ``beyond`` (whether that is an extrapolation), ``share`` (of the budget that it
            spends), ``uses_up`` (whether one epoch of the data ends before the budget does), ``law`` that it
            was read by with ``law_error`` (its held-out error, a fraction) and ``law_reason``; these are
            empty if it was measured; ``epochs``, and ``most_epochs`` (of its measured cells).
        choice: Choice among the candidates.
        left_out: Configurations that were not read: ``curve``, ``reason``.
        pool: Pairs of the largest measured pool.
        better: Best configuration on the next larger pool that allows a lower error, as a row of
            ``candidates``; None without one.
        experiment: The run that would decide or confirm the choice.
        explanation: Source of the intervals.
    """

    candidates: pd.DataFrame
    choice: Choice
    left_out: pd.DataFrame
    pool: float
    better: Mapping[str, Any] | None
    experiment: str
    explanation: str


def recommend(  # noqa: PLR0913 (a study's analysis, and two budgets)
    draws: CellDraws,
    laws: tuple[Law, ...],
    held: Holdout,
    *,
    flops: float,
    pairs: float,
    limit: float = FARTHEST,
    plan: pd.DataFrame | None = None,
    lost: pd.DataFrame | None = None,
    measured: CellDraws | None = None,
) -> Recommendation:
    """Recommend a configuration for a trial's FLOPs and a pool's pairs before filtering.

    Args:
        draws: Cells that the laws were fitted to.
        laws: Laws of the curves; those along compute are read.
        held: Held-out forecasts of the laws.
        flops: Training FLOPs of one trial.
        pairs: Pairs in the pool before filtering; the top 20 % are a fifth of them.
        limit: Largest factor of extrapolation.
        plan: Plan from ``study_frames.with_budgets``, with a column ``chosen``, False for trials that an
            adaptive design left out. Nothing is clear while configurations that bear on the answer, or chosen
            seeds of the best one, have no result. By default all planned trials have ended.
        lost: Cells from ``study_frames.lost_cells``: a configuration is not recommended at a compute at
            which, or on the way to which, all of its runs were lost. By default there are none.
        measured: The same cells with the draws of the report, which decide where all candidates were
            measured; by default those of ``draws``.

    Raises:
        ValueError: No configuration can be read within the limit.
    """
    fitting: list[tuple[dict[str, Any], Reading]] = []
    far: list[tuple[dict[str, Any], Reading]] = []
    too_large: list[tuple[dict[str, Any], Reading]] = []
    left_out: list[dict[str, str]] = []
    gone = _lost_at(lost, flops, pairs)
    found = every_candidate(draws, laws)
    spent = np.array([usable_flops(draws, one, flops, pairs) for one in found])
    surfaces = read_by_surfaces(draws, found, held, spent)
    for one, at, surface in zip(found, spent, surfaces, strict=True):
        reading = read_at(draws, one, surface, at=float(at), limit=limit)
        name = configuration_text(candidate_columns(draws, one, float(at)))
        if isinstance(reading, str):
            limit_of_pool = ", one epoch of the pool" if at < flops / SAME_COST else ""
            left_out.append({"curve": name, "reason": f"{reading}{limit_of_pool}"})
            continue
        row = _row(draws, one, reading, float(at), flops)
        if reason := _lost_before(row, lost):
            left_out.append({"curve": name, "reason": reason})
            gone.append(name)
            continue
        # In one epoch an unmeasured candidate is read at the compute that the pairs allow, so it always fits.
        # A measured one may have a few more pairs, as it may have a little more compute.
        bought = "subset_size" not in one.identity and (
            reading.cell is None or row["pool"] <= SAME_COST * pairs
        )
        if bought or row["pool"] <= np.ceil(pairs):
            (far if reading.far else fitting).append((row, reading))
            continue
        left_out.append({"curve": name, "reason": f"needs a pool of {row['pool']:,} pairs"})
        too_large.append((row, reading))
    # A cell far below the budget says little of the budget, unless it is lower than all that was read there.
    lowest = min((reading.error[0] for _, reading in fitting), default=-np.inf)
    unread = []
    for row, reading in far:
        if reading.error[0] < lowest:
            fitting.append((row, reading))
        else:
            unread.append(row)
            reason = f"measured budgets end more than {limit:g} times from this one"
            left_out.append({"curve": configuration_text(row), "reason": reason})
    if not fitting:
        why = [f"{row['curve']}: {row['reason']}" for row in left_out]
        more = f"; and {len(why) - _NAMED} more" if len(why) > _NAMED else ""
        raise ValueError(
            f"no curve can be forecast at {format_flops(flops)}: "
            f"{'; '.join(why[:_NAMED]) or 'nothing was measured'}{more}"
        )
    table = pd.DataFrame(left_out, columns=["curve", "reason"])
    chosen = _choose(draws, measured, fitting, too_large, table)
    chosen = _only_for_less(draws, _repeating(chosen), unread)
    if gone:
        names = list(dict.fromkeys(gone))
        chosen = _not_clear(chosen, f"; {lost_text(names)}", f"find why {and_more(names)} without a number")
    if plan is None or plan.empty:
        return chosen
    pools = [
        smallest_pool(size, name) for size, name in zip(plan["subset_size"], plan["quality"], strict=True)
    ]
    return _so_far(chosen, plan[np.array(pools) <= np.ceil(pairs)], flops)


def _repeating(chosen: Recommendation) -> Recommendation:
    """Return a recommendation that is not clear if it repeats its pairs far more often than was measured.

    Compute beyond the measured buys epochs, not pairs; what repeated pairs are worth depends on how often.
    """
    first = records(chosen.candidates)[0]
    if first["epochs"] <= max(_REPEATED, _TIMES * first["most_epochs"]) or first["measured"]:
        return chosen
    times = f"{first['epochs']:.3g} times, and was measured up to {first['most_epochs']:.3g}"
    return _not_clear(
        chosen,
        f", but it would see its pairs {times}",
        f"run {configuration_text(first)} at {format_flops(first['flops'])}",
    )


def _not_clear(chosen: Recommendation, reason: str, experiment: str) -> Recommendation:
    """Return a recommendation that is undecided for a further reason, if it was clear."""
    choice = chosen.choice
    if choice.verdict != "clear":
        return chosen
    choice = replace(choice, verdict="undecided", reason=f"{choice.reason}{reason}")
    return replace(chosen, choice=choice, experiment=experiment)


def _only_for_less(draws: CellDraws, chosen: Recommendation, unread: list[dict[str, Any]]) -> Recommendation:
    """Return a recommendation that is not clear if others have a single cell, at less compute.

    At a level of fixed compute this holds only for those that `may_lead`, as in `frontier`;
    elsewhere also if it is the recommended one that is read by its only cell.
    """
    first, *others = (*records(chosen.candidates), *unread)
    if first["regime"] != "fixed-compute":
        others = [first, *others]
    leader = cells_of(draws, first)
    short = [
        row
        for row in others
        if row["short"] and (not row["at_a_level"] or may_lead(draws, leader, cells_of(draws, row)))
    ]
    if not short:
        return chosen
    names = [configuration_text(row) for row in short]
    # One that was run at the compute of the recommended one already has to be run nearer to the budget.
    where = first["flops"] if short[0]["flops"] * SAME_COST < first["flops"] else short[0]["usable"]
    return _not_clear(
        chosen,
        f", but {and_more(names)} run at only one, lower compute",
        f"run {names[0]} at {format_flops(where)}",
    )


def _lost_at(lost: pd.DataFrame | None, flops: float, pairs: float) -> list[str]:
    """Return the configurations that lost all of their runs at a compute, of pools that fit."""
    if lost is None or lost.empty:
        return []
    return [
        configuration_text(cell)
        for cell in records(lost[same_cost(costs(lost), flops)])
        if smallest_pool(cell["subset_size"], cell["quality"]) <= np.ceil(pairs)
    ]


def _lost_before(row: dict[str, Any], lost: pd.DataFrame | None) -> str:
    """Return that all runs of a configuration were lost at its compute or on the way there, else nothing."""
    if lost is None or lost.empty or row["measured"]:
        return ""
    free = {"subset_size"} if row["regime"] == "one-epoch" else set()
    names = [name for name in ("regime", *CONFIGURATION) if name not in free]
    own = lost[(lost[names] == [row[name] for name in names]).all(axis=1)]
    flops = costs(own)
    between = (flops > row["most_flops"]) & (flops <= row["flops"] * SAME_COST)
    here = np.flatnonzero(same_cost(flops, row["flops"]) | between)
    if not len(here):
        return ""
    runs, where = int(own["runs"].iloc[here[0]]), format_flops(float(flops[here[0]]))
    return f"all of its {runs} runs at {where} diverged or gave no number"


def _so_far(chosen: Recommendation, plan: pd.DataFrame, flops: float) -> Recommendation:
    """Return a recommendation that is not clear while planned configurations or its own seeds have no result.

    What was measured is compared with trials of its own compute, a prediction with all that cost no more.
    """
    first = records(chosen.candidates)[0]
    near = plan[(plan["regime"] == first["regime"]) & (plan["train_flops"] <= flops * SAME_COST)]
    if first["measured"]:
        near = near[near["train_flops"] >= first["flops"] / SAME_COST]
    own = (near[[*CONFIGURATION]] == [first[name] for name in CONFIGURATION]).all(axis=1) & near["chosen"]
    lacking = near[~near["ended"].astype(bool) & (own | ~near.groupby([*CELL])["ended"].transform("any"))]
    if lacking.empty:
        return chosen
    verdict = "undecided" if chosen.choice.verdict == "clear" else chosen.choice.verdict
    ahead = lacking[lacking["chosen"].astype(bool)]
    if ahead.empty:
        count = plural(len(lacking[[*CONFIGURATION]].drop_duplicates()), "configuration")
        reason = f"{chosen.choice.reason}; {count} of the grid that might be best not run here"
        return replace(chosen, choice=replace(chosen.choice, verdict=verdict, reason=reason))
    names = sorted({configuration_text(row) for row in records(ahead)})
    what = "; ".join([*names[:_NAMED], *([f"{len(names) - _NAMED} more"] if len(names) > _NAMED else [])])
    reason = f"so far {chosen.choice.reason}; {plural(len(ahead), 'planned trial')} without a result"
    return replace(
        chosen,
        choice=replace(chosen.choice, verdict=verdict, reason=reason),
        experiment=f"run what was planned and has no result: {what}",
    )


def _row(draws: CellDraws, one: Curve, reading: Reading, at: float, flops: float) -> dict[str, Any]:
    cells = draws.cells.iloc[one.positions]
    x = cells["train_flops"].to_numpy(np.float64)
    factor = max(reading.flops / x.max(), x.min() / reading.flops)
    behind = cells if reading.cell is None else cells.iloc[[reading.cell]]
    row = candidate_columns(draws, one, reading.flops)
    samples = reading.flops / float(cells["train_flops_per_sample"].mean())
    at_a_level = row["regime"] == "fixed-compute" and same_cost(draws.column("train_flops"), at).any()
    short = reading.falling is not None and len(x) == 1
    return row | {
        "short": short, "at_a_level": at_a_level, "most_flops": float(x.max()),
        "place": -1 if reading.cell is None else int(one.positions[reading.cell]),
        "epochs": samples / row["subset_size"], "most_epochs": float(cells["epochs"].max()),
        "flops": reading.flops, "read": reading.read, "measured": reading.cell is not None,
        "factor": factor if factor > 1 else reading.flops / x.max(), "beyond": factor > SAME_COST,
        "share": reading.flops / flops, "usable": at, "ends": reading.falling is not None,
        "uses_up": at < flops / SAME_COST and reading.flops > at / SAME_COST,
        "runs": int(behind["runs"].min()), "diverged": int(behind["diverged"].sum()),
        "law": reading.by.law, "law_error": reading.by.error, "law_reason": reading.by.reason,
        "pool": smallest_pool(row["subset_size"], row["quality"]),
    }  # fmt: skip


def _choose(
    draws: CellDraws,
    measured: CellDraws | None,
    fitting: list[tuple[dict[str, Any], Reading]],
    too_large: list[tuple[dict[str, Any], Reading]],
    left_out: pd.DataFrame,
) -> Recommendation:
    fitting = sorted(fitting, key=lambda one: float(one[1].error[0]))
    errors = _stacked([reading.error for _, reading in fitting], draws)
    if measured is not None and all(reading.cell is not None and not row["ends"] for row, reading in fitting):
        places = [row["place"] for row, _ in fitting]
        errors = np.concatenate([measured.column("error")[None, places], measured.draws[:, places]])
    low, high = column_intervals(errors[1:])
    wide = low < high  # an interval without width is that of a single error, which was repeated
    ends = {"low": np.where(wide, low, np.nan), "high": np.where(wide, high, np.nan)}
    cells = pd.DataFrame([row for row, _ in fitting]).assign(error=errors[0], **ends)
    # `beyond` of a candidate is an extrapolation, not a curve that ended earlier as in `choose`.
    choice = choose(replace(draws, cells=cells.drop(columns="beyond"), draws=errors[1:]))
    if cells["ends"].any():
        ends_before = replace(draws, cells=cells.assign(beyond=cells["ends"]))
        falling = [reading.error if reading.falling is None else reading.falling for _, reading in fitting]
        choice = of_measured(
            ends_before, choose(replace(ends_before, draws=_stacked(falling, draws)[1:])), choice
        )
    if choice.runner_up is None:
        of = f"only one of {plural(1 + len(left_out), 'configuration')} fits"
        alone = of if len(left_out) else "there is only one configuration"
        choice = replace(choice, reason=f"{alone}, so there is nothing to compare it with")
    candidates = cells.assign(name=_names(cells), probability=choice.probability)
    explanation = draws.explanation
    if (~candidates["measured"] & candidates["low"].notna()).any():
        explanation += "; that of a law includes the discrepancy of the laws"
    sizes = draws.column("subset_size").tolist()
    return Recommendation(
        candidates=candidates, choice=choice, left_out=left_out,
        pool=max(map(smallest_pool, sizes, draws.cells["quality"])),
        better=_better(too_large, float(errors[0, 0])), explanation=explanation,
        experiment=_next_experiment(draws, candidates, choice),
    )  # fmt: skip


def _names(cells: pd.DataFrame) -> list[str]:
    """Return the configurations in words, with their regime if the cells have several."""
    several = len(set(cells["regime"])) > 1
    return [with_regime(configuration_text(row), row["regime"], named=several) for row in records(cells)]


def _stacked(errors: Sequence[Floats], draws: CellDraws) -> Floats:
    """Return the errors of all candidates, shape (rows, candidates)."""
    # Without measured noise a cell has a single error, while a law still has draws of its discrepancy.
    longest = max(map(len, errors))
    alike = [error if len(error) > 1 else np.repeat(error, longest) for error in errors]
    return np.clip(np.stack(alike, axis=1), 0.0, draws.error_unit.most)


def _better(too_large: list[tuple[dict[str, Any], Reading]], lowest: float) -> Mapping[str, Any] | None:
    better = [
        row | {"error": float(reading.error[0])} for row, reading in too_large if reading.error[0] < lowest
    ]
    if not better:
        return None
    next_larger = min(row["pool"] for row in better) * SAME_COST
    return min((row for row in better if row["pool"] <= next_larger), key=lambda row: float(row["error"]))


def _next_experiment(draws: CellDraws, candidates: pd.DataFrame, choice: Choice) -> str:
    """Return what to run next: the leader, or leader and next one with enough seeds to resolve their gap."""
    first = records(candidates)[0]
    where = format_flops(first["flops"])
    if choice.runner_up is None:
        return f"run one more configuration at {where}"
    if choice.verdict == "clear":
        if first["measured"]:
            return "nothing: it was measured and leads by more than the noise"
        return f"to confirm, run {first['name']} at {where}"
    tie = choice.verdict == "tie" and choice.runner_up not in choice.members
    # A runner-up outside the tie is clearly behind: its runs would not decide the tie.
    second = records(candidates)[choice.members[1] if tie else choice.runner_up]
    gap, unit = second["error"] - first["error"], draws.error_unit
    most = max(row["usable"] if row["ends"] else row["flops"] for row in (first, second))
    # In one epoch the pairs may limit one of them to less compute.
    at = [
        format_flops(most if row["usable"] >= most / SAME_COST else row["usable"]) for row in (first, second)
    ]
    both = f"{first['name']}{'' if at[0] == at[1] else ' at ' + at[0]} and "
    both += f"{second['name']} at {at[1]}"
    if draws.source != "runs":
        return f"run {both} with three seeds each: the noise between seeds was not measured"
    noise = float((draws.draws.std(axis=0) * np.sqrt(draws.column("runs"))).mean())
    # The difference of two means varies by √(2/seeds)·noise. A gap as large as the measured one shows with
    # probability ``_POWER`` if it exceeds that by the quantiles of the verdict and of the power.
    seeds = int(np.ceil(2 * (_SHOWN * noise / max(gap, 1e-12)) ** 2))
    if seeds > _MOST_SEEDS:
        small, which = unit.gap(gap, fine=True), "either" if at[0] == at[1] else "the cheaper"
        hopeless = (
            f"a gap of {small} with a noise of {unit.number(noise, fine=True)} would need more than "
            f"{_MOST_SEEDS} seeds each: take {which} of {both}"
        )
        less = any(row["ends"] for row in (first, second))
        source = "was measured at less compute" if less else "is a forecast"
        decisive = f"run {both} with two seeds each: the gap of {small} {source}"
        return hopeless if first["measured"] and second["measured"] and not less else decisive
    there = max(row["runs"] if row["measured"] and not row["ends"] else 0 for row in (first, second))
    tied = len(choice.members) - 2
    others = f"; {plural(tied, 'other')} {'is' if tied == 1 else 'are'} tied as well" if tied > 0 else ""
    return (
        f"run {both} until each has {plural(max(seeds, there + 1, 2), 'seed')}, which show a gap of "
        f"{unit.gap(gap)} {_POWER:.0%} of the time{others}"
    )
