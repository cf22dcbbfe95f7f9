"""A study as declared: plain data, with the checks that read no files.

`study.declare.load` reads it from YAML. Its sections are in `sections.py` and `data_sections.py`; here
are the whole and the checks that span sections.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, product
from operator import attrgetter
from typing import Annotated, Any

from budgets.declaration import values
from budgets.declaration.data_sections import DeclaredPool, DeclaredSet, MixedPool, Mixtures, pool_clashes
from budgets.declaration.keys import At, Clashes, Given
from budgets.declaration.recipe import PRESETS
from budgets.declaration.rules import CPUS_PER_GPU, Rule, TrainingRule, TrialResources, ruled_settings
from budgets.declaration.sections import (
    FARTHEST,
    Budget,
    Cluster,
    Design,
    Exclusion,
    GridBlock,
    Limits,
    LoggerName,
    Resources,
    Training,
    Tuning,
)
from budgets.declaration.value_forms import LISTED, RISING
from budgets.names import unknown
from budgets.quality import MIXTURE
from budgets.quantity import format_flops


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """A whole study as declared."""

    name: Annotated[str, values.name, At(name="study")]
    """Name of the study, and of its folder below ``results/``."""
    catalogue: Annotated[str | None, values.path] = None
    """Folder of the user's own architectures, one JSON file each. Like the paths of pools and evaluation
    sets, it is relative to the declaration's folder."""
    strategy_files: tuple[Annotated[str, values.python], ...] = ()
    """Python files of the user's own strategies, or folders of such files
    ([your own strategy](strategies.md)): their code is executed."""
    pool: DeclaredPool | None = None
    """Source of the pairs: ``embedded``, ``path``, or ``name``, ``pairs`` and ``scored`` of a pool that is
    only described. A study has either ``pool`` or ``pools``."""
    pools: dict[Annotated[str, values.name], DeclaredPool] = field(default_factory=dict)
    """Pools to mix, each a section like ``pool`` or only its ``path``."""
    mixtures: dict[Annotated[str, values.name], dict[str, MixedPool]] = field(default_factory=dict)
    """Mixtures of ``pools``, an axis of the grid ([mixtures](data.md#mixtures))."""
    materialise_from: Annotated[float | None, values.bytes_over_images] = 2.0
    """Bytes that reading a subset fetches, over the bytes of its images, from which on the run first copies
    the subset, once for all trials ([copies](data.md#copies-of-subsets)). Folders are read without excess:
    1 copies their subsets too; ``off`` (None) copies none."""
    storage: Annotated[str | None, values.storage] = None
    """Folder that all nodes share, for results and generated pools, or an fsspec URL in its place; by default
    ``results`` and ``pools`` in the working directory."""
    metric: Annotated[str, values.metric] = "held-out/top1"
    """Metric that the analysis ranks by."""
    evaluation_sets: Annotated[dict[str, DeclaredSet], At(name="evaluation")] = field(default_factory=dict)
    """Further evaluation sets."""
    evaluate_at: Annotated[
        tuple[Annotated[float, values.share_within], ...], RISING, At(name="evaluation.at")
    ] = ()
    """Shares of a trial's steps after which it is also evaluated. Like the last evaluation, these are not
    part of the budget."""
    evaluate_trunk: Annotated[bool, At(name="evaluation.trunk")] = False
    """With ``schedule: trunk``: also evaluate each trunk where a level's cooldown begins, and the mean of its
    last weights ([trunks](declare.md#trunks))."""
    budget: Budget = field(default_factory=Budget)
    """The compute that may be spent; ``fixed-compute`` blocks need it."""
    seeds: Annotated[tuple[Annotated[int, values.positive_or_zero], ...], LISTED] = (0,)
    """Seeds of every cell; a block may name others."""
    grid: tuple[GridBlock, ...]
    """Blocks of cells."""
    exclude: tuple[Exclusion, ...] = ()
    """Rules that leave out cells of the grid."""
    design: Design = field(default_factory=Design)
    """Choice of the trials to run."""
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
    """Other tools that also record the study ([watching](watching.md))."""

    @property
    def sources(self) -> Mapping[str, DeclaredPool]:
        """The pools by name; a single pool has the name ``""``."""
        return self.pools if self.pool is None else {"": self.pool}

    @property
    def described(self) -> bool:
        """True if the pools are only described."""
        return any(pool.described for pool in self.sources.values())

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The architectures of the grid with their strategies, in declared order."""
        of_blocks = (product(block.architectures, block.strategies) for block in self.grid)
        return tuple(dict.fromkeys(chain.from_iterable(of_blocks)))

    def tunes(self, architecture: str, strategy: str) -> bool:
        """Return whether tuning decides the values of a pair."""
        if (tuning := self.tuning) is None:
            return False
        listed = TrainingRule(architectures=tuning.architectures, strategies=tuning.strategies, tune=True)
        rules = listed, *self.training.rules
        return bool(ruled_settings(rules, architecture, strategy, None).get("tune"))

    def qualities(self, block: GridBlock) -> tuple[str, ...]:
        """Return the qualities of a block, or its mixtures with their prefix."""
        names = block.mixtures or tuple(self.mixtures)
        return tuple(f"{MIXTURE}{name}" for name in names) if self.mixtures else block.quality

    @property
    def evaluation(self) -> dict[str, str]:
        """Evaluation sets with a folder: name → folder."""
        return {name: entry.path for name, entry in self.evaluation_sets.items() if entry.path is not None}

    @property
    def probes(self) -> tuple[str, ...]:
        """Evaluation sets with probes, which are fitted to the training split of the set."""
        return tuple(name for name, entry in self.evaluation_sets.items() if entry.probe)

    @property
    def evaluation_counts(self) -> dict[str, tuple[int, int]]:
        """Images and texts of evaluation sets that are only described."""
        return {
            name: (entry.images or 0, entry.texts or 0)
            for name, entry in self.evaluation_sets.items()
            if entry.path is None
        }

    def tuning_metric(self, available: Collection[str]) -> str:
        """Return the metric that selects in tuning.

        Args:
            available: Metrics of the evaluation sets; the validation set's precedes the study's own.
        """
        if self.tuning is not None and self.tuning.metric is not None:
            return self.tuning.metric
        validation = f"validation/{self.metric.partition('/')[2]}"
        return validation if validation in available else self.metric

    def clashes(self, given: Given) -> Clashes:
        """Yield keys that contradict another section, with the error."""
        levels = self.budget.levels
        levelled = any(block.regime == "fixed-compute" for block in self.grid)
        declared = levels or self.budget.study_flops or given("budget.levels") or given("budget.study")
        if levelled and not declared:  # a faulty value has its own error
            cap = "a study budget (study:) to choose them from"
            yield "budget", f"budget needs levels (training FLOPs of a trial), {cap}, or both"
        ruled = any(rule.lr_peak is not None for rule in self.training.rules)
        tuned = self.tuning is not None and "lr_peak" in self.tuning.fields
        if given("training") and not (
            given("training.lr_peak") or ruled or tuned or PRESETS[self.training.preset].lr_peak
        ):
            missing = "training.lr_peak is missing: the peak learning rate of each architecture"
            yield "training.lr_peak", missing
        yield from self.design_clashes(levels)
        if self.evaluate_trunk:
            yield from self._trunks()
        if self.tuning is not None:
            yield from self._tuning(self.tuning)
        if self.resources.auto and self.cluster is None:
            yield "resources.auto", "resources.auto chooses for a cluster: declare cluster"
        yield from pool_clashes(self.pool, self.pools, self.mixtures)
        yield from _mixture_clashes(self.mixtures, self.grid, self.exclude)
        if not self.described:
            for key in (f"evaluation.{name}" for name in self.evaluation_counts):
                yield key, f"{key} needs a folder; images and texts without a folder need a described pool"
        yield from self._metrics(given)
        yield from self._amounts()
        for number, block in enumerate(self.grid, start=1):
            yield from self._unlisted(f"grid[{number}].levels", block.levels)
        for at, rule in self._rules():
            yield from self._unlisted(f"{at}.levels", rule.levels)

    def design_clashes(self, levels: tuple[int, ...]) -> Clashes:
        """Yield questions about unknown levels, and a forecast within the levels or too far beyond them.

        Without declared levels nothing is known yet; the planner asks again with those that it has chosen.
        """
        strange = [format_flops(level) for level in self.design.best if levels and level not in levels]
        if strange:
            listed = ", ".join(map(format_flops, levels))
            yield "design.best", f"design.best: {strange[0]} is not a level of the study: {listed}"
        far = self.design.forecast
        if far is not None and levels and not 1 < far / levels[-1] <= FARTHEST:
            beyond = f"the largest level, {format_flops(levels[-1])}, and at most {FARTHEST:g} times that"
            yield "design.forecast", f"design.forecast: {format_flops(far)} must be beyond {beyond}"

    def _tuning(self, tuning: Tuning) -> Clashes:
        """Yield errors of the tuning: no study budget, or levels and sizes that the grid does not have."""
        if self.budget.study_flops is None:
            yield "tuning.share", "tuning.share is a share of the study budget: declare budget.study"
        yield from self._unlisted("tuning.levels", tuning.levels)
        tuned = [pair for pair in self.pairs if self.tunes(*pair)]
        axes = ("architectures", self.pairs, 0), ("strategies", self.pairs, 1), ("sizes", tuned, 0)
        for key, pairs, place in axes:
            used, kind = {pair[place] for pair in pairs}, ("architecture", "strategy")[place]
            for name in (listed for listed in getattr(tuning, key) if listed not in used):
                yield f"tuning.{key}", f"tuning.{key}: {unknown(kind, name, used)}"
        rated = self.training.lr_peak or any(rule.lr_peak for rule in self.training.rules)
        if "lr_peak" in tuning.fields and not rated and len(tuned) < len(self.pairs):
            rates = "the peak learning rate of pairs that are not tuned"
            yield "training", f"training.lr_peak is missing: {rates}"
        if not tuned:
            yield "tuning", "tuning has no pair of the grid that its lists and training.rules leave to it"

    def _trunks(self) -> Clashes:
        """Yield what leaves no trunk to evaluate that the levels of a curve share."""
        schedule = self.training.recipe.schedule
        other = next((block.regime for block in self.grid if block.regime != "fixed-compute"), None)
        if schedule != "trunk":
            yield "evaluation.trunk", f"evaluation.trunk needs training.schedule: trunk, found {schedule}"
        elif other is not None:
            yield "evaluation.trunk", f"evaluation.trunk needs regime: fixed-compute, found {other}"
        elif not self.shares_trunks:
            why = "with it each level has a rate, and so a trunk, of its own"
            yield "evaluation.trunk", f"evaluation.trunk is not allowed with tuning.levels: {why}"

    @property
    def shares_trunks(self) -> bool:
        """True if the levels of a curve share a trunk: not if each has a tuned rate of its own."""
        apart = self.tuning is not None and bool(self.tuning.levels)
        return self.training.recipe.schedule == "trunk" and not apart

    def _rules(self) -> Iterator[tuple[str, Exclusion | Rule]]:
        """Yield every rule with its key, such as ``exclude[2]``."""
        for key in ("exclude", "resources.rules", "training.rules"):
            for number, rule in enumerate(attrgetter(key)(self), start=1):
                yield f"{key}[{number}]", rule

    @property
    def ruled_by_level(self) -> bool:
        """True if trials of an architecture and a strategy may differ by level in more than length."""
        return any(rule.levels for _, rule in self._rules() if not isinstance(rule, Exclusion))

    def trial_resources(self, ruled: Mapping[str, Any]) -> TrialResources:
        """Return the declared resources of a trial, with those that rules set, before the planner chooses."""
        cluster, resources = self.cluster, self.resources
        gpus = ruled.get("gpus", resources.gpus)
        fewest = cluster.nodes_of(gpus) if cluster is not None and "gpus" in ruled else resources.nodes
        nodes = ruled.get("nodes", fewest)
        share = None if cluster is None else cluster.cpus_per_gpu
        cpus = ruled.get("cpus", resources.cpus)
        assumed = cpus is None and share is None and gpus > 0
        if cpus is None:
            cpus = gpus * (share or CPUS_PER_GPU) if gpus else nodes
        ranks = 1 if gpus else resources.ranks
        return TrialResources(cpus=cpus, gpus=gpus, nodes=nodes, ranks=ranks, assumed=assumed)

    def _metrics(self, given: Given) -> Clashes:
        """Yield metrics of undeclared sets, for described pools; other pools may bring sets of their own."""
        if not self.evaluation_counts or not self.described:
            return
        declared = self.metric if given("metric") else None
        for key, metric in (("metric", declared), ("tuning.metric", self.tuning and self.tuning.metric)):
            name = (metric or "").partition("/")[0]
            if metric and name not in self.evaluation_sets:
                yield key, f"{key}: {unknown('evaluation set', name, self.evaluation_sets)}"

    def _amounts(self) -> Clashes:
        """Yield the first trial whose amounts contradict each other, its batch, or the cluster."""
        levels = self.budget.levels if self.ruled_by_level else (None,)
        cells: list[tuple[str, str, int | None]] = [("", "", None)]
        limited = self.tuning is not None and (self.tuning.architectures or self.tuning.strategies)
        if self.resources.rules or self.training.rules or limited:
            cells = [(*pair, level) for pair in self.pairs for level in levels]
        problems = (list(self._problems(*cell)) for cell in cells)
        yield from next(filter(None, problems), [])

    def _problems(self, architecture: str, strategy: str, level: int | None) -> Clashes:
        """Yield contradictions in the settings of a cell; empty names mean a cell that no rule matches."""
        ruled = ruled_settings(self.resources.rules, architecture, strategy, level)
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
            yield "evaluation.at", f"evaluation.at is not allowed with training.schedule: trunk: {why}"
        # Each batch, tuned or declared, must divide evenly into its ranks and parts.
        parts = ruled.get("accumulation", self.training.recipe.accumulation)
        shares = max(trial.gpus, trial.ranks) * parts
        tuned = () if self.tuning is None else self.tuning.fields.get("batch_size", ())
        if architecture and not self.tunes(architecture, strategy):
            tuned = ()
        of_training = ruled_settings(self.training.rules, architecture, strategy, level)
        declared = of_training.get("batch_size", self.training.batch_size)
        uneven = [size for size in tuned or (declared,) if size % shares]
        if uneven:
            size = f"{'tuning.fields' if tuned else 'training'}.batch_size = {uneven[0]:g}{where}"
            of = "ranks (resources.gpus, or resources.ranks) times training.accumulation"
            yield ("tuning" if tuned else "training", f"{size} can't be cut into {shares} equal parts: {of}")

    def _unlisted(self, key: str, levels: tuple[int, ...]) -> Clashes:
        """Yield a level that the study does not have."""
        unlisted = [format_flops(level) for level in levels if level not in self.budget.levels]
        if unlisted:
            listed = ", ".join(map(format_flops, self.budget.levels)) or "none"
            yield key, f"{key} must be among budget.levels ({listed}); {unlisted[0]} is not"

    def unmatched(self) -> Clashes:
        """Yield values of rules that no block of the grid has."""
        axes = "architectures", "strategies", "sizes", "quality", "mixtures", "regimes"
        for at, rule in self._rules():
            for axis in axes if isinstance(rule, Exclusion) else axes[:2]:
                # A block that names no mixtures has all of them.
                blocks = [
                    (b.regime,) if axis == "regimes" else getattr(b, axis) or tuple(self.mixtures)
                    for b in self.grid
                ]
                for value in sorted(set(getattr(rule, axis)).difference(*blocks), key=str):
                    shown = "all" if value is None else value
                    yield f"{at}.{axis}", f"{at}.{axis}: no block of the grid has {shown}"


def require_runnable(declaration: Declaration) -> None:
    """Refuse a study whose pool is only described.

    Raises:
        ValueError: The pool is only described.
    """
    for pool in declaration.sources.values():
        if pool.described:
            raise ValueError(
                f"the pool {pool.name} is only described (name, pairs, scored): the study can be "
                "planned and priced, not run; to run it, give pool: {path: FOLDER} or pool: {embedded: {…}}"
            )


def _mixture_clashes(mixtures: Mixtures, grid: Sequence[GridBlock], exclude: Sequence[Exclusion]) -> Clashes:
    """Yield blocks and rules of the grid that contradict the mixtures."""
    counted = [
        name for name, parts in mixtures.items() if any(part.pairs is not None for part in parts.values())
    ]
    for number, block in enumerate(grid, start=1):
        yield from _clashes_of_names(f"grid[{number}]", block, mixtures)
        in_block = [name for name in counted if name in (block.mixtures or counted)]
        if in_block and block.sizes != (None,):
            at = f"grid[{number}].sizes"
            yield at, f"{at}: the mixture {in_block[0]} declares pairs of its pools, so only all is allowed"
    for number, rule in enumerate(exclude, start=1):
        yield from _clashes_of_names(f"exclude[{number}]", rule, mixtures)


def _clashes_of_names(at: str, of: GridBlock | Exclusion, mixtures: Mixtures) -> Clashes:
    """Yield mixtures that are not declared, and a quality beside mixtures."""
    for name in of.mixtures:
        if name not in mixtures:
            yield f"{at}.mixtures", f"{at}.mixtures: {unknown('mixture', name, mixtures)}"
    if mixtures and of.quality != (() if isinstance(of, Exclusion) else ("all",)):
        instead = "mixtures: {NAME: {POOL: {quality: top20}}}"
        yield f"{at}.quality", f"{at}.quality: a mixture's pools have their own quality: {instead}"
