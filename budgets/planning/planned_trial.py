"""A trial and its cell as plain data, its id, and the trunk that it shares with others.

**Id**: a hash of everything that decides a trial's result, and of nothing else. Settings of the recipe that
have their default are left out of the hash, so that a setting that is added later changes no id. If a default
changes, `_VERSION` must rise with it: otherwise trials that were run with the former default would count as
trials of the new one.

Devices, accumulation, gradient checkpointing and compilation change a result only by rounding and are not
part of the id: a trial may continue with others. Batch norm is the exception, because its statistics are
those of a part of the batch, and recomputation updates its running statistics twice. With batch norm,
accumulation and gradient checkpointing enter the id.

**Trunk**: with ``schedule: trunk`` the learning rate, the order of samples and all random draws of a step are
the same for every level of a curve, up to the step at which the level's cooldown begins: its milestone. The
trial of a level stores its state there; the next longer trial of the same seed continues from it, as if it
had trained alone. So each trial of a trunk pays for the steps from the milestone before its own to its end.
With ``evaluation: {trunk: true}`` each trial has one of its trunk beside it, which ends at its milestone and
is evaluated there. These continue from one another, and each branch continues from its own.
"""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache

from budgets.cost.strategy import StrategyFile
from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Regime
from budgets.planning.facts import Component
from budgets.quality import BY
from budgets.quantity import format_count, format_flops

_VERSION = 1
_ROUNDING_ALONE = {"accumulation", "gradient_checkpointing", "compile"}
_OF_BATCH_NORM = {"accumulation", "gradient_checkpointing"}

Combination = tuple[str, str]
"""Names of an architecture and of a strategy that trains it."""


def seed_words(seed: int, *, of_trunk: bool, attempt: int) -> str:
    """Return a seed, a trunk and a further attempt in words, such as ``seed 0, trunk, attempt 2``."""
    words = [f"seed {seed}", *(["trunk"] if of_trunk else [])]
    return ", ".join([*words, *([f"attempt {attempt}"] if attempt > 1 else [])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A point of the grid: a trial without its seed.

    ``quality`` is ``all``, ``topN``, ``topN by SCORE``, ``subset:NAME`` or ``mixture:NAME``; ``level_flops``
    the budget level, None unless the regime is `fixed-compute`.
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
        seed: The seed; initial weights, order of samples and augmentation derive from it.
        pool: Content id of the pool; for a mixture, those of its pools, joined by ``+``.
        architecture_config: The architecture in open_clip's model-config form.
        samples_seen: Image-text pairs seen in training, in whole batches.
        batch_size: Pairs in a batch, the strategy's factor included.
        train_flops_per_sample: Training FLOPs of one pair (`budgets.cost.flops.CONVENTION`).
        tail_flops_per_sample: Training FLOPs of one pair in the unmasked tail; 0 without one.
        evaluation_flops: Forward FLOPs of all its evaluations.
        evaluations: Evaluations: the last one, and those at shares of its steps; of a trial of a trunk,
            that of its weights and that of their average.
        parameters: Trainable parameters, the strategy's head included.
        resources: Resources that it runs on; they do not change its result.
        previous: Id of the trial of its trunk whose milestone it continues from: the next shorter one, or of
            a branch its own; empty without one. It does not change the result.
        shared_samples: Samples up to that milestone, which the shorter trials pay for.
        columns: Columns of the index that its strategy reads → hashes of their values in its pools.
        strategy_file: The user's file that has its strategy; None for a shipped or installed one.
        attempt: 1, or the number of a repetition: the same trial with files and costs of its own.
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
    columns: Mapping[str, str] = field(default_factory=dict)
    strategy_file: StrategyFile | None = None
    attempt: int = 1
    trial_id: str = field(init=False, compare=False, default="")

    def __post_init__(self) -> None:
        """Derive the id."""
        object.__setattr__(self, "trial_id", trial_id(self))

    @property
    def first_id(self) -> str:
        """Id of its first attempt."""
        return self.trial_id.partition("-")[0]

    @property
    def seed_words(self) -> str:
        """Its seed in words, see the function of that name."""
        return seed_words(self.seed, of_trunk=self.of_trunk, attempt=self.attempt)

    def words(self, tuned: str = "") -> str:
        """Return its cell, its ``tuned`` values, given in words, and `seed_words`."""
        return ", ".join(filter(None, [str(self.cell), tuned, self.seed_words]))

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
        whole = Component(name="", pool=self.pool, quality=cell.quality, pairs=cell.subset_size, share=1)
        return self.mixture or (whole,)

    def share_of(self, component: Component) -> float:
        """Return a component's share of the samples seen."""
        return component.share / sum(part.share for part in self.components)

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
    def of_trunk(self) -> bool:
        """True if it ends at its milestone, at constant rate."""
        return not self.recipe.cooled

    @property
    def milestone_step(self) -> int:
        """Steps after which its branch leaves its trunk; 0 without a trunk."""
        return self.recipe.trunk_steps(self.steps)

    @property
    def keeps_milestone(self) -> bool:
        """True if longer trials may continue from its milestone; not of a branch that begins there."""
        return self.milestone_step * self.batch_size > self.shared_samples

    @property
    def paid_flops(self) -> int:
        """Training FLOPs that the trial costs the study: those after the milestone that it continues from."""
        return self.paid_flops_after(self.samples_seen)

    def paid_flops_after(self, samples: int) -> int:
        """Training FLOPs that the first ``samples`` samples cost the study."""
        shared = self.train_flops_after(self.shared_samples) if self.shared_samples else 0
        return max(0, self.train_flops_after(samples) - shared)


def evaluated_steps(shares: Iterable[float], steps: int) -> set[int]:
    """Return the steps after which a trial is evaluated on the way, at some shares of its steps.

    Shares that are rounded to the same step, or to the end, have no evaluation of their own.
    """
    return {math.ceil(share * steps) for share in shares} - {steps}


def trial_id(trial: Trial) -> str:
    """Derive the id: 12 hexadecimal digits, the same in any study, and ``-2`` for the second attempt.

    Costs are not part of it, so that a correction of the FLOP accounting keeps the ids.
    """
    # ``top40 by mine`` is ``top40`` of the pool in the order of ``mine``, which ``trial.pool`` names.
    first = _digest(trial, _cell(trial.cell, _quality(trial).partition(BY)[0]), trial.samples_seen)
    return first if trial.attempt == 1 else f"{first}-{trial.attempt}"


def trunk_id(trial: Trial) -> str:
    """Derive the id of a trial's trunk: the same for trials that differ only in how long they train."""
    cell = trial.cell
    if trial.of_trunk:
        trial = replace(trial, recipe=replace(trial.recipe, cooled=True))
    subset = (
        f"[{cell.subset_size},{_text(_quality(trial))},{_text(cell.architecture)},{_text(cell.strategy)}]"
    )
    return _digest(trial, subset, 0)


def _digest(trial: Trial, cell: str, samples: int) -> str:
    # The text is what `_json` gives for the whole content, with sorted keys. It is put together from cached
    # parts that trials share, because large grids have very many trials.
    columns = f'"columns":{_json(dict(trial.columns))},' if trial.columns else ""
    version = f',"strategy_version":"{trial.strategy_file.version}"' if trial.strategy_file else ""
    content = (
        f'[{_VERSION},{{"architecture_config":{_config(trial.cell.architecture, trial.architecture_config)},'
        f'"batch_size":{trial.batch_size},"cell":{cell},{columns}"evaluation_sets":{_text(trial.evaluation_sets)},'
        f'"lr_peak":{trial.lr_peak!r},"pool":{_text(trial.pool)},'
        f'"recipe":{_recipe(trial.recipe, trial.batch_norm)},"samples_seen":{samples},"seed":{trial.seed}'
        f"{version}}}]"
    )
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _quality(trial: Trial) -> str:
    """Return the quality; of a mixture, its components without their names.

    A mixture of one component is a subset of its pool.
    """
    if len(trial.mixture) > 1:
        parts = [part.content[1:] for part in trial.mixture]
        return f"mixture {_json(parts)}"
    return trial.mixture[0].quality if trial.mixture else trial.cell.quality


def _cell(cell: Cell, quality: str) -> str:
    level = "null" if cell.level_flops is None else cell.level_flops
    return (
        f'{{"architecture":{_text(cell.architecture)},"level_flops":{level},"quality":{_text(quality)},'
        f'"regime":{_text(cell.regime)},"strategy":{_text(cell.strategy)},"subset_size":{cell.subset_size}}}'
    )


# A large grid has very many trials but few architectures: each config is serialised once.
_configs: dict[str, tuple[Mapping[str, object], str]] = {}


def _config(name: str, config: Mapping[str, object]) -> str:
    """Return the config as text."""
    known = _configs.get(name)
    if known is None or known[0] is not config:
        known = _configs[name] = config, _json(config)
    return known[1]


@cache
def _recipe(recipe: Recipe, batch_norm: bool) -> str:  # noqa: FBT001 - cached by position
    default = Recipe()
    left_out = _ROUNDING_ALONE - _OF_BATCH_NORM if batch_norm else _ROUNDING_ALONE
    names = [setting.name for setting in fields(recipe) if setting.name not in left_out]
    return _json(
        {name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(default, name)}
    )


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


_text = cache(_json)


def with_trunks(trials: Iterable[Trial]) -> Iterator[Trial]:
    """Yield trials, and before each that has a milestone and a branch the trial of its trunk up to there.

    Levels whose cooldowns begin at the same step have one, since it takes no longer to the next.
    """
    reached = set[tuple[str, int]]()
    for trial in trials:
        milestone = trunk_id(trial), trial.milestone_step
        if 0 < trial.milestone_step < trial.steps and milestone not in reached:
            reached.add(milestone)
            yield replace(
                trial, recipe=replace(trial.recipe, cooled=False), tail_flops_per_sample=0, evaluations=2,
                samples_seen=trial.milestone_step * trial.batch_size,
                evaluation_flops=2 * trial.flops_per_evaluation,
            )  # fmt: skip
        yield trial


def share_trunks(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials in the given order, each with the one that it continues from as ``previous``.

    That is the next shorter one of its trunk that has a milestone of its own: not one that begins there.
    The newest of the further attempts of trials share a trunk of their own; older ones stay as they are.
    """
    trunks: dict[tuple[str, bool], dict[str, Trial]] = defaultdict(dict)
    for trial in trials:
        if trial.milestone_step:
            trunks[trunk_id(trial), trial.attempt > 1][trial.first_id] = trial
    if not trunks:
        return tuple(trials)
    linked: dict[str, Trial] = {}
    for trunk in trunks.values():
        shorter: Trial | None = None
        for trial in sorted(trunk.values(), key=_along_trunk):
            linked[trial.trial_id] = branch = continued_from(trial, shorter)
            if branch.keeps_milestone:
                shorter = branch
    return tuple(linked.get(trial.trial_id, trial) for trial in trials)


def _along_trunk(trial: Trial) -> tuple[int, bool, int, str]:
    return trial.milestone_step, not trial.of_trunk, trial.samples_seen, trial.trial_id


def continued_from(trial: Trial, shorter: Trial | None) -> Trial:
    """Return a trial as it continues from the milestone of a shorter one of its trunk, or from none."""
    if shorter is None:
        return replace(trial, previous="", shared_samples=0)
    shared = shorter.milestone_step * shorter.batch_size
    return replace(trial, previous=shorter.trial_id, shared_samples=shared)


def shorter_trials(trial: Trial, trials: Mapping[str, Trial]) -> Iterator[Trial]:
    """Yield the shorter trials of a trial's trunk, the longest first."""
    while trial.previous in trials:
        trial = trials[trial.previous]
        yield trial
