"""The planner: a declaration and a pool's size → trials, what each costs, and what was left out and why.

Every cell of the grid either becomes trials or is left out with a reason that carries its numbers.
Planning is a pure function: the same declaration gives the same plan, in the same order.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product

from budgets.architecture import Architecture, load_architecture
from budgets.declaration import Declaration, GridBlock, Recipe, Regime
from budgets.flops import image_forward_macs, parameters, sample_cost, text_forward_macs
from budgets.quality import available
from budgets.quantity import format_count, format_flops
from budgets.strategy import inapplicable, strategy

_IDENTITY_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """What the planner must know of a pool.

    Attributes:
        name: Identifies the pool's content; part of each trial's id.
        pairs: Number of image-text pairs.
        scored: Whether the pairs have a quality score.
    """

    name: str
    pairs: int
    scored: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFacts:
    """What the planner must know of the evaluation sets together.

    Attributes:
        names: Names of the sets; part of each trial's id, since its row holds their metrics.
        images: Images encoded in one evaluation of a trial.
        texts: Texts encoded in one evaluation of a trial.
    """

    names: tuple[str, ...]
    images: int
    texts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """Compute that the study pays once, beside its trials.

    Attributes:
        what: What it buys.
        train_flops: Training FLOPs.
        evaluation_flops: Forward FLOPs.
    """

    what: str
    train_flops: int
    evaluation_flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A point of the grid: all but the seed.

    Attributes:
        regime: What decides the samples seen.
        subset_size: Pairs in the subset.
        quality: ``all`` or ``topNN``.
        architecture: Name in the catalogue.
        strategy: Name of the strategy.
        level_flops: Budget level in training FLOPs, for `fixed-compute` alone.
    """

    regime: Regime
    subset_size: int
    quality: str
    architecture: str
    strategy: str
    level_flops: int | None

    def __str__(self) -> str:
        """The cell on one line."""
        level = "" if self.level_flops is None else f" at {format_flops(self.level_flops)}"
        subset = f"{format_count(self.subset_size)} pairs ({self.quality})"
        return f"{self.architecture} {self.strategy} on {subset}{level}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A cell with a seed: everything that decides its result, as plain data.

    Attributes:
        cell: The cell.
        seed: The seed; initial weights, order of samples and augmentation derive from it.
        pool: Name of the pool's content.
        evaluation_sets: Names of the sets that it is evaluated on.
        architecture_config: The architecture in open_clip's model-config form.
        samples_seen: Image-text pairs that pass through training, whole batches.
        batch_size: Pairs in a batch, the strategy's factor included.
        lr_peak: Peak learning rate.
        recipe: The rest of the optimisation.
        train_flops_per_sample: Training FLOPs of one pair (`budgets.flops.CONVENTION`).
        evaluation_flops: Forward FLOPs of its evaluation.
        parameters: Trainable parameters, the strategy's head included.
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
    trial_id: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Derives the id: a hash of all that decides the result, so that the same trial has it in any study."""
        identity = asdict(self, dict_factory=lambda items: {k: v for k, v in items if k not in _DERIVED})
        text = json.dumps([_IDENTITY_VERSION, identity], sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "trial_id", hashlib.sha256(text.encode()).hexdigest()[:12])

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.samples_seen // self.batch_size

    @property
    def epochs(self) -> float:
        """Passes over the subset."""
        return self.samples_seen / self.cell.subset_size

    @property
    def train_flops(self) -> int:
        """Training FLOPs of the whole trial."""
        return self.samples_seen * self.train_flops_per_sample


# Follow from the rest; a correction of the accounting must not make a finished trial another trial.
_DERIVED = frozenset({"trial_id", "train_flops_per_sample", "evaluation_flops", "parameters"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A cell that is not run, and why.

    Attributes:
        cell: The cell.
        reason: The reason with its numbers.
    """

    cell: Cell
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a study will run.

    Attributes:
        trials: The trials, in declared order, levels rising.
        left_out: Cells that are not run.
        charges: Compute paid once.
        study_flops: The study's cap in training FLOPs, or None.
    """

    trials: tuple[Trial, ...]
    left_out: tuple[LeftOut, ...]
    charges: tuple[Charge, ...]
    study_flops: int | None

    @property
    def train_flops(self) -> int:
        """Training FLOPs of all trials and charges."""
        return sum(t.train_flops for t in self.trials) + sum(c.train_flops for c in self.charges)

    @property
    def evaluation_flops(self) -> int:
        """Forward FLOPs of all evaluations and charges."""
        return sum(t.evaluation_flops for t in self.trials) + sum(c.evaluation_flops for c in self.charges)


def make_plan(
    declaration: Declaration,
    *,
    pool: PoolFacts,
    evaluation: EvaluationFacts,
    charges: tuple[Charge, ...] = (),
) -> Plan:
    """Plans a study.

    Args:
        declaration: The study as declared.
        pool: The pool's facts.
        evaluation: The evaluation sets' facts.
        charges: Compute that the study pays beside its trials.

    Returns:
        The plan; within the study budget, where there is one.

    Raises:
        ValueError: No trial is feasible, or the trials cost more than the study budget.
    """
    trials: dict[str, Trial] = {}
    left_out: dict[Cell, LeftOut] = {}
    for cell, seeds, samples in _cells(declaration, pool):
        reason = _infeasible(cell, samples, declaration, pool)
        if reason is not None:
            left_out[cell] = LeftOut(cell=cell, reason=reason)
            continue
        for seed in seeds:
            trial = _trial(cell, seed, samples, declaration, pool=pool, evaluation=evaluation)
            trials[trial.trial_id] = trial
    ordered = sorted(trials.values(), key=lambda trial: trial.cell.level_flops or 0)
    plan = Plan(
        trials=tuple(ordered),
        left_out=tuple(left_out.values()),
        charges=charges,
        study_flops=declaration.study_flops,
    )
    _check(plan)
    return plan


def _cells(declaration: Declaration, pool: PoolFacts) -> Iterator[tuple[Cell, tuple[int, ...], int]]:
    """Yields each cell with its seeds and the samples that it would see, whole batches."""
    for block in declaration.grid:
        for level, size, quality, architecture_name, strategy_name in product(
            _levels(block, declaration),
            block.sizes,
            block.quality,
            block.architectures,
            block.strategies,
        ):
            cell = Cell(
                regime=block.regime,
                subset_size=available(pool.pairs, quality) if size is None else size,
                quality=quality,
                architecture=architecture_name,
                strategy=strategy_name,
                level_flops=level,
            )
            yield cell, block.seeds or declaration.seeds, _samples(cell, block, declaration)


def _levels(block: GridBlock, declaration: Declaration) -> tuple[int | None, ...]:
    return (block.levels or declaration.levels) if block.regime == "fixed-compute" else (None,)


def _batch_size(cell: Cell, declaration: Declaration) -> int:
    return declaration.training.batch_size * strategy(cell.strategy).batch_factor


def _samples(cell: Cell, block: GridBlock, declaration: Declaration) -> int:
    batch_size = _batch_size(cell, declaration)
    if cell.level_flops is not None:
        per_sample = sample_cost(
            load_architecture(cell.architecture), strategy(cell.strategy), batch_size=batch_size
        ).train_flops
        samples = cell.level_flops // per_sample
    elif cell.regime == "one-epoch":
        samples = cell.subset_size
    else:
        assert block.samples is not None, "the declaration's reader asks for samples"
        samples = block.samples
    return samples // batch_size * batch_size


def _infeasible(cell: Cell, samples: int, declaration: Declaration, pool: PoolFacts) -> str | None:
    """Says why a cell can't be run, or None."""
    reason = inapplicable(strategy(cell.strategy), load_architecture(cell.architecture))
    if reason is not None:
        return reason
    if cell.architecture not in declaration.training.lr_peak:
        return f"training.lr_peak has no learning rate for {cell.architecture}"
    if cell.quality != "all" and not pool.scored:
        return f"the pool has no quality score, so {cell.quality} can't be chosen"
    most = available(pool.pairs, cell.quality)
    if cell.subset_size > most:
        return f"{cell.subset_size:,} pairs asked, the pool holds {most:,} of quality {cell.quality}"
    batch_size = _batch_size(cell, declaration)
    if batch_size > cell.subset_size:
        return f"a batch of {batch_size:,} is larger than the subset of {cell.subset_size:,} pairs"
    steps = samples // batch_size
    if steps < declaration.limits.min_steps:
        return f"{steps:,} steps of {batch_size:,} pairs, fewer than limits.min_steps = {declaration.limits.min_steps:,}"
    epochs = samples / cell.subset_size
    if epochs > declaration.limits.max_epochs:
        return f"{epochs:,.1f} epochs over {cell.subset_size:,} pairs, more than limits.max_epochs = {declaration.limits.max_epochs:g}"
    return None


def _trial(  # noqa: PLR0913 - all of it decides the trial
    cell: Cell,
    seed: int,
    samples: int,
    declaration: Declaration,
    *,
    pool: PoolFacts,
    evaluation: EvaluationFacts,
) -> Trial:
    architecture: Architecture = load_architecture(cell.architecture)
    how = strategy(cell.strategy)
    batch_size = _batch_size(cell, declaration)
    evaluation_macs = evaluation.images * image_forward_macs(
        architecture
    ) + evaluation.texts * text_forward_macs(architecture)
    return Trial(
        cell=cell,
        seed=seed,
        pool=pool.name,
        evaluation_sets=evaluation.names,
        architecture_config=architecture.config,
        samples_seen=samples,
        batch_size=batch_size,
        lr_peak=declaration.training.lr_peak[cell.architecture],
        recipe=declaration.training.recipe,
        train_flops_per_sample=sample_cost(architecture, how, batch_size=batch_size).train_flops,
        evaluation_flops=2 * evaluation_macs,
        parameters=parameters(architecture, how).total,
    )


def _check(plan: Plan) -> None:
    if not plan.trials:
        reasons = "\n".join(f"  {item.cell}: {item.reason}" for item in plan.left_out[:5])
        raise ValueError(f"no cell of the grid can be run:\n{reasons}")
    if plan.study_flops is not None and plan.train_flops > plan.study_flops:
        over = plan.train_flops - plan.study_flops
        raise ValueError(
            f"the grid costs {format_flops(plan.train_flops)} "
            f"({len(plan.trials)} trials and {format_flops(sum(c.train_flops for c in plan.charges))} of charges), "
            f"the study budget is {format_flops(plan.study_flops)}: {format_flops(over)} over. "
            "Raise budget.study, or take away seeds, the top level or cells of the grid"
        )
