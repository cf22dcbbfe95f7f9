"""The declared grid: its cells in order, with the costs shared by an architecture and a strategy."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from itertools import product
from types import MappingProxyType

from budgets.cost.architecture import Architecture, load_architecture
from budgets.cost.flops import count_parameters, encoding_flops, sample_cost
from budgets.cost.memory import memory_bytes
from budgets.cost.strategy import Strategy, find_strategy
from budgets.declaration.declaration import Declaration
from budgets.declaration.recipe import LR_EXPONENTS, Recipe
from budgets.declaration.rules import TrialResources, ruled_settings
from budgets.declaration.sections import Exclusion, GridBlock
from budgets.devices import find_device
from budgets.planning.facts import Component, EvaluationFacts, MixtureFacts, PoolFacts
from budgets.planning.planned_trial import Cell, Trial, evaluated_steps
from budgets.planning.resources import Option, memory_limit, resource_options, widths
from budgets.quality import MIXTURE

TuningPoint = tuple[str, str, int | None]
"""An architecture and a strategy at a budget level; None for all levels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """An architecture with a strategy: the settings and costs that all their cells share.

    Attributes:
        batch_size: Pairs in a batch, the strategy's factor included.
        lr_peak: Peak learning rate; None if not declared.
        inapplicable: Reason why the strategy cannot train the architecture, or None.
        train_flops_per_sample: Training FLOPs of one pair; 0 if the strategy is inapplicable.
        tail_flops_per_sample: Training FLOPs of one pair in the unmasked tail; 0 without one.
        recipe: The study's recipe, without settings that only other strategies use.
        memory_bytes: Estimated memory needed on each device; 0 if no cluster is declared.
        resources: Resources of a trial: as declared, or the cheapest of ``resource_options``.
        options: Ways to run it that fit into memory; empty unless the planner chooses.
    """

    architecture: Architecture
    strategy: Strategy
    batch_size: int
    lr_peak: float | None
    inapplicable: str | None
    train_flops_per_sample: int
    tail_flops_per_sample: int
    recipe: Recipe
    flops_per_evaluation: int
    parameters: int
    memory_bytes: int
    resources: TrialResources
    options: tuple[Option, ...] = ()

    def train_flops(self, steps: int) -> int:
        """Training FLOPs of a run of ``steps`` steps."""
        tail = self.recipe.tail_steps(steps)
        flops = (steps - tail) * self.train_flops_per_sample + tail * self.tail_flops_per_sample
        return flops * self.batch_size

    def curve_flops(self, levels: Sequence[int]) -> int:
        """Training FLOPs that one run at each of the rising levels costs, with their trunk paid once."""
        paid = shared = 0
        for steps in map(self.steps_within, levels):
            paid += self.train_flops(steps) - shared * self.train_flops_per_sample * self.batch_size
            shared = self.recipe.trunk_steps(steps)
        return paid

    def steps_within(self, train_flops: int) -> int:
        """Return the most steps that cost at most ``train_flops``; 0 if the strategy is inapplicable."""
        if not self.train_flops_per_sample:
            return 0
        steps = train_flops // (self.train_flops_per_sample * self.batch_size)
        # Tail steps cost more, so the first guess may be too high: step down by a lower bound of the excess
        # until the run fits. No correction goes too far, so the result is the most steps.
        dearest = self.batch_size * max(self.train_flops_per_sample, self.tail_flops_per_sample)
        while (over := self.train_flops(steps) - train_flops) > 0:
            steps -= -(-over // dearest)
        return steps


@dataclass(frozen=True, kw_only=True, slots=True)
class GridCell:
    """A cell of the grid before its feasibility is checked.

    ``declared_samples`` are those that the declaration asks for, 0 if they follow from the level; ``samples``
    are what a trial of the cell sees, in whole batches.
    """

    cell: Cell
    setup: Setup
    components: tuple[Component, ...]
    seeds: tuple[int, ...]
    declared_samples: int
    samples: int


class Grid:
    """The cells that a declaration asks for; ``own`` are the user's strategies.

    ``tuned`` has values that replace declared ones: place → field → value, None if training diverged at every
    value. Values at a level precede those at all levels. ``too_large`` has the least estimate of memory, in
    bytes, for which a device was too small, by architecture, strategy and batch.
    """

    def __init__(  # noqa: PLR0913 - each is a fact that cells depend on
        self,
        declaration: Declaration,
        pool: PoolFacts | MixtureFacts,
        evaluation: EvaluationFacts,
        own: Mapping[str, Strategy] = MappingProxyType({}),
        tuned: Mapping[TuningPoint, Mapping[str, float] | None] = MappingProxyType({}),
        *,
        too_large: Mapping[tuple[str, str, int], int] = MappingProxyType({}),
    ) -> None:
        self.declaration, self.pool, self.evaluation = declaration, pool, evaluation
        self._own, self._tuned, self._too_large = own, tuned, too_large
        self._by_level = declaration.ruled_by_level or any(level is not None for *_, level in tuned)
        # The cells of a large grid share few setups and few subsets.
        self._setup = cache(self._make_setup)
        self._components = cache(pool.components)

    def candidates(self, levels: tuple[int, ...]) -> Iterator[GridCell]:
        """Yield the cells of all blocks in declared order, at each block's own levels or at ``levels``."""
        for block in self.declaration.grid:
            for cell, samples in self._points(block, block.levels or levels):
                yield self.candidate(cell, samples, block.seeds or self.declaration.seeds)

    def candidate(self, cell: Cell, samples: int, seeds: tuple[int, ...]) -> GridCell:
        """Return a cell as a candidate; ``samples`` is ignored if the cell has a level."""
        setup = self.setup(*cell.combination, cell.level_flops)
        steps = samples // setup.batch_size
        if cell.level_flops is not None:
            steps = setup.steps_within(cell.level_flops)
        return GridCell(
            cell=cell,
            setup=setup,
            components=self._components(cell.quality, cell.subset_size),
            seeds=seeds,
            declared_samples=samples,
            samples=steps * setup.batch_size,
        )

    def tuned(self, values: Mapping[TuningPoint, Mapping[str, float] | None]) -> "Grid":
        """Return the same grid with tuned values instead of the declared ones."""
        return Grid(
            self.declaration, self.pool, self.evaluation, self._own, values, too_large=self._too_large
        )

    def setup(self, architecture: str, strategy: str, level_flops: int | None) -> Setup:
        """Return the setup of an architecture with a strategy; it depends on the level only by rules."""
        return self._setup(architecture, strategy, level_flops if self._by_level else None)

    def excluded_by(self, cell: Cell) -> int | None:
        """Return the number of the first rule that excludes the cell, counted from 1, or None."""
        rules = enumerate(self.declaration.exclude, start=1)
        return next((number for number, rule in rules if self._matches(rule, cell)), None)

    @cached_property
    def device_bytes(self) -> int | None:
        """Memory of a device, or None if no cluster is declared."""
        cluster = self.declaration.cluster
        return None if cluster is None else find_device(cluster.device).memory_bytes

    def trial(self, candidate: GridCell, seed: int) -> Trial:
        """Build a trial of a feasible cell."""
        setup = candidate.setup
        assert setup.lr_peak is not None, "a cell without a learning rate is left out"
        steps = candidate.samples // setup.batch_size
        evaluations = 1 + len(evaluated_steps(self.declaration.evaluate_at, steps))
        return Trial(
            cell=candidate.cell,
            seed=seed,
            pool="+".join([part.pool for part in candidate.components]),
            mixture=candidate.components if self.declaration.mixtures else (),
            columns=self._columns_of(candidate),
            strategy_file=setup.strategy.file,
            evaluation_sets=self.evaluation.names,
            architecture_config=setup.architecture.config,
            batch_norm=setup.architecture.costs.batch_norm,
            samples_seen=candidate.samples,
            batch_size=setup.batch_size,
            lr_peak=setup.lr_peak,
            recipe=setup.recipe,
            train_flops_per_sample=setup.train_flops_per_sample,
            tail_flops_per_sample=setup.tail_flops_per_sample,
            evaluation_flops=evaluations * setup.flops_per_evaluation,
            evaluations=evaluations,
            parameters=setup.parameters,
            resources=setup.resources,
        )

    def _columns_of(self, candidate: GridCell) -> dict[str, str]:
        """Return the hashes of the columns that a cell's strategy reads."""
        pools = [self.pool.of_component(part.name).columns or {} for part in candidate.components]
        return {
            name: "+".join(pool[name].content for pool in pools if name in pool)
            for name in candidate.setup.strategy.columns
        }

    def _points(self, block: GridBlock, levels: tuple[int, ...]) -> Iterator[tuple[Cell, int]]:
        """Yield a block's cells, each with its declared samples, or 0 if they follow from the level."""
        by_level = block.regime == "fixed-compute"
        subsets = product(
            levels if by_level else (None,), block.samples or (0,), block.sizes,
            self.declaration.qualities(block),
        )  # fmt: skip
        for level, samples, size, quality in subsets:
            pairs = self.pool.available(quality) if size is None else size
            for architecture, strategy_name in product(block.architectures, block.strategies):
                cell = Cell(
                    regime=block.regime, subset_size=pairs, quality=quality, architecture=architecture,
                    strategy=strategy_name, level_flops=level,
                )  # fmt: skip
                yield cell, pairs if block.regime == "one-epoch" else samples

    def _make_setup(self, architecture_name: str, strategy_name: str, level: int | None) -> Setup:
        declaration = self.declaration
        of_resources = ruled_settings(declaration.resources.rules, architecture_name, strategy_name, level)
        of_training = ruled_settings(declaration.training.rules, architecture_name, strategy_name, level)
        resources = declaration.trial_resources(of_resources)
        architecture = load_architecture(architecture_name, declaration.catalogue)
        strategy = find_strategy(strategy_name, self._own)
        training, reason = declaration.training, strategy.inapplicable(architecture)
        combination = architecture_name, strategy_name
        values = self._tuned.get((*combination, level), self._tuned.get((*combination, None), {}))
        if values is None:
            values, reason = {}, "tuning: training diverged at every value tried"
        declared = of_training.get("batch_size", training.batch_size)
        batch_size = int(values.get("batch_size", declared)) * strategy.batch_factor
        plain = training.recipe
        settings = {name: value for name, value in {**of_resources, **values}.items() if hasattr(plain, name)}
        recipe = strategy.recipe(replace(plain, **settings), architecture)
        images, texts = self.evaluation.images, self.evaluation.texts
        # The unmasked tail needs the most memory.
        widest, ways = strategy.unmasked if recipe.unmasked_tail else strategy, tuple[Option, ...]()
        memory_of = partial(
            memory_bytes, architecture, widest, batch_size=batch_size, pairs=self._most_pairs(strategy_name),
            widths=[self.pool.widths.get(name, 0) for name in strategy.columns],
            averaged=declaration.evaluate_trunk,
        )  # fmt: skip
        cluster, too_large = declaration.cluster, self._too_large.get((*combination, batch_size))
        chooses = declaration.resources.auto
        limit = memory_limit(self.device_bytes, too_large)
        if reason is None and (chooses or too_large):
            amounts = [resources]
            if chooses and cluster:
                tried = widths(cluster, batch_size, of_resources)
                amounts = [declaration.trial_resources({**of_resources, "gpus": gpus}) for gpus in tried]
            ways = resource_options(
                architecture, widest, recipe, batch_size=batch_size, amounts=amounts, cluster=cluster,
                ruled=of_resources, memory=memory_of, limit=limit,
            )  # fmt: skip
        fitting = tuple(way for way in ways if way.memory_bytes <= limit)
        if not fitting:  # without a margin, else none
            fitting = tuple(way for way in ways if way.memory_bytes <= (self.device_bytes or math.inf))
        if ways:  # without a fitting option, the smallest: its memory is the reason against the cell
            first = min(fitting or ways, key=lambda way: way.factor if fitting else way.memory_bytes)
            resources, recipe = first.resources, first.recipe
        flops = tail_flops = memory = 0
        if reason is None:
            flops = sample_cost(architecture, strategy, batch_size=batch_size).train_flops
            if recipe.unmasked_tail:
                tail_flops = sample_cost(architecture, strategy.unmasked, batch_size=batch_size).train_flops
            if declaration.cluster is not None:
                memory = memory_of(recipe, devices=resources.devices)
        lr_peak = of_training.get("lr_peak", self._declared_lr_peak(*combination, batch_size))
        return Setup(
            architecture=architecture,
            strategy=strategy,
            batch_size=batch_size,
            lr_peak=values.get("lr_peak", lr_peak),
            inapplicable=reason,
            train_flops_per_sample=flops,
            tail_flops_per_sample=tail_flops,
            recipe=recipe,
            flops_per_evaluation=encoding_flops(architecture, images=images, texts=texts),
            parameters=count_parameters(architecture, strategy).total,
            memory_bytes=memory,
            resources=resources,
            options=fitting if chooses else (),
        )

    def _most_pairs(self, strategy: str) -> int:
        """Return the pairs of the largest subset of a strategy's blocks."""
        return max(
            self.pool.available(quality) if size is None else size
            for block in self.declaration.grid
            if strategy in block.strategies
            for size, quality in product(block.sizes, self.declaration.qualities(block))
        )

    def _declared_lr_peak(self, architecture: str, strategy: str, batch_size: int) -> float | None:
        """Return the declared peak learning rate, scaled to the batch, else the middle one of its tuning.

        The scaled rate is declared x (batch / declared batch) ^ exponent of the rule.
        """
        tuning, training = self.declaration.tuning, self.declaration.training
        tunes = self.declaration.tunes(architecture, strategy)
        tried = tuning.fields.get("lr_peak", ()) if tuning and tunes else ()
        declared = training.lr_peak.get(architecture)
        if declared is None:
            return tried[len(tried) // 2] if tried else None
        ratio = batch_size / training.batch_size
        return declared * ratio ** LR_EXPONENTS[training.lr_rule] if ratio != 1 else declared

    def _matches(self, rule: Exclusion, cell: Cell) -> bool:
        sizes = {self.pool.available(cell.quality) if size is None else size for size in rule.sizes}
        return all(
            not allowed or value in allowed
            for allowed, value in (
                (rule.architectures, cell.architecture),
                (rule.strategies, cell.strategy),
                (sizes, cell.subset_size),
                (rule.quality, cell.quality),
                (rule.mixtures, cell.quality.removeprefix(MIXTURE)),
                (rule.levels, cell.level_flops),
                (rule.regimes, cell.regime),
            )
        )
