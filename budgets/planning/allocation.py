"""Allocation: gives the trials of a plan the resources that the planner chooses for their kinds."""

from dataclasses import replace

from budgets.declaration.recipe import PLAIN_PASSES
from budgets.declaration.sections import Cluster
from budgets.planning.grid import Grid
from budgets.planning.plan import Chosen, Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.price import Speeds, relative_hours, training_hours
from budgets.planning.resources import Kind, Option, choose_resources

_Key = tuple[str, str, int | None, int]


def allocate(plan: Plan, grid: Grid, own_speeds: Speeds) -> Plan:
    """Return a plan whose trials have the resources that end it soonest; each has its cheapest before.

    ``own_speeds`` are the user's own measurements on the cluster's device.
    """
    cluster, resources = grid.declaration.cluster, grid.declaration.resources
    if cluster is None or not resources.auto:
        return plan
    ways: dict[_Key, tuple[Option, ...]] = {}
    hours: dict[_Key, list[float]] = {}
    for trial in plan.all_trials:
        key = _key(trial, grid)
        if key not in ways:
            values = {} if plan.tuning is None else plan.tuning.values.get(trial.trial_id, {})
            # A trial of the tuning may have its own batch.
            of = grid.tuned({(*trial.cell.combination, None): values}) if values else grid
            options = of.setup(*trial.cell.combination, trial.cell.level_flops).options
            ways[key] = priced_options(options, trial, cluster, own_speeds)
        span = training_hours(trial, cluster, own_speeds)
        hours.setdefault(key, []).append((span.low + span.high) / 2)
    kinds = [Kind(options=ways[key], hours=tuple(hours[key])) for key in ways]
    best = choose_resources(kinds, cluster)
    choices = dict(zip(ways, best, strict=True))

    chosen: dict[str, Chosen] = {}

    def allocated(trial: Trial) -> Trial:
        option, why = choices[_key(trial, grid)]
        # A trial that recomputes nothing and has the option's resources stays as it is, without a copy.
        if (trial.resources, trial.recipe.passes) != (option.resources, PLAIN_PASSES):
            parts, recomputed = option.recipe.accumulation, option.recipe.gradient_checkpointing
            recipe = replace(trial.recipe, accumulation=parts, gradient_checkpointing=recomputed)
            trial = replace(trial, recipe=recipe, resources=option.resources)
        chosen[trial.trial_id] = Chosen(words=option.words, why=why)
        return trial

    trials, tuning = tuple(map(allocated, plan.trials)), plan.tuning
    if tuning is not None:
        tried, neighbours = (tuple(map(allocated, each)) for each in (tuning.trials, tuning.neighbours))
        tuning = replace(tuning, trials=tried, neighbours=neighbours)
    return replace(plan, trials=trials, tuning=tuning, chosen=chosen)


def priced_options(
    options: tuple[Option, ...], trial: Trial, cluster: Cluster, own_speeds: Speeds
) -> tuple[Option, ...]:
    """Return a trial's options with the hours that follow from what was measured at each width."""
    combination = trial.cell.combination
    return tuple(
        replace(
            way, factor=relative_hours(way.recipe, combination, way.resources.devices, cluster, own_speeds)
        )
        for way in options
    )


def _key(trial: Trial, grid: Grid) -> _Key:
    cell = trial.cell
    level = cell.level_flops if grid.declaration.ruled_by_level else None
    return *cell.combination, level, trial.batch_size
