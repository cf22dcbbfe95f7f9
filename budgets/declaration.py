"""What a researcher declares: plain data, checked for what can be known without looking at a disk.

`study.declare.load` reads it from YAML; everything after works on these classes.
"""

from dataclasses import dataclass, field
from typing import Literal

from budgets.recipe import Recipe

Regime = Literal["fixed-compute", "one-epoch", "equal-samples"]
REGIMES: tuple[Regime, ...] = ("fixed-compute", "one-epoch", "equal-samples")
Fit = Literal["refuse", "drop"]
FITS: tuple[Fit, ...] = ("refuse", "drop")
LOGGERS = ("tensorboard", "wandb")

EMBEDDED_VERSION = 1
"""Of the embedded pool's generator: raised whenever the same (seed, index) gives another pair than before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedPool:
    """The pool that comes with the project: captioned emoji scenes, generated from a seed.

    Attributes:
        pairs: Number of image-text pairs.
        seed: Which pairs; another seed gives other scenes of the same kind.
    """

    pairs: int
    seed: int = 0

    @property
    def name(self) -> str:
        """A name that identifies the pool's content."""
        return f"embedded-v{EMBEDDED_VERSION}-{self.pairs}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderPool:
    """A folder of webdataset shards, in the layout that img2dataset writes.

    Attributes:
        path: The folder.
    """

    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedPool:
    """A pool that is not here: enough to plan and price a study, not to run it.

    Attributes:
        name: Identifies the pool's content; part of each trial's id.
        pairs: Number of image-text pairs.
        scored: Whether the pairs have a quality score.
    """

    name: str
    pairs: int
    scored: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GridBlock:
    """One block of the grid: the product of its axes. A study's cells are the union of its blocks.

    Attributes:
        architectures: Names from the catalogue.
        strategies: Names of training strategies.
        sizes: Subset sizes in pairs; None stands for all pairs of the quality.
        quality: ``all`` or ``topNN``: the best NN % of the pool by score.
        levels: Training FLOPs of a trial; all of the study's levels when empty.
        seeds: Seeds; all of the study's when empty.
        regime: How many samples a trial sees (see `budgets.planning.plan`).
        samples: Samples seen of a trial, for `equal-samples` alone.
    """

    architectures: tuple[str, ...]
    strategies: tuple[str, ...] = ("clip",)
    sizes: tuple[int | None, ...] = (None,)
    quality: tuple[str, ...] = ("all",)
    levels: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    regime: Regime = "fixed-compute"
    samples: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Exclusion:
    """A rule that leaves cells out: those that it matches on every axis that it names. An empty axis is any.

    Attributes:
        architectures: Architectures that it matches.
        strategies: Strategies.
        sizes: Subset sizes in pairs; None stands for all pairs of the quality.
        quality: Qualities.
        levels: Budget levels in training FLOPs.
        regimes: Regimes.
    """

    architectures: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    sizes: tuple[int | None, ...] = ()
    quality: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()
    regimes: tuple[Regime, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Budget levels that the planner chooses from the study budget: the highest whose whole grid fits.

    Attributes:
        levels: Number of levels.
        ratio: Each level over the one below.
    """

    levels: int = 4
    ratio: float = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How trials train.

    Attributes:
        lr_peak: Peak learning rate of each architecture.
        batch_size: Pairs in a batch of plain CLIP; a strategy may multiply it.
        recipe: What all trials share.
    """

    lr_peak: dict[str, float]
    batch_size: int = 64
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What is tuned for each architecture with each strategy, before the grid runs.

    Attributes:
        share: Share of the study budget that is set aside for it.
        fields: Field of `Training` or `Recipe` → the values to try, rising.
        seeds: Seeds of each value; apart from the grid's, so that a lucky seed is not carried into it.
        metric: What selects, ``<evaluation set>/<metric>``; None stands for the validation set's where there
            is one, else the study's own.
    """

    share: float
    fields: dict[str, tuple[float, ...]]
    seeds: tuple[int, ...] = (1000,)
    metric: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What makes a cell not worth its compute.

    Attributes:
        min_steps: Fewest optimiser steps of a trial.
        max_epochs: Most passes over a subset.
        damage: Share of a subset's pairs that may turn out damaged before a trial fails.
    """

    min_steps: int = 20
    max_epochs: float = 1000.0
    damage: float = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one trial occupies, how often it may crash, and when it checkpoints.

    Attributes:
        cpus: Processor cores of a trial (one thread each), over all of its nodes.
        gpus: GPUs of a trial, over all of its nodes, one a rank; 0 trains on the processor.
        nodes: Nodes that a trial is spread over, in equal parts.
        ranks: Processes without GPUs that train one model together, each on its part of every batch.
        retries: How often in a row a trial is started again, where it got no further than the time before.
        backoff_s: Seconds before the first of these; each further one waits four times as long.
        checkpoint_s: Seconds between checkpoints.
        checkpoint_steps: Most steps between them; 0 leaves it to the seconds alone.
        custom: What else of a cluster's own resources a trial occupies: name → amount.
        wait_s: How long trials wait for a node that has room for them, in seconds.
    """

    cpus: int = 1
    gpus: int = 0
    nodes: int = 1
    ranks: int = 1
    retries: int = 3
    backoff_s: float = 5.0
    checkpoint_s: float = 30.0
    checkpoint_steps: int = 0
    custom: dict[str, float] = field(default_factory=dict)
    wait_s: float = 0.0

    @property
    def ranks_per_node(self) -> int:
        """Processes on each node that train one model together."""
        return max(self.gpus, self.ranks) // self.nodes


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """The devices that a study is priced on.

    Attributes:
        device: A name of `budgets.devices`.
        count: Devices; one trial takes `Resources.gpus` of them, at least one.
        utilisation: Lowest and highest share of the device's peak that training reaches, where no throughput
            of the architecture and strategy was measured; None stands for `budgets.devices.UTILISATION`.
        price_per_hour: Price of one device for an hour, in any currency, or None.
    """

    device: str
    count: int = 1
    utilisation: tuple[float, float] | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A whole study as declared.

    Attributes:
        name: Its name, and that of its folder under ``results/``.
        pool: Where the pairs come from.
        levels: Budget levels: training FLOPs of a trial, rising; empty where the planner chooses a ladder.
        study_flops: Cap on the training FLOPs of the whole study, or None.
        grid: Blocks of cells.
        seeds: Seeds of every cell, where a block names none.
        training: The recipe.
        metric: What the analysis ranks by, ``<evaluation set>/<metric>``.
        evaluation: Further evaluation sets: name → folder in CLIP_benchmark's webdataset layout.
        probes: Those of them to whose training split linear and few-shot probes are fitted.
        limits: Feasibility limits.
        resources: Resources of a trial.
        exclude: Rules that leave cells of the grid out.
        ladder: How levels are chosen where none are declared.
        fit: What becomes of a grid over the study budget: ``refuse`` it, or ``drop`` trials until it fits.
        evaluation_counts: Images and texts of evaluation sets that are described, as their pool is.
        cluster: What the study is priced on, or None.
        catalogue: Folder of the user's own architectures, one JSON file each, or None.
        storage: Folder that all nodes share, in which results and generated pools are kept, or an fsspec URL
            of what they share instead, or None for ``results`` and ``pools`` where the command runs.
        tuning: What is tuned before the grid runs, or None.
        loggers: Other tools that are written to, of `LOGGERS`.
    """

    name: str
    pool: EmbeddedPool | FolderPool | DescribedPool
    levels: tuple[int, ...]
    study_flops: int | None
    grid: tuple[GridBlock, ...]
    seeds: tuple[int, ...]
    training: Training
    metric: str
    evaluation: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    resources: Resources = field(default_factory=Resources)
    exclude: tuple[Exclusion, ...] = ()
    ladder: Ladder = field(default_factory=Ladder)
    fit: Fit = "refuse"
    evaluation_counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    cluster: Cluster | None = None
    catalogue: str | None = None
    storage: str | None = None
    probes: tuple[str, ...] = ()
    tuning: Tuning | None = None
    loggers: tuple[str, ...] = ()


def require_runnable(declaration: Declaration) -> None:
    """Refuses a study whose pool is only described.

    Raises:
        ValueError: The pool is only described.
    """
    if isinstance(declaration.pool, DescribedPool):
        raise ValueError(  # noqa: TRY004 - what a user declared
            f"the pool {declaration.pool.name} is only described (name, pairs, scored): the study can be "
            "planned "
            "and priced, not run; to run it, give pool: {path: FOLDER} or pool: {embedded: {pairs: …}}"
        )
