"""A study as its researcher declares it: plain data, checked for what can be known without looking at a disk.

Each class is a section of the YAML file and each field a key (`budgets.keys`); `study.declare.load` reads it.
A new key is a new field, here or in `budgets.recipe`: loading, dumping, docs/declaration.md and the template
follow. A class's ``clashes`` yields each key that contradicts another, with the error from the key on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from budgets import values
from budgets.keys import RISING, At, Given, OneOf, Tuned, keys
from budgets.names import unknown
from budgets.quality import MIXTURE
from budgets.quantity import format_flops
from budgets.recipe import PRESETS, LrRule, Recipe
from budgets.rules import ResourceRule, Rule, TrainingRule, TrialResources, settings

Regime = Literal["fixed-compute", "one-epoch", "equal-samples"]
LoggerName = Literal["tensorboard", "wandb"]
LOGGERS: tuple[LoggerName, ...] = get_args(LoggerName)

EMBEDDED_VERSION = 1
"""Of the embedded pool's generator: raised whenever the same (seed, index) gives another pair than before."""

Clashes = Iterator[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedPool:
    """The pool that comes with the project: captioned emoji scenes, generated from a seed."""

    pairs: Annotated[int, values.positive]
    """Number of image-text pairs."""
    seed: Annotated[int, values.positive_or_zero] = 0
    """Which pairs; another seed gives other scenes of the same kind."""

    @property
    def name(self) -> str:
        """A name that identifies the pool's content."""
        return f"embedded-v{EMBEDDED_VERSION}-{self.pairs}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderPool:
    """A pool of webdataset shards, in the layout that img2dataset writes, in a folder or below a URL."""

    path: Annotated[str, values.place]
    """The folder of a pool of webdataset shards, or the fsspec URL of one that has an index."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedPool:
    """A pool that is not here: enough to plan and price a study, not to run it."""

    name: Annotated[str, values.name]
    """Identifies the content of a pool that is only described; part of each trial's id."""
    pairs: Annotated[int, values.positive]
    """Number of its image-text pairs."""
    scored: bool = False
    """Whether its pairs have a quality score."""


DeclaredPool = EmbeddedPool | FolderPool | DescribedPool


@dataclass(frozen=True, kw_only=True, slots=True)
class MixedPool:
    """A pool of a mixture; a number alone is its ``weight``.

    All pools of a mixture have a weight, or none.
    """

    weight: Annotated[float | None, values.positive_number] = None
    """Its share of the samples seen, relative to the other pools of the mixture; without weights each pair of
    the mixture is seen equally often."""
    quality: Annotated[str, values.quality] = "all"
    """The quality that is taken of it."""
    pairs: Annotated[int | None, values.pairs_or_all] = None
    """How many of these pairs; ``all`` (None) takes all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSet:
    """A set of the user's own; a folder alone stands for its ``path``.

    A set of a described pool may be described as well: ``images`` and ``texts`` in place of ``path``.
    """

    path: Annotated[str | None, values.place] = None
    """Its folder in CLIP_benchmark's webdataset layout, or an fsspec URL of one."""
    probe: bool = False
    """Whether linear and few-shot probes are fitted to its training split."""
    images: Annotated[int | None, values.positive_or_zero] = None
    """Its images, where the pool is only described."""
    texts: Annotated[int | None, values.positive_or_zero] = None
    """Its texts, where the pool is only described."""

    def clashes(self, given: Given) -> Clashes:
        """Yield what is missing, or in the way of another key."""
        described = not (given("path") or self.probe)
        for key in ("images", "texts") if described else ("path",):
            if not given(key):
                yield key, f"{key} is missing"
        for key in () if described else ("images", "texts"):
            if given(key):
                yield key, f"{key} goes without path and probe: it describes a set that is not here"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Budget levels that the planner chooses from the study budget: the highest whose whole grid fits."""

    levels: Annotated[int, values.level_count] = 4
    """Number of levels."""
    ratio: Annotated[float, values.ratio] = 2.0
    """Each level over the one below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The compute that may be spent: ``levels``, ``study``, or both.

    ``ladder`` and ``fit`` go with ``study``.
    """

    levels: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Budget levels: training FLOPs of a trial (one multiply-add is two, the backward pass twice the forward
    pass); without them the planner chooses a ladder."""
    study_flops: Annotated[int | None, values.compute] = None
    """Cap on the training FLOPs of the whole study."""
    ladder: Ladder = field(default_factory=Ladder)
    """Choice of levels where none are declared."""
    fit: Literal["refuse", "drop"] = "refuse"
    """Answer to a grid over the study budget: ``refuse`` it, or ``drop`` trials until it fits, extra seeds of
    the costliest cells first."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that go with others only."""
        if given("ladder") and given("levels"):
            yield "ladder", "ladder has the planner choose levels, budget.levels declares them: give one"
        for key in ("ladder", "fit"):
            if given(key) and not given("study"):
                yield key, f"{key} goes with budget.study, the cap on the whole study"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridBlock:
    """One block of the grid: the product of its lists. A study's cells are the union of its blocks.

    ``levels`` goes with ``regime: fixed-compute`` alone, ``samples`` with ``regime: equal-samples``, which
    needs it.
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
    """How many samples a trial sees: ``fixed-compute`` as many as a level buys, ``one-epoch`` the subset
    once, ``equal-samples`` as many as ``samples`` says."""
    levels: tuple[Annotated[int, values.compute], ...] = ()
    """Training FLOPs of a trial; all of the study's levels by default."""
    seeds: tuple[Annotated[int, values.positive_or_zero], ...] = ()
    """Seeds; all of the study's by default."""
    samples: tuple[Annotated[int, values.positive], ...] = ()
    """Samples seen of a trial, for ``equal-samples`` alone."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that do not go with the regime."""
        if (self.regime == "equal-samples") != given("samples"):
            yield "samples", "samples goes with regime: equal-samples, and that regime needs it"
        if self.regime != "fixed-compute" and self.levels:
            yield "levels", "levels goes with regime: fixed-compute alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A rule that leaves cells out: those that it matches on every axis that it names, at least one."""

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

    ``cooldown`` goes with ``schedule: constant-with-cooldown`` or ``trunk``, ``eps`` with
    ``optimizer: adamw``; ``trunk`` needs ``warmup`` in samples. A batch must be a multiple of ranks times
    ``accumulation``.
    """

    preset: Annotated[str, OneOf(kind="preset", allowed=tuple(PRESETS))] = "default"
    """[Settings](#presets) that are taken over; keys that are declared override them."""
    lr_peak: Annotated[
        dict[Annotated[str, values.architecture], Annotated[float, values.rate]],
        Tuned(),
    ]
    """Peak learning rate of each architecture; a preset or tuning may give it instead."""
    batch_size: Annotated[int, values.batch, Tuned()] = 64
    """Pairs in a batch of plain CLIP; a strategy may multiply it."""
    lr_rule: LrRule = "none"
    """Growth of the peak learning rate with the batch, over that of ``batch_size``: ``linear`` as in FLIP,
    ``sqrt``, or ``none``. Rates that are tuned or set by a rule stay as they are."""
    rules: tuple[TrainingRule, ...] = ()
    """Rules that give some trials another batch or peak learning rate."""
    recipe: Annotated[Recipe, At(name="")] = field(default_factory=Recipe)
    """The optimisation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """Numbers of ``training`` that are tuned for each architecture with each strategy, before the grid runs.

    Needs ``budget.study``. See [Presets](#presets) for the fields that can be tuned.
    """

    share: Annotated[float, values.positive_share]
    """Share of the study budget that is set aside for it."""
    fields: dict[str, tuple[float, ...]]
    """Field of ``training`` → the values to try, at least two ([which](#presets))."""
    seeds: tuple[Annotated[int, values.positive_or_zero], ...] = (1000,)
    """Seeds of each value; apart from the grid's, so that a lucky seed is not carried into it."""
    metric: Annotated[str | None, values.metric] = None
    """Metric that selects; by default the validation set's where there is one, else the study's own."""
    levels: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Two levels at which the peak learning rate is tuned. It follows the line through both optima in
    logarithms at all others ([rates that move](declare.md#tuning))."""
    sizes: tuple[Annotated[str, values.architecture], ...] = ()
    """Two architectures of one family whose peak learning rate is tuned with each strategy. The rest of the
    family follows the line through both optima over training FLOPs per sample."""
    check: Annotated[float, values.share_of_the_check] = 0.0
    """Share of the study budget, beside ``share``, that tries the neighbours of the tuned peak learning rates
    at a larger level; ``true`` stands for 10%. The report says where a tuned rate is not the best there
    ([what fits](declare.md#tuning))."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that do not go together."""
        if given("levels") and given("sizes"):
            yield "levels", "levels and sizes exclude each other: a rate is carried along one of them"
        for key, names in (("levels", self.levels), ("sizes", self.sizes)):
            if given(key) and len(set(names)) != 2:  # noqa: PLR2004 (a line through two points)
                yield key, f"{key} needs two of them, found {len(set(names))}"
            if given(key) and set(self.fields) - {"lr_peak"}:
                yield key, f"{key} goes with lr_peak as the only field, found {', '.join(self.fields)}"
        if self.check and "lr_peak" not in self.fields:
            yield "check", "check goes with lr_peak among the fields"
        # A share that could not be read is None here.
        if self.share and (most := round(1 - self.share, 9)) < self.check:
            said = f"check = {self.check:g} is more of the study budget than share = {self.share:g} leaves"
            yield "check", f"{said}: at most {most:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """The choice of the trials that are run: ``full`` runs the grid, ``adaptive`` chooses from it.

    The word alone stands for ``adaptive: true`` or ``adaptive: false``. The other keys go with ``adaptive``.
    """

    adaptive: bool = False
    """Whether trials are chosen from the grid by what their results would tell, until the questions are
    answered or the study budget is spent."""
    best: Annotated[tuple[Annotated[int, values.compute], ...], RISING] = ()
    """Levels at which the best configuration is asked for; all levels by default."""
    indifference: Annotated[float, values.share] = 0.01
    """Difference in error that counts as a tie."""
    forecast: Annotated[int | None, values.compute] = None
    """Compute at which the error of the best configuration is to be forecast."""
    width: Annotated[float, values.positive_share] = 0.02
    """Half of the 90 % interval that the forecast may have."""
    confidence: Annotated[float, values.share_below_one] = 0.925
    """Probability at which a question counts as answered."""

    def clashes(self, given: Given) -> Clashes:
        """Yield keys of an adaptive design that a full one has no use for."""
        for key in ("best", "indifference", "forecast", "width", "confidence"):
            if given(key) and not self.adaptive:
                yield key, f"{key} goes with adaptive"
        if given("width") and not given("forecast"):
            yield "width", "width goes with forecast"


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
    """Whether the planner chooses GPUs, nodes, accumulation and gradient checkpointing of each architecture,
    strategy and batch, where no rule sets them; by default it does where a cluster and none of ``cpus``,
    ``gpus``, ``nodes`` and ``ranks`` is declared."""
    hours_factor: Annotated[float, values.factor] = 1.25
    """With ``auto``: most GPU-hours of the study over the fewest possible, to end it sooner."""
    rules: tuple[ResourceRule, ...] = ()
    """Rules that give some trials other amounts than the rest."""
    cpus: Annotated[int | None, values.device_count] = None
    """Processor cores of a trial (one thread each), over all of its nodes; by default a share of the node for
    each of its GPUs where ``cluster.node_cpus`` is declared, else one a node."""
    gpus: Annotated[int, values.devices_of_a_trial] = 0
    """GPUs of a trial, over all of its nodes, one a rank; 0 trains on the processor."""
    nodes: Annotated[int, values.device_count] = 1
    """Nodes that a trial is spread over, in equal parts."""
    ranks: Annotated[int, values.device_count] = 1
    """Processes without GPUs that train one model together, each on its part of every batch."""
    retries: Annotated[int, values.retries] = 3
    """How often in a row a trial is started again, where it got no further than the time before."""
    backoff_s: Annotated[float, values.pause] = 5.0
    """Time before the first retry; each further one waits four times as long."""
    checkpoint_s: Annotated[float, values.seconds] = 30.0
    """Time between checkpoints."""
    checkpoint_steps: Annotated[int, values.positive_or_zero] = 0
    """Most steps between checkpoints; 0 leaves it to the time alone."""
    loader_memory: Annotated[int, values.memory] = 2 * 2**30
    """Memory of a rank that its loader workers fill with decoded pairs ahead of training."""
    custom: dict[Annotated[str, values.resource], Annotated[float, values.amount]] = field(
        default_factory=dict
    )
    """A cluster's own resources that a trial occupies: name → amount."""
    wait_s: Annotated[float, values.seconds] = 0.0
    """How long trials wait for a node that has room for them."""

    def clashes(self, given: Given) -> Clashes:
        """Yield what can't be spread over the nodes, and amounts that are chosen."""
        if self.gpus and self.ranks > 1:
            yield "ranks", "ranks goes without GPUs: each of resources.gpus has its rank"
        for key in ("cpus", "gpus", "nodes", "ranks") if self.auto else ():
            if given(key):
                yield key, f"{key} goes without auto, which chooses it; resources.rules may set it"
        if given("hours_factor") and not self.auto:
            yield "hours_factor", "hours_factor goes with auto"
        yield from self.of_a_trial().problems()

    def of_a_trial(self) -> TrialResources:
        """Return the amounts of a trial that no rule matches, on a cluster whose nodes' cores are unknown."""
        cpus = self.nodes if self.cpus is None else self.cpus
        return TrialResources(cpus=cpus, gpus=self.gpus, nodes=self.nodes, ranks=self.ranks)


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
    """Share of each device's samples a second that is left when a trial has twice as many devices."""
    utilisation: (
        tuple[Annotated[float, values.share_of_the_peak], Annotated[float, values.share_of_the_peak]] | None
    ) = None
    """Lowest and highest share of the device's peak that training reaches, where no throughput of the
    architecture and strategy was measured; by default `budgets.hardware.devices.UTILISATION`."""
    price_per_hour: Annotated[float | None, values.price] = None
    """Price of one device for an hour, in any currency."""

    @property
    def cpus_per_gpu(self) -> int | None:
        """Cores of a node for each of its devices, or None where they are unknown."""
        return None if self.node_cpus is None else max(1, self.node_cpus // self.node_gpus)

    def nodes_of(self, gpus: int) -> int:
        """Return the fewest nodes that hold so many devices in equal parts."""
        return next(
            nodes for nodes in range(max(1, -(-gpus // self.node_gpus)), gpus + 2) if gpus % nodes == 0
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A whole study as declared."""

    name: Annotated[str, values.name, At(name="study")]
    """Its name, and that of its folder under ``results/``."""
    catalogue: Annotated[str | None, values.path] = None
    """Folder of the user's own architectures, one JSON file each. This path, like those of the pool and of
    evaluation sets, is relative to the declaration's folder."""
    pool: (
        Annotated[EmbeddedPool, At(name="embedded")]
        | Annotated[FolderPool, At(name="")]
        | Annotated[DescribedPool, At(name="")]
        | None
    ) = None
    """Where the pairs come from: ``embedded``, ``path``, or ``name``, ``pairs`` and ``scored`` of a pool that
    is not here. A study has a ``pool``, or ``pools``."""
    pools: dict[
        Annotated[str, values.name],
        Annotated[EmbeddedPool, At(name="embedded")]
        | Annotated[FolderPool, At(name="")]
        | Annotated[DescribedPool, At(name="")],
    ] = field(default_factory=dict)
    """Pools that are mixed, each a section like ``pool``, or its ``path`` alone."""
    mixtures: dict[Annotated[str, values.name], dict[str, MixedPool]] = field(default_factory=dict)
    """Mixtures of ``pools``, an axis of the grid ([mixtures](data.md#mixtures))."""
    storage: Annotated[str | None, values.storage] = None
    """Folder that all nodes share, in which results and generated pools are kept, or an fsspec URL of what
    they share instead; by default ``results`` and ``pools`` where the command runs."""
    metric: Annotated[str, values.metric] = "held-out/top1"
    """Metric that the analysis ranks by."""
    evaluation_sets: Annotated[dict[str, EvaluationSet], At(name="evaluation")] = field(default_factory=dict)
    """Further evaluation sets."""
    evaluate_at: Annotated[
        tuple[Annotated[float, values.share_within], ...], RISING, At(name="evaluation.at")
    ] = ()
    """Shares of a trial's steps after which it is evaluated as well; beside the budget, like the last
    evaluation."""
    budget: Budget = field(default_factory=Budget)
    """The compute that may be spent; ``fixed-compute`` blocks need it."""
    seeds: tuple[Annotated[int, values.positive_or_zero], ...] = (0,)
    """Seeds of every cell, where a block names none."""
    grid: tuple[GridBlock, ...]
    """Blocks of cells."""
    exclude: tuple[Exclusion, ...] = ()
    """Rules that leave cells of the grid out."""
    design: Design = field(default_factory=Design)
    """The choice of the trials that are run."""
    tuning: Tuning | None = None
    """Numbers that are tuned before the grid runs."""
    training: Training
    """The recipe."""
    limits: Limits = field(default_factory=Limits)
    """Feasibility limits."""
    resources: Resources = field(default_factory=Resources)
    """Resources of a trial."""
    cluster: Cluster | None = None
    """The devices that the study is priced on."""
    loggers: tuple[LoggerName, ...] = ()
    """Other tools that are written to ([watching](watching.md))."""

    @property
    def sources(self) -> Mapping[str, DeclaredPool]:
        """The pools by name; a single pool has the name ``""``."""
        return self.pools if self.pool is None else {"": self.pool}

    @property
    def described(self) -> bool:
        """True if the pools are only described."""
        return any(isinstance(pool, DescribedPool) for pool in self.sources.values())

    def qualities(self, block: GridBlock) -> tuple[str, ...]:
        """Return the qualities of a block, or its mixtures with their prefix."""
        names = block.mixtures or tuple(self.mixtures)
        return tuple(f"{MIXTURE}{name}" for name in names) if self.mixtures else block.quality

    @property
    def levels(self) -> tuple[int, ...]:
        """Training FLOPs of a trial at each budget level; empty where the planner chooses a ladder."""
        return self.budget.levels

    @property
    def study_flops(self) -> int | None:
        """Cap on the training FLOPs of the whole study, or None."""
        return self.budget.study_flops

    @property
    def ladder(self) -> Ladder:
        """Choice of levels where none are declared."""
        return self.budget.ladder

    @property
    def fit(self) -> Literal["refuse", "drop"]:
        """Answer to a grid over the study budget."""
        return self.budget.fit

    @property
    def evaluation(self) -> dict[str, str]:
        """Evaluation sets that are here: name → folder."""
        return {name: each.path for name, each in self.evaluation_sets.items() if each.path is not None}

    @property
    def probes(self) -> tuple[str, ...]:
        """Evaluation sets to whose training split probes are fitted."""
        return tuple(name for name, each in self.evaluation_sets.items() if each.probe)

    @property
    def evaluation_counts(self) -> dict[str, tuple[int, int]]:
        """Images and texts of evaluation sets that are only described."""
        return {
            name: (each.images or 0, each.texts or 0)
            for name, each in self.evaluation_sets.items()
            if each.path is None
        }

    def clashes(self, given: Given) -> Clashes:
        """Yield what one section has against another."""
        levelled = any(block.regime == "fixed-compute" for block in self.grid)
        if levelled and not (self.levels or self.study_flops):
            wanted = (
                "levels (training FLOPs of a trial), a study budget (study:) to choose them from, or both"
            )
            yield "budget", f"budget needs {wanted}"
        strange = [level for level in self.design.best if self.levels and level not in self.levels]
        if strange:
            levels = ", ".join(map(format_flops, self.levels))
            yield "design.best", f"design.best: {format_flops(strange[0])} is no level of the study: {levels}"
        if self.tuning is not None:
            yield from self._tuning(self.tuning)
        if self.resources.auto and self.cluster is None:
            yield "resources.auto", "resources.auto chooses for a cluster: declare cluster"
        yield from self._pools()
        yield from self._mixtures()
        if not self.described:
            for key in (f"evaluation.{name}" for name in self.evaluation_counts):
                yield key, f"{key} needs a folder; images and texts alone go with a described pool"
        yield from self._metrics(given)
        yield from self._amounts()
        for number, block in enumerate(self.grid, start=1):
            yield from self._unlisted(f"grid[{number}].levels", block.levels)
        lists: dict[str, tuple[Exclusion | Rule, ...]] = {"exclude": self.exclude, **self._rules}
        for key, rules in lists.items():
            for number, rule in enumerate(rules, start=1):
                yield from self._unlisted(f"{key}[{number}].levels", rule.levels)

    def _pools(self) -> Clashes:
        """Yield pools without mixtures, mixtures without pools, and pools that can't be mixed."""
        if self.pool is not None:
            for key in ("pools", "mixtures"):
                if getattr(self, key):
                    yield key, f"{key} goes without pool: name each pool under pools"
        elif not (self.pools and self.mixtures):
            missing = "mixtures" if self.pools else "pools" if self.mixtures else "pool"
            yield missing, f"{missing} is missing: declare a pool, or pools and mixtures of them"
        if self.described and not all(isinstance(pool, DescribedPool) for pool in self.sources.values()):
            yield "pools", "pools: either all of them are described (name, pairs, scored), or none"
        for name, parts in self.mixtures.items():
            yield from self._mixture(f"mixtures.{name}", parts)

    def _mixture(self, at: str, parts: Mapping[str, MixedPool]) -> Clashes:
        """Yield what makes no mixture."""
        if not parts:
            yield at, f"{at} names no pool"
        for pool in parts:
            if pool not in self.pools:
                yield f"{at}.{pool}", f"{at}: {unknown('pool', pool, self.pools)}"
        bare = [pool for pool, part in parts.items() if part.weight is None]
        if bare and len(bare) < len(parts):
            said = "weight is missing: give each pool of the mixture one, or none of them"
            yield f"{at}.{bare[0]}", f"{at}.{bare[0]}.{said}"

    def _mixtures(self) -> Clashes:
        """Yield blocks and rules of the grid that contradict the mixtures."""
        counted = [
            name
            for name, parts in self.mixtures.items()
            if any(part.pairs is not None for part in parts.values())
        ]
        for number, block in enumerate(self.grid, start=1):
            yield from self._of_the_mixtures(f"grid[{number}]", block)
            here = [name for name in counted if name in (block.mixtures or counted)]
            if here and block.sizes != (None,):
                at = f"grid[{number}].sizes"
                yield at, f"{at}: the mixture {here[0]} declares pairs of its pools, which only all goes with"
        for number, rule in enumerate(self.exclude, start=1):
            yield from self._of_the_mixtures(f"exclude[{number}]", rule)

    def _of_the_mixtures(self, at: str, of: GridBlock | Exclusion) -> Clashes:
        """Yield mixtures that are not declared, and a quality beside mixtures."""
        for name in of.mixtures:
            if name not in self.mixtures:
                yield f"{at}.mixtures", f"{at}.mixtures: {unknown('mixture', name, self.mixtures)}"
        if self.mixtures and of.quality != (() if isinstance(of, Exclusion) else ("all",)):
            instead = "mixtures: {NAME: {POOL: {quality: top20}}}"
            yield f"{at}.quality", f"{at}.quality: a mixture's pools have their own quality: {instead}"

    def _tuning(self, tuning: Tuning) -> Clashes:
        """Yield what the tuning has against the rest: no budget, or places that the grid does not have."""
        if self.study_flops is None:
            yield "tuning.share", "tuning.share is a share of the study budget: declare budget.study"
        yield from self._unlisted("tuning.levels", tuning.levels)
        used = dict.fromkeys(name for block in self.grid for name in block.architectures)
        for name in tuning.sizes:
            if name not in used:
                yield "tuning.sizes", f"tuning.sizes: {unknown('architecture', name, used)}"

    @property
    def shares_trunks(self) -> bool:
        """True if the levels of a curve share a trunk: not if each has a tuned rate of its own."""
        apart = self.tuning is not None and bool(self.tuning.levels)
        return self.training.recipe.schedule == "trunk" and not apart

    @property
    def _rules(self) -> dict[str, tuple[Rule, ...]]:
        return {"resources.rules": self.resources.rules, "training.rules": self.training.rules}

    @property
    def ruled_by_level(self) -> bool:
        """True if trials of an architecture and a strategy may differ by level in more than length."""
        return any(rule.levels for rules in self._rules.values() for rule in rules)

    def resource_settings(self, architecture: str, strategy: str, level: int | None) -> Mapping[str, Any]:
        """Return the keys of resources that rules set for a cell."""
        return settings(self.resources.rules, architecture, strategy, level)

    def training_settings(self, architecture: str, strategy: str, level: int | None) -> Mapping[str, Any]:
        """Return the keys of training that rules set for a cell."""
        return settings(self.training.rules, architecture, strategy, level)

    def trial_resources(self, ruled: Mapping[str, Any]) -> TrialResources:
        """Return what a trial occupies, before the planner chooses: as declared, but for what rules set."""
        cluster, resources = self.cluster, self.resources
        gpus = ruled.get("gpus", resources.gpus)
        fewest = cluster.nodes_of(gpus) if cluster is not None and "gpus" in ruled else resources.nodes
        nodes = ruled.get("nodes", fewest)
        share = None if cluster is None else cluster.cpus_per_gpu
        cpus = ruled.get("cpus", resources.cpus)
        if cpus is None:
            cpus = gpus * share if share and gpus else nodes
        return TrialResources(cpus=cpus, gpus=gpus, nodes=nodes, ranks=1 if gpus else resources.ranks)

    def _metrics(self, given: Given) -> Clashes:
        """Yield a metric of a set that is not declared; the sets of a pool that is here are known later."""
        if not self.evaluation_counts or not self.described:
            return
        own = self.metric if given("metric") else None
        for key, metric in (("metric", own), ("tuning.metric", self.tuning and self.tuning.metric)):
            name = (metric or "").partition("/")[0]
            if metric and name not in self.evaluation_sets:
                yield key, f"{key}: {unknown('evaluation set', name, self.evaluation_sets)}"

    def _amounts(self) -> Clashes:
        """Yield the first trial whose amounts contradict each other, its batch, or the cluster."""
        levels = self.levels if self.ruled_by_level else (None,)
        cells: dict[tuple[str, str, int | None], None] = {("", "", None): None}
        if any(self._rules.values()):
            cells = {
                (architecture, strategy, level): None
                for block in self.grid
                for architecture in block.architectures
                for strategy in block.strategies
                for level in levels
            }
        for cell in cells:
            problems = list(self._problems(*cell))
            if problems:
                yield from problems
                return

    def _problems(self, architecture: str, strategy: str, level: int | None) -> Clashes:
        """Yield what contradicts itself in the settings of a cell; no names stand for one without rules."""
        ruled = self.resource_settings(architecture, strategy, level)
        trial = self.trial_resources(ruled)
        where = f" ({architecture} {strategy})" if architecture else ""
        if ruled:
            for key, problem in trial.problems():
                yield "resources", f"resources.{key}{where}: {problem}"
        if self.cluster is not None and self.cluster.count < trial.devices:
            count = f"cluster.count = {self.cluster.count}"
            yield "cluster.count", f"{count} is fewer than resources.gpus = {trial.gpus} of one trial{where}"
        if self.evaluate_at and self.training.recipe.schedule == "trunk":
            why = "a trial that continues from its trunk has not been at the earlier shares"
            yield "evaluation.at", f"evaluation.at goes without training.schedule: trunk: {why}"
        # A batch, of those that are tuned, too, must be shared evenly by its ranks and parts.
        parts = ruled.get("accumulation", self.training.recipe.accumulation)
        shares = max(trial.gpus, trial.ranks) * parts
        tuned = () if self.tuning is None else self.tuning.fields.get("batch_size", ())
        declared = self.training_settings(architecture, strategy, level).get(
            "batch_size", self.training.batch_size
        )
        uneven = [size for size in tuned or (declared,) if size % shares]
        if uneven:
            size = f"{'tuning.fields' if tuned else 'training'}.batch_size = {uneven[0]:g}{where}"
            of = "ranks (resources.gpus, or resources.ranks) times training.accumulation"
            yield (
                "tuning" if tuned else "training",
                f"{size} can't be cut into {shares} equal parts: {of}",
            )

    def _unlisted(self, key: str, levels: tuple[int, ...]) -> Clashes:
        """Yield a level that the study does not have."""
        unlisted = [format_flops(level) for level in levels if level not in self.levels]
        if unlisted:
            listed = ", ".join(map(format_flops, self.levels)) or "none"
            yield key, f"{key} must be among budget.levels ({listed}); {unlisted[0]} is not"

    def unmatched(self) -> Clashes:
        """Yield values of rules that no block of the grid has."""
        axes = {"exclude": ("architectures", "strategies", "sizes", "quality", "mixtures", "regimes")}
        lists: dict[str, tuple[Exclusion | Rule, ...]] = {"exclude": self.exclude, **self._rules}
        for key, rules in lists.items():
            for number, rule in enumerate(rules, start=1):
                for axis in axes.get(key, ("architectures", "strategies")):
                    # A block that names no mixtures has all of them.
                    blocks = [
                        (b.regime,) if axis == "regimes" else getattr(b, axis) or tuple(self.mixtures)
                        for b in self.grid
                    ]
                    for value in sorted(set(getattr(rule, axis)).difference(*blocks), key=str):
                        at, shown = f"{key}[{number}].{axis}", "all" if value is None else value
                        yield at, f"{at}: no block of the grid has {shown}"


def require_runnable(declaration: Declaration) -> None:
    """Refuse a study whose pool is only described.

    Raises:
        ValueError: The pool is only described.
    """
    for pool in declaration.sources.values():
        if not isinstance(pool, DescribedPool):
            continue
        raise ValueError(
            f"the pool {pool.name} is only described (name, pairs, scored): the study can be "
            "planned and priced, not run; to run it, give pool: {path: FOLDER} or pool: {embedded: {…}}"
        )
