"""Resources that the planner chooses: GPUs, accumulation and gradient checkpointing of each kind of trial.

A kind is an architecture with a strategy and a batch. For each width (1, 2, 4 … GPUs, then 1, 2, 4 … whole
nodes) that divides the batch, the quickest of the settings that fit `MEMORY_SHARE` of a GPU's memory is an
option. Where a GPU had no memory for settings, only those that need less count as fitting. An option's hours
are those of a trial from start to end (`budgets.planning.price`): wide ones pay start-up on each GPU. Of the
choices whose GPU hours stay within `HOURS_FACTOR` of the cheapest, and whose trials start up in `START_SHARE`
of their time at most, the one that ends the whole study first is taken.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from budgets.cost.architecture import Architecture
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import Strategy
from budgets.cost.strategy_files import strategy_of
from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Cluster
from budgets.planning.planned_trial import Trial
from budgets.planning.price import held_devices, makespan, relative_hours, start_s
from budgets.quantity import format_share

_FEWEST_PAIRS = 64
"""Fewest pairs of a part on a GPU; fewer do not fill the GPU."""
HOURS_FACTOR = 1.25
"""GPU-hours allowed for ending the study sooner, over the fewest possible."""
START_SHARE = 0.1
"""Most of a trial's time that start-up may take on more GPUs than the fewest that are possible."""
MEMORY_SHARE = 0.92
"""Share of a GPU's memory that chosen settings may need by the estimate. CUDA's context (.5 GB), NCCL's
buffers (up to 1 GB), fragmentation and an error of some percent take the rest."""
_LESS = 0.9  # memory of the settings that are tried after others were too large, over theirs
_MOST_BOUNDS = 64  # longest trials that are tried
_SIMULATED = 4  # choices whose makespan is simulated
_MOST_SIMULATED = 20_000  # trials


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A way to run a kind of trial.

    ``memory_bytes`` is the estimated memory needed on each GPU; ``factor`` the GPU hours of training over
    those of one GPU that recomputes nothing; ``hours`` a trial's from start to end, 0 until it is priced.
    """

    resources: TrialResources
    recipe: Recipe
    memory_bytes: int
    factor: float
    hours: float = 0.0

    @property
    def gpu_hours(self) -> float:
        """GPU hours of a trial, its start-up included."""
        return self.hours * self.resources.devices


def words_of_settings(of: Option | Trial) -> str:
    """Return the settings of an option or a trial in a few words, such as ``8, recomputed, 4 parts``."""
    parts, nodes = of.recipe.accumulation, of.resources.nodes
    texts = (
        f"{of.resources.devices:,}",
        f"{nodes} nodes" if nodes > 1 else "",
        "recomputed" if of.recipe.gradient_checkpointing else "",
        f"{parts} parts" if parts > 1 else "",
    )
    return ", ".join(filter(None, texts))


def lasting(options: Sequence[Option]) -> tuple[Option, ...]:
    """Return the narrowest of a trial's priced options, and wider ones if it lasts long enough on them."""
    narrowest = min(options, key=lambda option: option.resources.devices)

    def pays(option: Option) -> bool:
        return start_s(option.resources.gpus, option.recipe) <= START_SHARE * option.hours * 3600

    return tuple(option for option in options if option is narrowest or pays(option))


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Trials that are run in the same way and take equally long: at least one option, and their number."""

    options: tuple[Option, ...]
    trials: int

    @property
    def cheapest(self) -> Option:
        """The option with the fewest GPU hours; of several, the narrowest."""
        return min(self.options, key=_by_gpu_hours)


def _by_gpu_hours(option: Option) -> tuple[float, int]:
    return option.gpu_hours, option.resources.devices


def resource_options(  # noqa: PLR0913 - one a fact that the estimate needs
    architecture: Architecture,
    strategy: Strategy,
    recipe: Recipe,
    *,
    batch_size: int,
    amounts: Iterable[TrialResources],
    cluster: Cluster | None,
    memory: Callable[..., int],
    limit: float,
    ruled: Mapping[str, Any],
) -> tuple[Option, ...]:
    """Return an option for each of the amounts: the quickest settings that fit, else those with least memory.

    With batch norm, accumulation and gradient checkpointing would give another trial; they are not chosen.
    Nor are they if the recipe has others than the defaults, or if a rule sets them (``ruled``). The strategy
    is that of the phase that needs the most memory, ``batch_size`` that of the whole batch, ``memory`` the
    estimate of a recipe on a number of ``devices``; ``limit`` is the most on each, in bytes.
    """
    chosen, combination = list[Option](), (architecture.name, strategy.name)
    for amount in amounts:
        devices = amount.devices
        tried = [
            Option(
                resources=amount,
                recipe=setting,
                memory_bytes=memory(setting, devices=devices),
                factor=relative_hours(setting, combination, devices, cluster),
            )
            for setting in _recipes(architecture, recipe, ruled, batch_size // devices)
        ]
        if tried:
            least = min(tried, key=lambda option: option.memory_bytes)
            chosen.append(next((option for option in tried if option.memory_bytes <= limit), least))
    return tuple(chosen)


def widths(cluster: Cluster, batch_size: int, ruled: Mapping[str, Any]) -> Iterator[int]:
    """Yield the GPUs that a trial may take: powers of two within a node, then of whole nodes."""
    node = cluster.node_gpus
    within = [1 << power for power in range(node.bit_length()) if 1 << power < node]
    beyond = [node << power for power in range((cluster.count // node).bit_length())]
    for gpus in [ruled["gpus"]] if ruled.get("gpus") else within + beyond:
        pairs = batch_size // gpus
        alone = "gpus" in ruled or gpus == 1
        if not batch_size % gpus and (alone or (gpus <= cluster.count and pairs >= _FEWEST_PAIRS)):
            yield gpus


def memory_limit(device_bytes: int | None, too_large: int | None) -> float:
    """Return the bytes that settings may need on a GPU, by its memory and the least that was too large."""
    return min(MEMORY_SHARE * (device_bytes or math.inf), _LESS * (too_large or math.inf))


def estimated_memory(trial: Trial) -> int:
    """Return the estimate, in bytes of each device, for a trial with its settings."""
    architecture = Architecture(name=trial.cell.architecture, config=trial.architecture_config)
    masked = strategy_of(trial.cell.strategy, trial.strategy_file)
    widest = masked.unmasked if trial.recipe.unmasked_tail else masked
    return memory_bytes(
        architecture, widest, trial.recipe, batch_size=trial.batch_size, devices=trial.resources.devices,
        pairs=trial.cell.subset_size, averaged=trial.of_trunk,
    )  # fmt: skip


def choose_resources(
    kinds: Sequence[Kind], cluster: Cluster, *, hours_factor: float = HOURS_FACTOR
) -> tuple[tuple[Option, str], ...]:
    """Return each kind's option and why, in a few words; at most ``hours_factor`` times the fewest GPU hours.

    Wider options are faster but cost more GPU hours. Each bound on the duration of the longest trial gives
    one choice: of each kind, the cheapest option within the bound. The choices are ranked by a lower bound of
    the study's duration; the best few are simulated.
    """
    counts = [kind.trials for kind in kinds]

    def gpu_hours(chosen: Sequence[Option]) -> float:
        return sum(option.gpu_hours * count for option, count in zip(chosen, counts, strict=True))

    cheapest = tuple(kind.cheapest for kind in kinds)
    hours_of = {cheapest: gpu_hours(cheapest)}
    bounds = sorted({option.hours for kind in kinds for option in kind.options})
    for bound in bounds[:: -(-len(bounds) // _MOST_BOUNDS)]:
        within = [[option for option in kind.options if option.hours <= bound] for kind in kinds]
        if all(within):
            chosen = tuple(min(fitting, key=_by_gpu_hours) for fitting in within)
            if (needed := gpu_hours(chosen)) <= hours_factor * hours_of[cheapest]:
                hours_of[chosen] = needed

    def least(chosen: tuple[Option, ...]) -> float:
        # A study takes at least its GPU hours over all devices, and at least as long as its longest trial.
        return max(hours_of[chosen] / cluster.count, *(option.hours for option in chosen))

    best = sorted(hours_of, key=lambda chosen: (least(chosen), hours_of[chosen]))
    if sum(counts) <= _MOST_SIMULATED:
        ends = {chosen: _end(counts, chosen, cluster) for chosen in (*best[:_SIMULATED], cheapest)}
        # Ends that differ beyond three digits are equal: then the cheaper choice wins.
        best = sorted(ends, key=lambda chosen: (float(f"{ends[chosen]:.3g}"), hours_of[chosen]))
    return tuple((option, _why(kind, option)) for kind, option in zip(kinds, best[0], strict=True))


def _recipes(
    architecture: Architecture, recipe: Recipe, ruled: Mapping[str, Any], pairs: int
) -> list[Recipe]:
    """Return the recipes to try for ``pairs`` pairs on a GPU, the quickest first."""
    free = not architecture.costs.batch_norm
    parts, recomputed = recipe.accumulation, recipe.gradient_checkpointing
    every_part = [parts]
    if free and parts == 1 and "accumulation" not in ruled:
        # Powers of two that divide the pairs and leave enough of them in a part.
        powers, least = (1 << k for k in range(20)), min(pairs, _FEWEST_PAIRS)
        every_part = [power for power in powers if pairs % power == 0 and pairs // power >= least]
    either = (
        [False, True] if free and not recomputed and "gradient_checkpointing" not in ruled else [recomputed]
    )
    tried = [
        replace(recipe, accumulation=parts_tried, gradient_checkpointing=again)
        for again in either
        for parts_tried in every_part
        if pairs % parts_tried == 0
    ]
    return sorted(tried, key=lambda setting: (setting.passes, setting.accumulation))


def _end(counts: Sequence[int], chosen: Sequence[Option], cluster: Cluster) -> float:
    every = [option for option, count in zip(chosen, counts, strict=True) for _ in range(count)]
    held = held_devices([option.resources for option in every], cluster)
    return makespan([option.hours for option in every], held, cluster.count)


def _why(kind: Kind, option: Option) -> str:
    if len(kind.options) == 1:
        return "the only option"
    if option.gpu_hours == kind.cheapest.gpu_hours:
        return "fewest hours"
    return f"ends sooner, +{format_share(option.gpu_hours / kind.cheapest.gpu_hours - 1)} hours"
