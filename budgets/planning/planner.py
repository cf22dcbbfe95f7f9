"""The planner: turns a declaration and facts about its data into a plan within the study budget.

Every cell of the grid either becomes trials or is left out with a reason that carries its numbers.
Planning is a pure function: the same declaration gives the same plan, in the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from types import MappingProxyType

from budgets.cost.strategy import Strategy
from budgets.declaration.declaration import Declaration
from budgets.declaration.keys import unusual
from budgets.declaration.marked_file import DeclaredKeyError
from budgets.declaration.rules import CPUS_PER_GPU
from budgets.planning.allocation import allocate
from budgets.planning.facts import EvaluationFacts, MixtureFacts, PoolFacts
from budgets.planning.feasibility import reason_against
from budgets.planning.grid import Grid
from budgets.planning.ladder import choose_levels, unspent_note
from budgets.planning.plan import Charge, LeftOut, Plan
from budgets.planning.planned_trial import Cell, Trial, share_trunks, with_trunks
from budgets.planning.price import UNMEASURED, Speeds
from budgets.planning.sanity import LEAST_LEVEL, plan_warnings, unit_warning
from budgets.planning.trim import Trimmed, paid_flops_of, trim_trials, without_copies
from budgets.planning.tuning import Scores, plan_tuning, tuning_reserves
from budgets.planning.tuning_plan import TuningPlan, tuning_notes
from budgets.quantity import format_flops, plural

_MOST_SHOWN = 5
_MUCH_UNSPENT = 0.1


def make_plan(  # noqa: PLR0913 - each argument is a fact that the plan depends on
    declaration: Declaration,
    *,
    pool: PoolFacts | MixtureFacts,
    evaluation: EvaluationFacts,
    own: Mapping[str, Strategy] = MappingProxyType({}),
    charges: tuple[Charge, ...] = (),
    scores: Scores | None = None,
    own_speeds: Speeds = UNMEASURED,
    too_large: Mapping[tuple[str, str, int], int] = MappingProxyType({}),
) -> Plan:
    """Plan a study, within its budget if there is one.

    Args:
        declaration: The study as declared.
        pool: Facts about the pool, or about pools that are mixed.
        evaluation: Facts about the evaluation sets.
        own: The user's own strategies, by name.
        charges: Compute that the study pays in addition to its trials.
        scores: Results of the tuning's trials so far; None before the first.
        own_speeds: The user's own measurements on the cluster's device, for resources that are chosen.
        too_large: Memory for which a device was too small, as `Grid` takes it.

    Raises:
        ValueError: No trial is feasible; a warm-up or cooldown is longer than its run; or the trials cost
            more than the study budget and the declaration does not allow dropping some (``fit: drop``), or
            dropping is not enough.
    """
    grid = Grid(declaration, pool, evaluation, own, too_large=too_large)
    notes: list[str] = []
    # The reserve for tuning and check stays set aside after both have ended: the grid must not depend on what
    # they have cost.
    beside = sum(charge.flops for charge in charges) + sum(tuning_reserves(declaration))
    levels, cap = declaration.budget.levels, declaration.budget.study_flops
    chosen = not levels and any(block.regime == "fixed-compute" for block in declaration.grid)
    if chosen:
        levels = choose_levels(grid, beside)
        for key, problem in declaration.design_clashes(levels):
            raise DeclaredKeyError(key, problem)
        notes.append(
            f"levels chosen: the highest {len(levels)} at a ratio of {declaration.budget.ladder.ratio:g} "
            f"whose grid fits the study budget: {', '.join(map(format_flops, levels))}"
        )
    # Tuning comes before the grid: its winners replace declared values, and so change the grid's trials.
    tuning = None
    if declaration.tuning is not None:
        scores = scores or Scores(metric=declaration.tuning_metric(evaluation.metrics), of={})
        tuning, tuned = plan_tuning(grid, levels, scores)
        grid = grid.tuned(tuned)
        notes.extend(tuning_notes(tuning, reported=declaration.metric))
    if declaration.training.recipe.schedule == "trunk" and not declaration.shares_trunks:
        notes.append(
            "tuning.levels gives each level a rate of its own: levels share no trunk (training.schedule) and "
            "are paid in full; rates carried along tuning.sizes keep the trunks"
        )
    trials, left_out = _trials(grid, levels)
    if not trials:
        raise DeclaredKeyError("grid", _nothing(left_out, levels, chosen=chosen))
    _check_schedule(trials if tuning is None else (*tuning.trials, *trials))
    if chosen and cap and (share := 1 - (beside + paid_flops_of(trials)) / cap) > _MUCH_UNSPENT:
        notes.append(unspent_note(grid, levels, trials, share))
    if cap is not None and (fit := _fitted(trials, beside, cap, declaration)) is not None:
        notes.append(f"dropped to fit the study budget (budget.fit: drop): {fit.sentence()}")
        trials, left_out = fit.kept, left_out + fit.left_out()
    setups = (grid.setup(*trial.cell.combination, trial.cell.level_flops) for trial in trials)
    architectures = {setup.architecture.name: setup.architecture for setup in setups}
    plan = Plan(
        trials=trials,
        left_out=left_out,
        charges=charges,
        study_flops=cap,
        levels=levels,
        cluster=declaration.cluster,
        warnings=(
            *notes,
            *unusual(declaration),
            *(unit_warning(level) for level in levels if level < LEAST_LEVEL),
            *plan_warnings(trials, architectures),
            *_shared_seeds(trials, tuning),
        ),
        tuning=tuning,
    )
    plan = allocate(plan, grid, own_speeds)
    if declaration.evaluate_trunk:
        plan = _with_trunks(plan, grid)
    # Link the trunks again: resources enter the ids of trials with batch norm.
    plan = replace(plan, trials=_linked(plan.trials, declaration))
    return replace(plan, warnings=(*plan.warnings, *_cores(plan)))


def _fitted(trials: tuple[Trial, ...], beside: int, cap: int, declaration: Declaration) -> Trimmed | None:
    """Return the trials that the study budget has room for; None if it has room for all.

    An adaptive design chooses among all of them, and stays within the budget by itself.

    Raises:
        ValueError: The declaration does not allow dropping some (``fit: drop``), or that is not enough; or an
            adaptive design has no room for any trial.
    """
    if declaration.design.adaptive:
        least = beside + min(trial.paid_flops for trial in trials)
        if least > cap:
            besides = f" with {format_flops(beside)} of charges and tuning" if beside else ""
            raise DeclaredKeyError(
                "budget.study",
                f"the study budget of {format_flops(cap)} has no room for a trial: the cheapest one costs "
                f"{format_flops(least)}{besides}. Raise budget.study",
            )
        return None
    if beside + paid_flops_of(trials) <= cap:
        return None
    fit = trim_trials(trials, cap - beside, partial(_linked, declaration=declaration))
    if declaration.budget.fit == "refuse" or fit is None:
        raise DeclaredKeyError("budget.study", _too_dear(trials, beside, cap, fit, declaration))
    return fit


def _cores(plan: Plan) -> Iterator[str]:
    """Yield a note where cores are assumed, or too few to load the data of their GPUs."""
    if any(trial.resources.assumed for trial in plan.trials):
        yield (
            f"{CPUS_PER_GPU} cores a GPU are assumed; `run` and `check` take each GPU's share of its node's, "
            "unless cluster.node_cpus or resources.cpus is declared"
        )
    shares = [trial.resources.cpus / trial.resources.gpus for trial in plan.trials if trial.resources.gpus]
    if min(shares, default=CPUS_PER_GPU) < CPUS_PER_GPU:
        yield (
            f"trials have {min(shares):.3g} cores a GPU, fewer than {CPUS_PER_GPU}: loading may be slower "
            "than training; calibrate measures both together"
        )


def _shared_seeds(trials: Sequence[Trial], tuning: TuningPlan | None) -> Iterator[str]:
    """Yield a note if the tuning and the grid have a seed in common."""
    tuned = () if tuning is None else tuning.trials
    if shared := {trial.seed for trial in trials} & {trial.seed for trial in tuned}:
        yield (
            f"tuning.seeds and the grid share {', '.join(map(str, sorted(shared)))}: a value may win by "
            "a lucky seed that the grid then uses again; declare other tuning.seeds"
        )


def _trials(grid: Grid, levels: tuple[int, ...]) -> tuple[tuple[Trial, ...], tuple[LeftOut, ...]]:
    """Return the trials, by rising level and then as declared, and the cells that cannot be run."""
    trials: dict[tuple[Cell, int, int], Trial] = {}
    left_out: dict[tuple[Cell, int], LeftOut] = {}
    for candidate in grid.candidates(levels):
        cell, samples = candidate.cell, candidate.samples
        reason = reason_against(candidate, grid)
        if reason is not None:
            if cell.regime == "equal-samples":
                reason = f"{plural(candidate.declared_samples, 'sample')}: {reason}"
            left_out[cell, candidate.declared_samples] = LeftOut(cell=cell, reason=reason)
            continue
        for seed in candidate.seeds:
            key = cell, samples, seed
            if key not in trials:
                trials[key] = grid.trial(candidate, seed)
    ordered = sorted(trials.values(), key=lambda trial: trial.cell.level_flops or 0)
    distinct, copies = without_copies(ordered)
    return _linked(distinct, grid.declaration), (*left_out.values(), *copies)


def _linked(trials: Sequence[Trial], declaration: Declaration) -> tuple[Trial, ...]:
    return share_trunks(trials) if declaration.shares_trunks else tuple(trials)


def _with_trunks(plan: Plan, grid: Grid) -> Plan:
    """Return a plan with the trials of its trunks; together a trunk and its branches cost the same.

    Raises:
        ValueError: A strategy trains on smaller images until the tail, at whose size a model is evaluated.
    """
    for trial in plan.trials:
        if grid.setup(*trial.cell.combination, trial.cell.level_flops).strategy.image_fraction < 1:
            raise DeclaredKeyError(
                "evaluation.trunk",
                f"evaluation.trunk is not allowed with {trial.cell.strategy}: before its tail it trains on "
                "smaller images than those of the evaluation",
            )
    trials = tuple(with_trunks(plan.trials))
    # The trial of a trunk precedes its branch, and runs on the same resources.
    pairs = ((trial.trial_id, branch.trial_id) for trial, branch in pairwise(trials) if trial.of_trunk)
    chosen = {trunk: plan.chosen[branch] for trunk, branch in pairs if branch in plan.chosen}
    return replace(plan, trials=trials, chosen={**plan.chosen, **chosen})


def _check_schedule(trials: tuple[Trial, ...]) -> None:
    """Raise an error for warm-ups and cooldowns that are longer than their run.

    Raises:
        ValueError: The message names the field, and the trials with their steps.
    """
    wrong = {str(trial.cell): problem for trial in trials if (problem := _no_room(trial)) is not None}
    if wrong:
        shown = ["the learning-rate schedule is longer than the run:"]
        shown += [f"  {cell}: {problem}" for cell, problem in list(wrong.items())[:_MOST_SHOWN]]
        if len(wrong) > _MOST_SHOWN:
            shown.append(f"  and {len(wrong) - _MOST_SHOWN:,} more cells")
        raise DeclaredKeyError("training", "\n".join(shown))


def _no_room(trial: Trial) -> str | None:
    recipe, steps = trial.recipe, trial.steps
    rise, fall = recipe.warmup_steps(steps, trial.batch_size), recipe.cooldown_steps(steps)
    if rise < steps and rise + fall <= steps:
        return None
    share = f"{recipe.warmup:.0%}"
    warmup = share if recipe.warmup_samples is None else f"{recipe.warmup_samples:,} samples"
    takes = f"training.warmup = {warmup} takes {rise:,} of {steps:,} steps"
    if rise >= steps:
        return f"{takes}: no step is left after it"
    cooldown = f"training.cooldown = {recipe.cooldown:.0%} takes {fall:,}"
    return f"{takes}, {cooldown}: together more than the run has"


def _nothing(left_out: tuple[LeftOut, ...], levels: tuple[int, ...], *, chosen: bool) -> str:
    reasons = "\n".join(f"  {item.cell}: {item.reason}" for item in left_out[:_MOST_SHOWN])
    more = f"\n  and {len(left_out) - _MOST_SHOWN:,} more" if len(left_out) > _MOST_SHOWN else ""
    tiny = f"\n{unit_warning(levels[0])}" if levels and levels[0] < LEAST_LEVEL else ""
    text = f"no cell of the grid can be run:\n{reasons}{more}{tiny}"
    if not chosen:
        return text
    return f"{text}\nThe levels were chosen from budget.study: change it, or declare budget.levels"


def _too_dear(
    trials: tuple[Trial, ...], beside: int, cap: int, fit: Trimmed | None, declaration: Declaration
) -> str:
    cost = paid_flops_of(trials) + beside
    what = "charges" if declaration.tuning is None else "charges and set-asides for tuning and check"
    charged = f", and {format_flops(beside)} of {what}" if beside else ""
    text = (
        f"the grid costs {format_flops(cost)} ({plural(len(trials), 'trial')}{charged}), but the study "
        f"budget is {format_flops(cap)}: {format_flops(cost - cap)} over. "
    )
    if fit is None:
        return text + (
            "Dropping extra seeds and upper levels is not enough. Raise budget.study, or remove cells "
            "(sizes, architectures, strategies, or rules under exclude:)"
        )
    return text + (
        f"With budget: {{fit: drop}} {plural(len(fit.kept), 'trial')} stay, "
        f"{format_flops(paid_flops_of(fit.kept) + beside)}, without {fit.sentence()}. Otherwise raise "
        "budget.study, or remove seeds, levels or cells (rules under exclude:)"
    )
