"""A trial and its cell as plain data: everything that decides the result, and the costs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Regime
from budgets.planning.facts import Component
from budgets.planning.identity import trial_id
from budgets.quantity import format_count, format_flops


def evaluated_steps(shares: Iterable[float], steps: int) -> set[int]:
    """Return the steps after which a trial is evaluated on the way, at some shares of its steps.

    Shares that are rounded to the same step, or to the end, have no evaluation of their own.
    """
    return {math.ceil(share * steps) for share in shares} - {steps}


Combination = tuple[str, str]
"""Names of an architecture and of a strategy that trains it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A point of the grid: a trial without its seed.

    Attributes:
        regime: Rule that decides the samples seen.
        subset_size: Pairs in the subset.
        quality: ``all``, ``topN``, ``topN by SCORE``, ``subset:NAME`` or ``mixture:NAME``.
        architecture: Name in the catalogue.
        strategy: Name of the strategy.
        level_flops: Budget level in training FLOPs; None unless the regime is `fixed-compute`.
    """

    regime: Regime
    subset_size: int
    quality: str
    architecture: str
    strategy: str
    level_flops: int | None

    @property
    def combination(self) -> Combination:
        """Architecture and strategy, which decide the samples a second of a trial on its device."""
        return self.architecture, self.strategy

    @property
    def level(self) -> str:
        """The budget level in words; the regime if there is none."""
        return self.regime if self.level_flops is None else format_flops(self.level_flops)

    def __str__(self) -> str:
        """Return the cell on one line."""
        buys = f"({self.level})" if self.level_flops is None else f"at {self.level}"
        subset = f"{format_count(self.subset_size)} pairs ({self.quality})"
        return f"{self.architecture} {self.strategy} on {subset} {buys}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A cell with a seed: everything that decides its result, as plain data.

    Attributes:
        cell: The cell.
        seed: The seed; initial weights, order of samples and augmentation derive from it.
        pool: Content id of the pool; for a mixture, those of its pools, joined by ``+``.
        evaluation_sets: Content ids of the evaluation sets.
        architecture_config: The architecture in open_clip's model-config form.
        samples_seen: Image-text pairs seen in training, in whole batches.
        batch_size: Pairs in a batch, the strategy's factor included.
        lr_peak: Peak learning rate.
        recipe: The other optimisation settings.
        train_flops_per_sample: Training FLOPs of one pair (`budgets.cost.flops.CONVENTION`).
        tail_flops_per_sample: Training FLOPs of one pair in the unmasked tail; 0 without one.
        evaluation_flops: Forward FLOPs of all its evaluations.
        evaluations: Evaluations: the last one, and those at shares of its steps.
        parameters: Trainable parameters, the strategy's head included.
        batch_norm: True if the model has batch norm, see `budgets.planning.identity`.
        resources: Resources that it runs on; they do not change its result.
        previous: Id of the next shorter trial of its trunk (`budgets.planning.levels.trunks`), whose
            milestone it continues from; empty without one. It does not change the result.
        shared_samples: Samples up to that milestone, which the shorter trials pay for.
        mixture: Components of a mixture; empty without one.
        trial_id: Identifies the trial in any study, see `budgets.planning.identity`.
    """

    cell: Cell
    seed: int
    pool: str
    evaluation_sets: tuple[str, ...]
    architecture_config: Mapping[str, object]
    samples_seen: int
    batch_size: int
    lr_peak: float
    recipe: Recipe
    train_flops_per_sample: int
    evaluation_flops: int
    parameters: int
    tail_flops_per_sample: int = 0
    batch_norm: bool = False
    evaluations: int = 1
    resources: TrialResources = field(default_factory=TrialResources)
    previous: str = ""
    shared_samples: int = 0
    mixture: tuple[Component, ...] = ()
    trial_id: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Derive the id."""
        object.__setattr__(self, "trial_id", trial_id(self))

    @property
    def flops_per_evaluation(self) -> int:
        """Forward FLOPs of one evaluation."""
        return self.evaluation_flops // self.evaluations

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.samples_seen // self.batch_size

    @property
    def epochs(self) -> float:
        """Passes over the subset; over a mixture, the mean of its pairs."""
        return self.samples_seen / self.cell.subset_size

    @property
    def components(self) -> tuple[Component, ...]:
        """The pools' parts of its pairs: one, or those of a mixture."""
        cell = self.cell
        one = Component(name="", pool=self.pool, quality=cell.quality, pairs=cell.subset_size, share=1)
        return self.mixture or (one,)

    def share_of(self, component: Component) -> float:
        """Return a component's share of the samples seen."""
        return component.share / sum(each.share for each in self.components)

    @property
    def train_flops(self) -> int:
        """Training FLOPs of the whole trial."""
        return self.train_flops_after(self.samples_seen)

    def train_flops_after(self, samples: int) -> int:
        """Training FLOPs of the first ``samples`` samples."""
        # The unmasked tail is the end of the run and has its own price per sample.
        tail = self.recipe.tail_steps(self.steps) * self.batch_size
        unmasked = max(0, samples - (self.samples_seen - tail))
        return (samples - unmasked) * self.train_flops_per_sample + unmasked * self.tail_flops_per_sample

    @property
    def milestone_step(self) -> int:
        """Steps after which its branch leaves its trunk; 0 without a trunk."""
        return self.recipe.trunk_steps(self.steps)

    @property
    def paid_flops(self) -> int:
        """Training FLOPs that the trial costs the study: those after the milestone that it continues from."""
        return self.paid_flops_after(self.samples_seen)

    def paid_flops_after(self, samples: int) -> int:
        """Training FLOPs that the first ``samples`` samples cost the study."""
        shared = self.train_flops_after(self.shared_samples) if self.shared_samples else 0
        return max(0, self.train_flops_after(samples) - shared)
