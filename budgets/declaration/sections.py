"""Sections of a declaration: each class is a section of the YAML file, each field a key (`keys.py`).

A new key is a new field, here or in `data_sections.py`, `recipe.py` or `rules.py`: loading, dumping,
the JSON schema and docs/declaration.md follow. A class's ``clashes`` yields each key that contradicts
another, with the error from the key on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

from budgets.declaration import values
from budgets.declaration.keys import A_LIST, At, Clashes, Given, keys
from budgets.declaration.marked_file import Node
from budgets.declaration.recipe import PRESETS, LrRule, Recipe
from budgets.declaration.rules import ResourceRule, TrainingRule, TrialResources
from budgets.declaration.value_forms import RISING, Named, OneOf, Several

Regime = Literal["fixed-compute", "one-epoch", "equal-samples"]
LoggerName = Literal["tensorboard", "wandb"]
LOGGERS: tuple[LoggerName, ...] = get_args(LoggerName)

FARTHEST = 30.0
"""Largest factor beyond the measured budgets at which an error is forecast."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Budget levels that the planner chooses from the study budget: the highest whose whole grid fits."""

    levels: Annotated[int, values.level_count] = 4
    """Number of levels."""
    ratio: Annotated[float, values.ratio] = 2.0
    """Ratio of each level to the one below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The compute that may be spent: ``levels``, ``study``, or both.

    ``ladder``, ``fit`` and ``count_scoring`` need ``study``.
    """

    levels: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Budget levels: training FLOPs of a trial (one multiply-add is two, the backward pass twice the forward
    pass); without them the planner chooses a ladder."""
    study_flops: Annotated[int | None, values.compute] = None
    """Cap on the training FLOPs of the whole study."""
    ladder: Ladder = field(default_factory=Ladder)
    """The levels if none are declared."""
    fit: Literal["refuse", "drop"] = "refuse"
    """Response to a grid that exceeds the study budget: ``refuse`` it, or ``drop`` trials until it fits,
    extra seeds of the costliest cells first; where those are not enough, whole levels from the top."""
    count_scoring: bool = False
    """Let the study budget pay for the quality scores that the grid uses: the scoring, and the training of
    scorers that are trials ([what a score costs](data.md#what-a-score-costs))."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that need or exclude another one."""
        if given("ladder") and given("levels"):
            yield "ladder", "ladder lets the planner choose levels, budget.levels declares them: give one"
        for key in ("ladder", "fit", "count_scoring"):
            if given(key) and not given("study"):
                yield key, f"{key} needs budget.study, the cap on the whole study"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridBlock:
    """One block of the grid: the product of its lists. A study's cells are the union of its blocks.

    ``levels`` is allowed only with ``regime: fixed-compute``, and ``samples`` only with ``regime:
    equal-samples``, which needs it.
    """

    architectures: tuple[Annotated[str, values.architecture], ...]
    """Names from the catalogue."""
    strategies: tuple[Annotated[str, values.strategy], ...] = ("clip",)
    """Training strategies."""
    sizes: tuple[Annotated[int | None, values.pairs_or_all], ...] = (None,)
    """Subset sizes in pairs; ``all`` (None) takes all pairs of the quality."""
    quality: tuple[Annotated[str, values.quality], ...] = ("all",)
    """``all``, or ``topNN``: the best NN % of the pool by score; ``topNN by SCORE``: by a named one."""
    mixtures: tuple[Annotated[str, values.name], ...] = ()
    """With ``pools``, in place of ``quality``: names of mixtures; all of the study's by default."""
    regime: Regime = "fixed-compute"
    """Rule for the samples that a trial sees: as many as its level buys (``fixed-compute``), the subset once
    (``one-epoch``), or ``samples`` (``equal-samples``)."""
    levels: tuple[Annotated[int, values.compute], ...] = ()
    """Training FLOPs of a trial; all of the study's levels by default."""
    seeds: tuple[Annotated[int, values.positive_or_zero], ...] = ()
    """Seeds; all of the study's by default."""
    samples: tuple[Annotated[int, values.positive], ...] = ()
    """Samples that a trial sees, only for ``equal-samples``."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that the regime needs or excludes."""
        if (self.regime == "equal-samples") != given("samples"):
            yield "samples", "samples is required with regime: equal-samples, and allowed only there"
        if self.regime != "fixed-compute" and self.levels:
            yield "levels", "levels is allowed only with regime: fixed-compute"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A rule that leaves out the cells that match on every axis that it names (at least one)."""

    architectures: tuple[Annotated[str, values.architecture], ...] = ()
    """Architectures that it matches."""
    strategies: tuple[Annotated[str, values.strategy], ...] = ()
    """Strategies that it matches."""
    sizes: tuple[Annotated[int | None, values.pairs_or_all], ...] = ()
    """Subset sizes in pairs; ``all`` (None) matches all pairs of the quality."""
    quality: tuple[Annotated[str, values.quality], ...] = ()
    """Qualities that it matches."""
    mixtures: tuple[Annotated[str, values.name], ...] = ()
    """Mixtures that it matches."""
    levels: tuple[Annotated[int, values.compute], ...] = ()
    """Budget levels in training FLOPs."""
    regimes: tuple[Regime, ...] = ()
    """Regimes that it matches."""

    def clashes(self, given: Given) -> Clashes:
        """Yield a rule that would leave out every cell."""
        if not any(given(key.name) for key in keys(Exclusion)):
            yield "", "names no axis and would leave out every cell"


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The training of all trials.

    ``cooldown`` needs ``schedule: constant-with-cooldown`` or ``trunk``, ``eps`` with
    ``optimizer: adamw``; ``trunk`` needs ``warmup`` in samples. A batch must be a multiple of ranks times
    ``accumulation``.
    """

    preset: Annotated[str, OneOf(kind="preset", allowed=tuple(PRESETS))] = "default"
    """Named [settings](#presets); declared keys override them."""
    lr_peak: dict[Annotated[str, values.architecture], Annotated[float, values.rate]] = field(
        default_factory=dict
    )
    """Peak learning rate of each architecture; a preset or tuning may give it instead."""
    batch_size: Annotated[int, values.batch] = 64
    """Pairs in a batch of plain CLIP; a strategy may multiply it."""
    lr_rule: LrRule = "none"
    """Scaling of the peak learning rate with the batch, relative to ``batch_size``: ``linear`` as in FLIP,
    ``sqrt``, or ``none``. Rates that are tuned or set by a rule are not scaled."""
    rules: tuple[TrainingRule, ...] = ()
    """Rules that give some trials another batch or peak learning rate."""
    recipe: Annotated[Recipe, At(name="")] = field(default_factory=Recipe)
    """The optimisation."""

    @staticmethod
    def defaults(top: Node) -> "Training":
        """Return the settings of the declared preset."""
        name = top.text("training.preset")
        preset = PRESETS.get(name, PRESETS["default"])
        return Training(
            preset=name if name in PRESETS else "default",
            batch_size=preset.batch_size,
            lr_rule=preset.lr_rule,
            recipe=preset.recipe,
        )


TUNED_FIELDS: Mapping[str, Several] = {
    name: Several(item=read, marks=(RISING,))
    for name, read in {
        "lr_peak": values.rate, "batch_size": values.batch, "weight_decay": values.decay,
        "beta1": values.share_below_one, "beta2": values.share_below_one, "eps": values.epsilon,
        "warmup": values.share_below_one, "warmup_samples": values.positive, "gradient_clip": values.norm,
        "cooldown": values.share_below_one, "ema": values.share_below_one, "unmasked_tail": values.tail,
    }.items()
}  # fmt: skip
"""Fields of the training and its recipe that can be tuned, each with the form of the values to try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Numbers of ``training`` that are tuned for each architecture with each strategy, before the grid runs.

    Needs ``budget.study``. See [Presets](#presets) for the fields that can be tuned. Pairs that are not tuned
    keep their declared values.
    """

    share: Annotated[float, values.positive_share]
    """Share of the study budget that is set aside for tuning."""
    fields: Annotated[
        dict[str, tuple[float, ...]],
        Named(name=OneOf(kind="field", allowed=tuple(TUNED_FIELDS)), item=TUNED_FIELDS),
    ]
    """Field of ``training`` → the values to try, at least two ([which](#presets))."""
    architectures: tuple[Annotated[str, values.architecture], ...] = ()
    """Architectures that are tuned; all by default. ``training.rules`` may except pairs (``tune: false``)."""
    strategies: tuple[Annotated[str, values.strategy], ...] = ()
    """Strategies that they are tuned with; all by default."""
    seeds: tuple[Annotated[int, values.positive_or_zero], ...] = (1000,)
    """Seeds of each value; different from the grid's, so that a lucky seed is not carried into it."""
    metric: Annotated[str | None, values.metric] = None
    """Metric that selects; by default that of the validation set if there is one, else the study's own."""
    levels: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Two levels at which the peak learning rate is tuned. It follows the line through both optima in
    logarithms at all others ([rates that move](declare.md#tuning))."""
    sizes: tuple[Annotated[str, values.architecture], ...] = ()
    """Architectures that are tuned with each strategy and decide for their families. With one of a family,
    the rest of it takes that one's values; with two, whose only field is ``lr_peak``, the rest follows the
    line through both optima over training FLOPs per sample."""
    check: Annotated[float, values.share_of_the_check] = 0.0
    """Share of the study budget, in addition to ``share``, for trying the neighbours of the tuned peak
    learning rates at a larger level; ``true`` means 10%. The report says where a tuned rate is not the best
    there ([what fits](declare.md#tuning))."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that exclude or need each other."""
        if given("fields") and not self.fields:
            yield "fields", "fields names no field to tune"
        for name, values_to_try in self.fields.items():
            if len(values_to_try) < 2:  # noqa: PLR2004 - a choice needs two values
                yield f"fields.{name}", f"fields.{name} needs at least two values to choose from"
        if given("levels") and given("sizes"):
            yield "levels", "levels and sizes exclude each other: a rate is carried along one of them"
        if given("levels") and len(set(self.levels)) != 2:  # noqa: PLR2004 (a line through two points)
            yield "levels", f"levels needs two of them, found {len(set(self.levels))}"
        if given("levels") and set(self.fields) - {"lr_peak"}:
            yield "levels", f"levels needs lr_peak as the only field, found {', '.join(self.fields)}"
        if self.check and "lr_peak" not in self.fields:
            yield "check", "check needs lr_peak among tuning.fields"
        # A share that could not be read is None here.
        if self.share and (most := round(1 - self.share, 9)) < self.check:
            excess = f"check = {self.check:g} is more of the study budget than share = {self.share:g} leaves"
            yield "check", f"{excess}: at most {most:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The choice of the trials that are run: ``full`` runs the grid, ``adaptive`` chooses from it.

    ``design: adaptive`` is short for ``adaptive: true``, ``design: full`` for ``adaptive: false``. The other
    keys need ``adaptive``.
    """

    adaptive: bool = False
    """Choose trials from the grid by how much their results would help to answer the questions, until these
    are answered or the study budget is spent."""
    best: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Levels at which to find the best configuration; by default all levels, or none with a forecast."""
    indifference: Annotated[float, values.share] = 0.01
    """Difference in error that counts as a tie."""
    forecast: Annotated[int | None, values.compute] = None
    """Compute, at most 30 times the largest level, at which to forecast the error of the best
    configuration."""
    width: Annotated[float, values.positive_share] = 0.02
    """Half of the 90 % interval that the forecast may have."""
    confidence: Annotated[float, values.share_within] = 0.95
    """Probability at which a question counts as answered."""

    in_short: ClassVar[Mapping[str, str]] = {"adaptive": "adaptive: true", "full": "adaptive: false"}

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that need an adaptive design."""
        for key in ("best", "indifference", "forecast", "width", "confidence"):
            if given(key) and not self.adaptive:
                yield key, f"{key} needs adaptive"
        if given("width") and not given("forecast"):
            yield "width", "width needs forecast"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits beyond which a cell is not worth its compute."""

    min_steps: Annotated[int, values.positive] = 20
    """Fewest optimiser steps of a trial."""
    max_epochs: Annotated[float, values.epochs] = 1000.0
    """Most passes over a subset."""
    damage: Annotated[float, values.share] = 0.001
    """Share of a subset's pairs that may turn out damaged before a trial fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """The resources that one trial occupies, its restarts and its checkpoints.

    ``cpus``, and ``gpus`` or ``ranks``, must be multiples of ``nodes``. A list in place of the section gives
    ``rules`` alone, and ``resources: auto`` gives ``auto`` alone.
    """

    auto: bool = False
    """Let the planner choose GPUs, nodes, accumulation and gradient checkpointing of each architecture,
    strategy and batch, unless a rule sets them; the default if a cluster is declared and none of ``cpus``,
    ``gpus``, ``nodes`` and ``ranks``."""
    rules: tuple[ResourceRule, ...] = ()
    """Rules that give some trials other amounts than the rest."""
    cpus: Annotated[int | None, values.device_count] = None
    """Processor cores of a trial (one thread each), over all of its nodes; by default a share of the node for
    each of its GPUs, which ``run`` takes from the nodes unless ``cluster.node_cpus`` is declared, and one a
    node without GPUs."""
    gpus: Annotated[int, values.devices_of_a_trial] = 0
    """GPUs of a trial, over all of its nodes, one a rank; 0 trains on the processor."""
    nodes: Annotated[int, values.device_count] = 1
    """Nodes over which a trial is spread in equal parts."""
    ranks: Annotated[int, values.device_count] = 1
    """Processes without GPUs that train one model together, each on its part of every batch."""
    retries: Annotated[int, values.retries] = 3
    """Most restarts of a trial in a row without progress."""
    backoff_s: Annotated[float, values.pause] = 5.0
    """Time before the first retry; each further one waits four times as long."""
    checkpoint_s: Annotated[float, values.seconds] = 30.0
    """Time between checkpoints."""
    checkpoint_steps: Annotated[int, values.positive_or_zero] = 0
    """Most steps between checkpoints; 0 means no limit."""
    hang_s: Annotated[float | None, values.hang] = 600.0
    """Time after which a step counts as hung, unless twenty usual steps take longer; the trial is then
    retried from its last checkpoint. Set-up, evaluation and checkpoints may take 18 times as long."""
    loader_memory: Annotated[int, values.memory] = 2 * 2**30
    """Memory of a rank that its loader workers fill with decoded pairs ahead of training."""
    custom: dict[Annotated[str, values.resource], Annotated[float, values.amount]] = field(
        default_factory=dict
    )
    """A cluster's own resources that a trial occupies: name → amount."""
    wait_s: Annotated[float, values.seconds] = 0.0
    """Longest wait of trials for a node that has room for them."""

    in_short: ClassVar[Mapping[str, str]] = {"auto": "auto: true", A_LIST: "rules"}

    @staticmethod
    def defaults(top: Node) -> "Resources":
        """Return the defaults: with a cluster, amounts that are not declared are chosen."""
        declared = any(top.given(f"resources.{key}") for key in ("cpus", "gpus", "nodes", "ranks"))
        return Resources(auto=top.given("cluster") and not declared)

    def clashes(self, given: Given) -> Clashes:
        """Yield amounts that can't be spread over the nodes, and amounts that the planner chooses."""
        if self.gpus and self.ranks > 1:
            yield "ranks", "ranks is not allowed with GPUs: each of resources.gpus is one rank"
        for key in ("cpus", "gpus", "nodes", "ranks") if self.auto else ():
            if given(key):
                yield key, f"{key} is not allowed with auto, which chooses it; resources.rules may set it"
        if self.auto and any(rule.gpus == 0 for rule in self.rules):
            yield "rules", "rules: gpus = 0 is not allowed with auto, which gives each trial at least one GPU"
        cpus = self.nodes if self.cpus is None else self.cpus
        yield from TrialResources(cpus=cpus, gpus=self.gpus, nodes=self.nodes, ranks=self.ranks).problems()


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The devices that a study is priced on."""

    device: Annotated[str, values.device]
    """Name of the device."""
    count: Annotated[int, values.device_count] = 1
    """Devices; one trial takes ``resources.gpus`` of them, at least one."""
    node_gpus: Annotated[int, values.device_count] = 8
    """Devices of one node."""
    node_cpus: Annotated[int | None, values.device_count] = None
    """Processor cores of one node, which its devices share."""
    scaling: Annotated[float, values.positive_share] = 0.97
    """Share of each device's samples/s that remains if a trial has twice as many devices."""
    utilisation: tuple[Annotated[float, values.share_of_the_peak], ...] = ()
    """Share of the device's peak that training reaches, or the lowest and the highest, if no throughput of
    the architecture and strategy was measured; by default `budgets.devices.usual_range`."""
    price_per_hour: Annotated[float | None, values.price] = None
    """Price of one device for an hour, in any currency."""

    def clashes(self, given: Given) -> Clashes:  # noqa: ARG002
        """Yield a utilisation of more than two values, or with the highest first."""
        if len(self.utilisation) > 2:  # noqa: PLR2004 - the ends of a range
            yield "utilisation", "utilisation is one share of the peak, or the lowest and the highest"
        elif (low_high := self.utilisation) and low_high[0] > low_high[-1]:
            order = f"found {low_high[0]:g} before {low_high[1]:g}"
            yield "utilisation", f"utilisation: the lowest comes first, {order}"

    @property
    def cpus_per_gpu(self) -> int | None:
        """Cores of a node for each of its devices; None if unknown."""
        return None if self.node_cpus is None else max(1, self.node_cpus // self.node_gpus)

    def nodes_of(self, gpus: int) -> int:
        """Return the fewest nodes that hold this number of devices in equal parts."""
        return next(
            nodes for nodes in range(max(1, -(-gpus // self.node_gpus)), gpus + 2) if gpus % nodes == 0
        )
