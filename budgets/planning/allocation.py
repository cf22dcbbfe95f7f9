"""Allocation: gives the trials of a plan the resources that the planner chooses for their kinds."""

from collections import Counter
from dataclasses import replace

from budgets.declaration.recipe import PLAIN_PASSES
from budgets.declaration.sections import Cluster
from budgets.planning.grid import Grid
from budgets.planning.plan import Chosen, Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.price import Speeds, relative_hours, wall_s
from budgets.planning.resources import Kind, Option, choose_resources, lasting, words_of_settings

_Key = tuple[str, str, int | None, int, int, int]


def allocate(plan: Plan, grid: Grid, own_speeds: Speeds) -> Plan:
    """Return a plan whose trials have the resources that end it soonest; each has its cheapest before.

    ``own_speeds`` are the user's own measurements on the cluster's device.
    """
    cluster, resources = grid.declaration.cluster, grid.declaration.resources
    if cluster is None or not resources.auto:
        return plan
    ways: dict[_Key, tuple[Option, ...]] = {}
    counts = Counter(map(_key, plan.all_trials))
    for trial in plan.all_trials:
        key = _key(trial)
        if key not in ways:
            values = {} if plan.tuning is None else plan.tuning.values.get(trial.trial_id, {})
            # A trial of the tuning may have its own batch.
            of = grid.tuned({(*trial.cell.combination, None): values}) if values else grid
            options = of.setup(*trial.cell.combination, trial.cell.level_flops).options
            ways[key] = lasting(priced_options(options, trial, cluster, own_speeds))
    kinds = [Kind(options=options, trials=counts[key]) for key, options in ways.items()]
    choices = dict(zip(ways, choose_resources(kinds, cluster), strict=True))

    chosen: dict[str, Chosen] = {}

    def allocated(trial: Trial) -> Trial:
        option, why = choices[_key(trial)]
        # A trial that recomputes nothing and has the option's resources stays as it is, without a copy.
        if (trial.resources, trial.recipe.passes) != (option.resources, PLAIN_PASSES):
            trial = _with_option(trial, option)
        chosen[trial.trial_id] = Chosen(words=words_of_settings(option), why=why)
        return trial

    trials, tuning = tuple(map(allocated, plan.trials)), plan.tuning
    if tuning is not None:
        tried, neighbours = (tuple(map(allocated, group)) for group in (tuning.trials, tuning.neighbours))
        tuning = replace(tuning, trials=tried, neighbours=neighbours)
    return replace(plan, trials=trials, tuning=tuning, chosen=chosen)


def priced_options(
    options: tuple[Option, ...], trial: Trial, cluster: Cluster, own_speeds: Speeds
) -> tuple[Option, ...]:
    """Return a trial's options with its hours, by what was measured at each width."""
    combination = trial.cell.combination

    def priced(way: Option) -> Option:
        tried = _with_option(trial, way)
        factor = relative_hours(way.recipe, combination, way.resources.devices, cluster, own_speeds)
        return replace(way, factor=factor, hours=wall_s(tried, cluster, own_speeds).middle / 3600)

    return tuple(map(priced, options))


def _with_option(trial: Trial, way: Option) -> Trial:
    parts, recomputed = way.recipe.accumulation, way.recipe.gradient_checkpointing
    recipe = replace(trial.recipe, accumulation=parts, gradient_checkpointing=recomputed)
    return replace(trial, recipe=recipe, resources=way.resources)


def _key(trial: Trial) -> _Key:
    """Return what trials that take equally long have in common."""
    cell = trial.cell
    return *cell.combination, cell.level_flops, trial.batch_size, trial.samples_seen, trial.shared_samples
