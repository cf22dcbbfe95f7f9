"""The arithmetic of one cell, from the multiply-adds of each tower to the cost of a trial."""

from collections.abc import Iterator

from budgets.cost.flops import SampleCost, count_parameters, sample_cost
from budgets.cost.model_config import complete_config
from budgets.cost.open_clip_towers import kept_patches
from budgets.declaration.recipe import PLAIN_PASSES
from budgets.declaration.sections import Cluster
from budgets.planning.allocation import priced_options
from budgets.planning.feasibility import all_reasons
from budgets.planning.grid import Grid, GridCell, Setup
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial, evaluated_steps
from budgets.planning.price import Speeds, device_hours, is_measured, kept_speed, utilisation
from budgets.planning.resources import MEMORY_SHARE, words_of_settings
from budgets.quality import MIXTURE
from budgets.quantity import format_flops, format_share, plural
from study.show.plan_view import figure_range, share_range
from study.state.plan_study import cell_words, with_words

_MOST_SHOWN = 12


def explain_lines(grid: Grid, plan: Plan, wanted: str, speeds: Speeds) -> Iterator[str]:
    """Yield the arithmetic of a cell, or the reasons why it is left out.

    ``wanted`` is a trial's id, or words of a cell such as ``ViT-B-32 slip top40``; ``speeds`` are those
    calibrated on the cluster's device.

    Raises:
        ValueError: The words match no cell, or more than one.
    """
    candidate = _find(grid, plan, wanted)
    at = candidate.cell, candidate.samples
    trials = [trial for trial in plan.trials if (trial.cell, trial.samples_seen) == at and not trial.of_trunk]
    yield str(candidate.cell)
    yield from _left_out(grid, plan, candidate, trials)
    setup = candidate.setup
    if setup.inapplicable is None:
        cost = sample_cost(setup.architecture, setup.strategy, batch_size=setup.batch_size)
        yield from _sample(setup, cost)
        yield from _trial(grid, candidate)
    if trials and grid.declaration.shares_trunks:
        yield from _trunk(trials[0])
    trunks = [trial for trial in plan.trials if trial.cell == candidate.cell and trial.of_trunk]
    for trunk in trunks[:1]:
        first = max(trunk.recipe.averaged_from(trunk.steps), trunk.shared_samples // trunk.batch_size)
        mean = f"the mean of its last {plural(trunk.steps - first, 'state')}"
        average = "the moving average of its weights" if trunk.recipe.ema else mean
        yield f"the trunk is evaluated there, and so is {average}"
    for trial in (*trunks, *trials):
        yield f"trial {trial.trial_id}: {trial.seed_words}"
    if trials and (cluster := grid.declaration.cluster) is not None:
        yield from _chosen(grid, plan, trials[0], cluster, speeds)
        yield from _price(trials[0], cluster, speeds)


def _find(grid: Grid, plan: Plan, wanted: str) -> GridCell:
    cells = {(candidate.cell, candidate.samples): candidate for candidate in grid.candidates(plan.levels)}
    for trial in plan.trials:
        if trial.trial_id == wanted:
            at = trial.cell, trial.samples_seen
            return next(
                one for where, one in cells.items() if where == at or (trial.of_trunk and where[0] == at[0])
            )
    matches = with_words(cells.values(), wanted, _words)
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise ValueError(
            f"no trial or cell matches '{wanted}'; `plan` lists the cells, `plan --format csv` the ids"
        )
    shown = "\n".join(f"  {_words(candidate)}" for candidate in matches[:_MOST_SHOWN])
    more = f"\n  and {len(matches) - _MOST_SHOWN:,} more" if len(matches) > _MOST_SHOWN else ""
    raise ValueError(f"'{wanted}' matches {len(matches):,} cells; add words to select one:\n{shown}{more}")


def _words(candidate: GridCell) -> str:
    return cell_words(candidate.cell, candidate.samples)


def _left_out(grid: Grid, plan: Plan, candidate: GridCell, trials: list[Trial]) -> Iterator[str]:
    planned = len(trials) >= len(candidate.seeds)
    reasons = [item.reason for item in plan.left_out if item.cell == candidate.cell and not planned]
    yield from (f"left out: {reason}" for reason in list(all_reasons(candidate, grid)) or reasons)


def _sample(setup: Setup, cost: SampleCost) -> Iterator[str]:
    how, architecture = setup.strategy, setup.architecture
    seen = architecture.smaller(how.image_fraction)
    tower = seen.image_tower(how.kept_fraction)
    tokens = ""
    if not architecture.closed_form:
        yield f"{architecture.name} is counted by torch on the meta device: {architecture.why_counted}"
    elif architecture.costs.drops_patches:
        config = complete_config(seen.config)
        all_patches = kept_patches(config.vision, 1)
        patches = kept_patches(config.vision, how.kept_fraction)
        tokens = f", {patches:,} of {all_patches:,} patches kept and a class token"
    yield (
        f"image tower, {seen.costs.image_size} x {seen.costs.image_size} pixels{tokens}: "
        f"{tower.trunk.macs:,} MACs x {plural(how.image_views, 'view')} "
        f"+ {tower.projection.macs:,} of its projection = {cost.image_macs:,}"
    )
    text = how.text_tokens(architecture.costs.context_length)
    yield (
        f"text tower, {text} of {architecture.costs.context_length} tokens: "
        f"{cost.text_macs // how.text_views:,} MACs x {plural(how.text_views, 'view')} = {cost.text_macs:,}"
    )
    if cost.head_macs:
        head = f"head on {plural(how.image_views - 1, 'augmented view')}"
        yield f"{'all else, counted by torch' if how.counted else head}: {cost.head_macs:,} MACs"
    yield f"similarity matrices of the loss, batch {setup.batch_size:,}: {cost.similarity_macs:,} MACs"
    yield (
        f"a sample: {cost.forward_macs:,} MACs forward x 2 FLOPs a MAC x 3 passes = "
        f"{cost.train_flops:,} FLOP ({format_flops(cost.train_flops)})"
    )
    count = count_parameters(architecture, how)
    yield (
        f"parameters: {count.image:,} image + {count.text:,} text + {count.head:,} loss and heads "
        f"= {count.total:,}"
    )


def _trial(grid: Grid, candidate: GridCell) -> Iterator[str]:
    cell, setup, batch = candidate.cell, candidate.setup, candidate.setup.batch_size
    steps = candidate.samples // batch
    tail = setup.recipe.tail_steps(steps)
    if cell.level_flops is not None:
        bought = cell.level_flops // setup.train_flops_per_sample
        source = f"{cell.level_flops:,} FLOP / {setup.train_flops_per_sample:,} = {bought:,}"
        if tail:
            source = f"the most that {cell.level_flops:,} FLOP buy, unmasked tail included"
    elif cell.regime == "one-epoch":
        source = f"one epoch of {cell.subset_size:,}"
    else:
        source = "as declared"
    yield f"samples seen: {source}, in whole batches of {batch:,}: {candidate.samples:,} in {steps:,} steps"
    epochs = candidate.samples / cell.subset_size
    yield f"epochs: {candidate.samples:,} / {cell.subset_size:,} pairs = {epochs:,.3f}"
    components = candidate.components
    for part in components if cell.quality.startswith(MIXTURE) else ():
        share = part.share / sum(other.share for other in components)
        yield (
            f"  {format_share(share, 2)} of the samples from {part.pairs:,} pairs of {part.name} "
            f"({part.quality}): {candidate.samples * share / part.pairs:,.3f} epochs"
        )
    total = setup.train_flops(steps)
    product = f"{(steps - tail) * batch:,} x {setup.train_flops_per_sample:,}"
    if tail:
        yield (
            f"unmasked tail: training.unmasked_tail = {setup.recipe.unmasked_tail:.1%} of the steps: "
            f"{tail:,}, a sample at all tokens {setup.tail_flops_per_sample:,} FLOP"
        )
        product += f" + {tail * batch:,} x {setup.tail_flops_per_sample:,}"
    yield f"a trial: {product} = {total:,} FLOP ({format_flops(total)})"
    images, texts = grid.evaluation.images, grid.evaluation.texts
    evaluations = 1 + len(evaluated_steps(grid.declaration.evaluate_at, steps))
    times = f" x {evaluations} times" if evaluations > 1 else ""
    yield (
        f"its evaluation, outside the budget: {images:,} images and {texts:,} texts forward{times} = "
        f"{evaluations * setup.flops_per_evaluation:,} FLOP"
    )
    if grid.device_bytes is not None and not grid.declaration.resources.auto:
        yield (
            f"memory, estimated: {setup.memory_bytes / 1e9:,.1f} GB on "
            f"{setup.resources.each_device} of {grid.device_bytes / 1e9:,.0f} GB"
        )


def _trunk(trial: Trial) -> Iterator[str]:
    """Yield lines on the steps that a trial shares with the other levels of its trunk."""
    branch = trial.steps - trial.milestone_step
    yield (
        f"trunk: longer trials continue from step {trial.milestone_step:,}; the branch, its cooldown and "
        f"unmasked tail, takes {branch:,} steps"
    )
    if trial.previous:
        yield (
            f"it continues from sample {trial.shared_samples:,} of {trial.previous} and costs the study "
            f"{trial.paid_flops:,} FLOP ({format_flops(trial.paid_flops)})"
        )


def _chosen(grid: Grid, plan: Plan, trial: Trial, cluster: Cluster, speeds: Speeds) -> Iterator[str]:
    """Yield the ways to run a trial that fit, and mark the chosen one, if the planner chooses."""
    chosen, cell = plan.chosen.get(trial.trial_id), trial.cell
    if chosen is None:
        return
    memory = f"{format_share(MEMORY_SHARE)} of {(grid.device_bytes or 0) / 1e9:,.0f} GB"
    yield (
        f"relative GPU hours (1 = one {cluster.device} without recomputation) = passes per step / "
        f"{PLAIN_PASSES} / scaling efficiency. Passes: {PLAIN_PASSES}, plus 1 per recomputed forward pass. "
        f"Efficiency: measured, otherwise {cluster.scaling:g} ^ log2(GPUs). Memory limit: {memory}"
    )
    options = grid.setup(*cell.combination, cell.level_flops).options
    for option in priced_options(options, trial, cluster, speeds):
        efficiency = kept_speed(cell.combination, option.resources.devices, cluster, speeds)
        mark = f", chosen ({chosen.why})" if (words := words_of_settings(option)) == chosen.words else ""
        yield (
            f"  GPUs {words}: about {option.memory_bytes / 1e9:,.1f} GB on each; "
            f"{option.recipe.passes} / {PLAIN_PASSES} / {efficiency:.3f} = {option.factor:.2f}, "
            f"relative wall time {option.factor / option.resources.devices:.3f}{mark}"
        )


def _price(trial: Trial, cluster: Cluster, speeds: Speeds) -> Iterator[str]:
    hours, shares = device_hours(trial, cluster, speeds), utilisation(cluster)
    measured = is_measured(trial, cluster, speeds)
    basis = "by measured throughput" if measured else f"at {share_range(shares)} of the peak"
    yield f"price: {figure_range(hours)} hours of {cluster.device}, {basis}"
