"""What a researcher declares: plain data, checked for what can be known without looking at a disk.

`study.load` reads it from YAML; everything after works on these classes.
"""

from dataclasses import dataclass, field
from typing import Literal

Regime = Literal["fixed-compute", "one-epoch", "equal-samples"]
REGIMES: tuple[Regime, ...] = ("fixed-compute", "one-epoch", "equal-samples")
PRECISIONS = ("auto", "bf16", "fp32")

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
class GridBlock:
    """One block of the grid: the product of its axes. A study's cells are the union of its blocks.

    Attributes:
        architectures: Names from the catalogue.
        strategies: Names of training strategies.
        sizes: Subset sizes in pairs; None stands for all pairs of the quality.
        quality: ``all`` or ``topNN``: the best NN % of the pool by score.
        levels: Training FLOPs of a trial; all of the study's levels when empty.
        seeds: Seeds; all of the study's when empty.
        regime: How many samples a trial sees (see `budgets.plan`).
        samples: Samples seen of each trial, for `equal-samples` alone.
    """

    architectures: tuple[str, ...]
    strategies: tuple[str, ...] = ("clip",)
    sizes: tuple[int | None, ...] = (None,)
    quality: tuple[str, ...] = ("all",)
    levels: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    regime: Regime = "fixed-compute"
    samples: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The optimisation that all trials share. The learning rate falls as a cosine from its peak to zero.

    Attributes:
        weight_decay: AdamW's, on matrices only.
        beta1: AdamW's first moment decay.
        beta2: AdamW's second moment decay.
        eps: AdamW's epsilon.
        warmup: Share of the steps in which the learning rate rises linearly to its peak.
        gradient_clip: Greatest norm of the gradient.
        precision: ``bf16`` autocast, ``fp32``, or ``auto``: bf16 where the device computes in it.
    """

    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    warmup: float = 0.1
    gradient_clip: float = 1.0
    precision: str = "auto"


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
class Limits:
    """What makes a cell not worth its compute.

    Attributes:
        min_steps: Fewest optimiser steps of a trial.
        max_epochs: Most passes over a subset.
    """

    min_steps: int = 20
    max_epochs: float = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What one trial occupies, how often it may crash, and when it checkpoints.

    Attributes:
        cpus: Processor cores of a trial (one thread each).
        gpus: GPUs of a trial; 0 trains on the processor.
        retries: How often a trial is started again after its worker died.
        checkpoint_s: Seconds between checkpoints.
    """

    cpus: int = 1
    gpus: int = 0
    retries: int = 2
    checkpoint_s: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A whole study as declared.

    Attributes:
        name: Its name, and that of its folder under ``results/``.
        pool: Where the pairs come from.
        levels: Budget levels: training FLOPs of a trial, rising.
        study_flops: Cap on the training FLOPs of the whole study, or None.
        grid: Blocks of cells.
        seeds: Seeds of every cell, where a block names none.
        training: The recipe.
        metric: What the analysis ranks by, ``<evaluation set>/<metric>``.
        evaluation: Further evaluation sets: name → folder in CLIP_benchmark's webdataset layout.
        limits: Feasibility limits.
        resources: Resources of a trial.
    """

    name: str
    pool: EmbeddedPool | FolderPool
    levels: tuple[int, ...]
    study_flops: int | None
    grid: tuple[GridBlock, ...]
    seeds: tuple[int, ...]
    training: Training
    metric: str
    evaluation: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    resources: Resources = field(default_factory=Resources)
