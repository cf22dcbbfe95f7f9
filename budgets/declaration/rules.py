"""Rules of a declaration that give some trials other settings than the rest; resources of a trial."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

from budgets.declaration import values
from budgets.declaration.keys import Clashes, Given, keys

CPUS_PER_GPU = 6
"""Cores of a GPU where those of a node are not declared; a share below it is warned about."""

_MOST_OF_A_NODE = 4096
"""More cores, and far more GPUs, than any machine has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResources:
    """Resources of one trial.

    Attributes:
        cpus: Processor cores, over all of its nodes.
        gpus: GPUs, over all of its nodes; 0 trains on the processor.
        nodes: Nodes over which it is spread in equal parts.
        ranks: Processes without GPUs that train one model together.
        assumed: True if the cores are `CPUS_PER_GPU` for each GPU, because those of a node are not declared.
    """

    cpus: int = 1
    gpus: int = 0
    nodes: int = 1
    ranks: int = 1
    assumed: bool = False

    @property
    def devices(self) -> int:
        """Devices of a cluster that it takes."""
        return max(1, self.gpus)

    @property
    def each_device(self) -> str:
        """The devices in words: ``one device``, or ``each of 4 devices``."""
        return "one device" if self.devices == 1 else f"each of {self.devices:,} devices"

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node that train one model together."""
        return max(self.gpus, self.ranks) // self.nodes

    def on_nodes(self, cpus_per_gpu: int | None) -> "TrialResources":
        """Return the resources on nodes with so many cores for each GPU; the same if cores are declared."""
        if not self.assumed or cpus_per_gpu is None:
            return self
        return replace(self, cpus=self.gpus * cpus_per_gpu)

    def problems(self) -> Clashes:
        """Yield each amount that can't be spread over the nodes, with the error."""
        for key in ("cpus", "gpus") if self.gpus else ("cpus", "ranks"):
            amount = getattr(self, key)
            if amount > _MOST_OF_A_NODE * self.nodes:
                yield key, f"{key} = {amount:,} on resources.nodes = {self.nodes}: no node has so many"
            if amount % self.nodes:
                yield key, f"{key} = {amount} can't be spread evenly over resources.nodes = {self.nodes}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A rule for the trials that it matches on every axis that it names."""

    architectures: tuple[Annotated[str, values.architecture], ...] = ()
    """Architectures that it matches; all by default."""
    strategies: tuple[Annotated[str, values.strategy], ...] = ()
    """Strategies that it matches; all by default."""
    levels: tuple[Annotated[int, values.compute], ...] = ()
    """Budget levels in training FLOPs; all by default."""

    def clashes(self, given: Given) -> Clashes:
        """Yield a rule that sets nothing."""
        names = [key.name for key in keys(type(self)) if key.name not in _AXES]
        if not any(map(given, names)):
            yield "", f"sets nothing; give one of {', '.join(names)}"


_AXES = {axis.name for axis in fields(Rule)}


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceRule(Rule):
    """A rule that gives other amounts to the trials that it matches on every axis that it names.

    If several matching rules set a key, the last one wins.
    """

    gpus: Annotated[int | None, values.devices_of_a_trial] = None
    """GPUs of a trial, over all of its nodes."""
    cpus: Annotated[int | None, values.device_count] = None
    """Processor cores of a trial, over all of its nodes."""
    nodes: Annotated[int | None, values.device_count] = None
    """Nodes over which a trial is spread; with ``gpus``, by default the fewest that hold them."""
    accumulation: Annotated[int | None, values.batch] = None
    """Number of parts in which a batch is computed, in place of ``training.accumulation``."""
    gradient_checkpointing: bool | None = None
    """Recompute activations or not, in place of ``training.gradient_checkpointing``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRule(Rule):
    """A rule that gives another batch or rate to the trials that it matches on every axis that it names.

    If several matching rules set a key, the last one wins; tuned values override all. ``tune`` excludes
    ``levels``.
    """

    batch_size: Annotated[int | None, values.batch] = None
    """Pairs in a batch of plain CLIP; a strategy may multiply it."""
    lr_peak: Annotated[float | None, values.rate] = None
    """Peak learning rate."""
    tune: bool | None = None
    """With ``tuning``: whether it decides these pairs of architecture and strategy; by default those in its
    lists."""

    def clashes(self, given: Given) -> Clashes:
        """Yield a rule that sets nothing, or that would tune a pair at some levels alone."""
        yield from super(TrainingRule, self).clashes(given)
        if given("tune") and given("levels"):
            yield "tune", "tune is not allowed with levels: a pair is tuned for all levels, or not at all"


def ruled_settings(
    rules: Iterable[Rule], architecture: str, strategy: str, level: int | None
) -> Mapping[str, Any]:
    """Return what the rules set for a cell: key → value of the last rule that matches and names it."""
    settings: dict[str, Any] = {}
    for rule in rules:
        axes = ((rule.architectures, architecture), (rule.strategies, strategy), (rule.levels, level))
        if all(not allowed or value in allowed for allowed, value in axes):
            named = ((key.name, getattr(rule, key.name)) for key in fields(rule) if key.name not in _AXES)
            settings |= {name: value for name, value in named if value is not None}
    return settings
