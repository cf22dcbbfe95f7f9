"""A plan as text for a terminal."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import TypeVar

from budgets.declaration.declaration import Declaration
from budgets.declaration.sections import Cluster
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Cell, Trial
from budgets.planning.price import (
    PendingTrial,
    Price,
    Range,
    Speeds,
    device_hours,
    forecast,
    is_measured,
    price_plan,
    sum_of,
    utilisation,
    wall_s,
)
from budgets.planning.scoring import score_words
from budgets.planning.tuning_plan import TuningPlan, carried_words, check_words, cost_by_pair, values_words
from budgets.quantity import (
    format_count,
    format_flops,
    format_number,
    format_range,
    format_seconds,
    format_seconds_range,
    format_share,
    plural,
)
from study.show.terminal import table_lines
from study.state.study_facts import counted_models

PLAN_AXES = ("level", "strategy", "architecture")
"""Properties of a cell by which the FLOPs of a plan are summed."""

_TEXT_COLUMNS = ("architecture", "strategy", "quality", "seeds", "GPUs", "chosen for")
_SPARE_COLUMNS = ("steps", "batch", "FLOPs a sample", "FLOPs a trial", "samples", "epochs", "time", "trials")
_MOST_CELLS = 100
_MOST_LEFT_OUT = 20

Number = TypeVar("Number", int, float)


def plan_lines(declaration: Declaration, plan: Plan, speeds: Speeds) -> Iterator[str]:
    """Yield the plan's cells, what was left out, and the totals against the budget.

    ``speeds`` are those measured on this machine, or with a cluster those calibrated on its device.
    """
    by_cell: dict[tuple[Cell, int], list[Trial]] = {}
    for trial in plan.trials:  # those of a trunk beside their branches
        samples = trial.samples_seen if trial.cell.level_flops is None else 0
        by_cell.setdefault((trial.cell, samples), []).append(trial)
    cells = list(by_cell.values())
    several_sizes = len(cells) > _MOST_CELLS
    if several_sizes:
        cells = _merged_sizes(cells)
    rows = [_row(trials, declaration, plan, speeds) for trials in cells]
    yield from table_lines(rows, words=_TEXT_COLUMNS, group="level", spare=_SPARE_COLUMNS)
    if several_sizes:
        yield "cells that differ only in size share a row; --format csv lists all, --explain CELL shows one"
    yield from _mixtures(plan)
    yield from _left_out(plan)
    yield from _design(declaration, plan)
    yield from _tuning(plan)
    paid = "charged once" if declaration.budget.count_scoring else "outside the budget"
    for words in score_words(chain(*plan.score_costs.values())):
        yield f"quality score {words}: {paid}"
    yield from _totals(declaration, plan, speeds)
    if counted := counted_models(declaration):
        yield f"measured by torch's FLOP counter, without closed form: {counted}"
    for warning in plan.warnings:
        yield f"note: {warning}"


def _merged_sizes(cells: list[list[Trial]]) -> list[list[Trial]]:
    """Join cells that differ only in the subset's size and in quantities that follow from it."""
    rows: dict[tuple[object, ...], list[Trial]] = {}
    for trials in cells:
        cell = trials[0].cell
        samples = trials[0].samples_seen if cell.regime == "equal-samples" else None
        key = cell.regime, cell.level_flops, samples, cell.architecture, cell.strategy, cell.quality
        rows.setdefault(key, []).extend(trials)
    return list(rows.values())


def _row(trials: list[Trial], declaration: Declaration, plan: Plan, speeds: Speeds) -> dict[str, str]:
    first = trials[0]
    cell = first.cell
    runs = [trial for trial in trials if not trial.of_trunk] or trials
    row = {
        "level": cell.level,
        "architecture": cell.architecture,
        "strategy": cell.strategy,
        "pairs": _span([trial.cell.subset_size for trial in trials], format_count),
        "quality": cell.quality,
        "seeds": " ".join(dict.fromkeys(str(trial.seed) for trial in trials)),
        "batch": f"{first.batch_size:,}",
        "samples": _span([trial.samples_seen for trial in runs], format_count),
        "epochs": _span([trial.epochs for trial in runs], _epochs),
        "steps": _span([trial.steps for trial in runs], lambda steps: f"{steps:,}"),
        "FLOPs a sample": format_flops(first.train_flops_per_sample),
        "FLOPs a trial": _span([trial.train_flops for trial in runs], format_flops),
    }
    if any(trial.milestone_step for trial in plan.trials):
        row["paid"] = _span(_with_trunks(trials, lambda trial: trial.paid_flops), format_flops)
    cluster = declaration.cluster
    if cluster is None:
        seconds = _with_trunks(trials, lambda trial: wall_s(trial, None, speeds).middle)
        return row | {"time": _span(seconds, format_seconds)}
    hours = sum_of([device_hours(trial, cluster, speeds) for trial in trials])
    chosen = plan.chosen.get(first.trial_id)
    gpus = {} if chosen is None else {"GPUs": chosen.words, "chosen for": chosen.why}
    return row | {"trials": f"{len(trials):,}", f"{cluster.device} hours": figure_range(hours)} | gpus


def _with_trunks(trials: list[Trial], value: Callable[[Trial], Number]) -> list[Number]:
    """Return the sum over each run and the trial of its trunk."""
    of: dict[tuple[Cell, int], Number] = {}
    for trial in trials:
        run = trial.cell, trial.seed
        of[run] = of[run] + value(trial) if run in of else value(trial)
    return list(of.values())


def _mixtures(plan: Plan) -> Iterator[str]:
    """Yield each mixture's pools, with their shares of the samples and their epochs."""
    of: dict[str, list[Trial]] = {}
    for trial in plan.trials:
        if trial.mixture:
            of.setdefault(trial.cell.quality, []).append(trial)
    for name, trials in of.items():
        words = []
        for place, pool in sorted(enumerate(trials[0].mixture), key=lambda placed: placed[1].name):
            parts = [trial.mixture[place] for trial in trials]
            shares = [trial.share_of(part) for trial, part in zip(trials, parts, strict=True)]
            seen = [trial.samples_seen * share for trial, share in zip(trials, shares, strict=True)]
            epochs = [samples / part.pairs for samples, part in zip(seen, parts, strict=True)]
            words.append(
                f"{_span(shares, lambda share: format_share(share, 1))} of the samples from {pool.name} "
                f"({pool.quality}, {_span([part.pairs for part in parts], format_count)} pairs, "
                f"{_span(epochs, _epochs)} epochs)"
            )
        yield f"{name}: {', '.join(words)}"


def _left_out(plan: Plan) -> Iterator[str]:
    for item in plan.left_out[:_MOST_LEFT_OUT]:
        yield f"left out: {item.cell}: {item.reason}"
    if (more := len(plan.left_out) - _MOST_LEFT_OUT) > 0:
        yield f"left out: {more:,} more cells; --format csv lists them all"


def _design(declaration: Declaration, plan: Plan) -> Iterator[str]:
    if not declaration.design.adaptive:
        return
    from study.state.design import (  # noqa: PLC0415 - the analysis, which other plans do without
        first_round,
        rehearsed,
    )

    picks = first_round(declaration, plan).picks
    yield (
        f"adaptive design: the first round has {plural(len(picks), 'trial')}, "
        f"{format_flops(sum(pick.cost_flops for pick in picks))}; "
        f"the study costs {format_flops(plan.most_flops)} at most. "
        "Each further trial is the one expected to settle most per FLOP"
    )
    if len(costs := sorted(rehearsed(declaration, plan))):
        middle, least, most = (format_flops(float(costs[at])) for at in (len(costs) // 2, 0, -1))
        yield (
            f"it will probably cost {middle}: {len(costs)} rehearsals on simulated curves cost "
            f"{format_range(least, most)}; all trials of the grid cost {format_flops(plan.train_flops)}"
        )


def _tuning(plan: Plan) -> Iterator[str]:
    tuning = plan.tuning
    if tuning is None:
        return
    cost = format_flops(sum(trial.train_flops for trial in tuning.trials))
    yield (
        f"tuning: {plural(len(tuning.trials), 'trial')}, {cost}; {format_flops(tuning.reserve_flops)} of the "
        f"study budget are set aside, also for values further out and higher levels; {tuning.metric} selects"
    )
    yield f"tuning by pair: {cost_by_pair(tuning.trials)}"
    tried = {trial.cell.combination for trial in tuning.trials}
    if served := [" ".join(pair) for pair in tuning.waiting if pair not in tried]:
        yield f"tuning of their family decides for {', '.join(served)}"
    if tuning.check_flops:
        yield _check(tuning)
    if waiting := sum(trial.cell.combination in tuning.waiting for trial in plan.trials):
        yield (
            f"waiting for the tuning: {plural(waiting, 'trial')}; until it ends, tuned values and ids "
            "are provisional"
        )
    for winner in tuning.winners:
        serves = f" (also for {', '.join(winner.serves)})" if winner.serves else ""
        yield (
            f"tuned: {winner.architecture} {winner.strategy}{serves}: {values_words(winner.values)}, "
            f"{format_share(winner.score, 1)}; next {values_words(winner.runner_up)}, "
            f"{format_share(winner.runner_up_score, 1)}"
        )
    for line in tuning.carried:
        yield f"carried along {line.along}: {carried_words(line)}"
    for check in tuning.checks:
        yield f"checked: {check.cell}: {check_words(check)}"


def _check(tuning: TuningPlan) -> str:
    near, aside = tuning.neighbours, f"{format_flops(tuning.check_flops)} of the study budget are set aside"
    if not near:
        return f"check of the tuned rates: no trials; {aside}"
    level = format_flops(near[0].cell.level_flops or 0)
    cost = f"{plural(len(near), 'trial')}, {format_flops(sum(trial.train_flops for trial in near))}"
    return f"check of the tuned rates and their neighbours at {level}: {cost}; {aside}"


def _totals(declaration: Declaration, plan: Plan, speeds: Speeds) -> Iterator[str]:
    levels = {trial.cell.level: trial.cell.level_flops or math.inf for trial in plan.all_trials}
    for axis in PLAN_AXES:
        sums = plan.train_flops_by(attrgetter(axis))
        if axis == "level":
            sums = dict(sorted(sums.items(), key=lambda item: levels[item[0]]))
        if len(sums) > 1:
            yield f"trials by {axis}: " + ", ".join(
                f"{name} {format_flops(flops)}" for name, flops in sums.items()
            )
    total = f"{trials_words(plan)}, {format_flops(plan.train_flops)} of training in all"
    if plan.study_flops is None:
        yield f"{declaration.name}: {total}; no study budget"
    elif plan.train_flops > plan.study_flops:  # the grid of an adaptive design
        most = format_flops(plan.study_flops)
        yield f"{declaration.name}: {total}; at most {most}, the study budget, is spent"
    else:
        left = _left(plan, adaptive=declaration.design.adaptive)
        yield f"{declaration.name}: {total}; study budget {format_flops(plan.study_flops)}, {left}"
    evaluation = f"evaluation, outside the budget: {format_flops(plan.evaluation_flops)}"
    if declaration.cluster is None:
        time = forecast([PendingTrial.of(trial, None, speeds) for trial in plan.all_trials])
        assert time is not None, "a plan has trials"
        slot = format_seconds_range(time.low, time.high)
        measured = sum(is_measured(trial, None, speeds) for trial in plan.all_trials)
        basis = f"{measured:,} of {plural(len(plan.all_trials), 'trial')} by measured throughput"
        yield f"{evaluation}; about {slot} of one slot{_whole(plan)} ({basis})"
    else:
        yield evaluation
        yield from _price(declaration.cluster, plan, price_plan(plan, declaration.cluster, own_speeds=speeds))
    yield "FLOPs are 3 x 2 x forward multiply-adds of all that a sample passes through (budgets.cost.flops)"


def _left(plan: Plan, *, adaptive: bool) -> str:
    """Return what is left of the study budget; only an adaptive design may spend what is set aside."""
    assert plan.study_flops is not None, "checked by the caller"
    tuning = plan.tuning
    if tuning is None or adaptive:
        return f"{format_flops(plan.study_flops - plan.train_flops)} left"
    aside = tuning.reserve_flops + tuning.check_flops
    paid = sum(trial.paid_flops for trial in plan.trials) + sum(charge.flops for charge in plan.charges)
    what = "tuning and check" if tuning.check_flops else "tuning"
    left = format_flops(plan.study_flops - aside - paid)
    return f"of which {format_flops(aside)} are set aside for {what}, {left} left"


def trials_words(plan: Plan) -> str:
    """Return the number of a plan's trials, such as ``42 trials (21 of trunks) and 6 of the tuning``."""
    of_trunks = sum(trial.of_trunk for trial in plan.trials)
    words = plural(len(plan.trials), "trial") + (f" ({of_trunks:,} of trunks)" if of_trunks else "")
    of_tuning = len(plan.all_trials) - len(plan.trials)
    return words + (f" and {of_tuning:,} of the tuning" if of_tuning else "")


def _price(cluster: Cluster, plan: Plan, cost: Price) -> Iterator[str]:
    shares = utilisation(cluster)
    basis = [f"{plural(cost.measured, 'trial')} by measured throughput"] if cost.measured else []
    if cost.assumed:
        basis.append(f"{cost.assumed:,} at {share_range(shares)} of the peak")
    share = min(1.0, plan.most_flops / plan.train_flops)
    whole = _whole(plan)

    def within(of: Range) -> str:
        return "" if share == 1 else f"; about {figure_range(of.times(share))} within the study budget"

    hours = f"{figure_range(cost.device_hours)} hours of {cluster.device} ({', '.join(basis)})"
    yield f"{hours}{whole}{within(cost.device_hours)}"
    span = cost.makespan_hours
    ends = format_seconds_range(span.low * 3600, span.high * 3600)
    widths = _span([trial.resources.devices for trial in plan.all_trials], lambda width: f"{width:,}")
    yield (
        f"{ends} from start to end on {plural(cluster.count, 'device')}, {widths} a trial, "
        f"longest trials first{whole}"
    )
    if cost.money is not None:
        money = f"{figure_range(cost.money)} in money, at {cluster.price_per_hour:g} an hour of one device"
        yield f"{money}{whole}{within(cost.money)}"


def _whole(plan: Plan) -> str:
    """Return the condition for a price of the whole grid; empty unless the study may cost less."""
    return "" if plan.most_flops >= plan.train_flops else ", if the whole grid ran"


def figure_range(of: Range) -> str:
    """Return a range of hours or money as text."""
    return format_range(_figure(of.low), _figure(of.high))


def share_range(of: Range) -> str:
    """Return a range of shares as text."""
    return format_range(format_share(of.low), format_share(of.high))


def _figure(value: float) -> str:
    return format_number(value, ",.0f") if value >= 100 else format_number(value, ".3g")  # noqa: PLR2004 - three digits are known at best


def _epochs(epochs: float) -> str:
    return format_number(epochs, ".2f") if epochs < 1000 else format_number(epochs, ",.0f")  # noqa: PLR2004 - a width of six


def _span(values: Sequence[Number], write: Callable[[Number], str]) -> str:
    low, high = write(min(values)), write(max(values))
    return low if low == high else f"{low} … {high}"
