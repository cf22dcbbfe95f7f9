"""Facts about the pools and the evaluation sets that the planner needs, so that it reads no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import gcd, lcm

from budgets.declaration.data_sections import MixedPool
from budgets.quality import BY, MIXTURE, NAMED, count_available, score_of_quality
from budgets.quantity import divide_count

PERIOD = 4096
"""Longest period of a mixture with weights, in samples, unless the weights themselves need a longer one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A pool's part of the pairs that a trial trains on.

    Attributes:
        name: Name of the pool in the declaration, not part of the trial's id; empty for a single pool.
        pool: Content id of the pool.
        share: Samples from it in each period of the order of samples. A period is the sum of all shares long.
    """

    name: str
    pool: str
    quality: str
    pairs: int
    share: int

    @property
    def content(self) -> tuple[str, str, int, int]:
        """Everything that decides its pairs and their order; the pool's id names the score of a quality."""
        return self.pool, self.quality.partition(BY)[0], self.pairs, self.share


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The order of a pool's pairs by a named score: content id of the pool in it, pairs with the score."""

    name: str
    scored_pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCost:
    """The cost of the scores that a model gave to a pool's pairs.

    Attributes:
        score: Name of the score.
        model: The model: a trial by its id, else as it was named to ``data score``.
        pool: Content id of the pool, which later scores do not change.
        pairs: Number of pairs that it scored.
        train_flops: Training FLOPs of the model, 0 unless it is a trial of this project.
        scoring_flops: Forward FLOPs of scoring the pairs, 0 if they can't be counted.
    """

    score: str
    model: str
    pool: str
    pairs: int
    train_flops: int
    scoring_flops: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFacts:
    """A column of a pool's index: a hash of its values, and the costs of the model that computed it.

    The hash is empty for a column that the pool's content id stands for. ``width`` is 1 for numbers, that of
    the rows of arrays, and 0 for texts.
    """

    content: str = ""
    width: int = 1
    costs: tuple[ScoreCost, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """Facts about a pool.

    Attributes:
        name: Content id of the pool in the order of the score that ranks it; part of the ids of ``topN``.
        unranked: Content id of the pool that new scores do not change; part of all other ids.
            Empty for ``name``.
        scored_pairs: Number of pairs that have a score; ``None`` for all.
        rankings: Name of a score, or the expression that computed it → the order by it.
        score_costs: The same names, and empty for the one that ranks → the costs of all models behind it.
        columns: The columns that all pairs have in its index; ``None`` if they are not known.
    """

    name: str
    pairs: int
    scored: bool
    scored_pairs: int | None = None
    subsets: Mapping[str, int] = field(default_factory=dict)
    unranked: str = ""
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
    score_costs: Mapping[str, tuple[ScoreCost, ...]] = field(default_factory=dict)
    columns: Mapping[str, ColumnFacts] | None = None

    def components(self, quality: str, size: int) -> tuple[Component, ...]:
        """Return the one component of a subset."""
        return (Component(name="", pool=self.id_of(quality), quality=quality, pairs=size, share=1),)

    @property
    def widths(self) -> dict[str, int]:
        """The widths of the columns of its index."""
        return {name: column.width for name, column in (self.columns or {}).items()}

    def of_component(self, name: str) -> "PoolFacts":  # noqa: ARG002 - it has one
        """Return the pool of a component."""
        return self

    def available(self, quality: str) -> int:
        """Count the pairs of a quality."""
        if quality.startswith(NAMED):
            return self.subsets[quality.removeprefix(NAMED)]
        return count_available(self.pairs, quality)

    def id_of(self, quality: str) -> str:
        """Return the content id that changes if, and only if, the pairs of a quality change."""
        score = score_of_quality(quality)
        if score is not None:
            return self.rankings[score].name
        return self.name if quality.startswith("top") else self.unranked or self.name

    def scored_for(self, quality: str) -> int:
        """Count the pairs that have the score that a quality ranks by."""
        score = score_of_quality(quality)
        if score is not None:
            return self.rankings[score].scored_pairs
        return 0 if not self.scored else self.pairs if self.scored_pairs is None else self.scored_pairs

    def costs_of(self, quality: str) -> tuple[ScoreCost, ...]:
        """Return the costs of the score that a quality ranks by."""
        return self.score_costs.get(score_of_quality(quality) or "", ()) if quality.startswith("top") else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureFacts:
    """Facts about pools that are mixed, and the pools in each mixture.

    Has the methods of `PoolFacts`, for mixtures in place of qualities.
    """

    pools: Mapping[str, PoolFacts]
    mixtures: Mapping[str, Mapping[str, MixedPool]]

    def available(self, quality: str) -> int:
        """Count the pairs of a mixture."""
        return sum(pairs for _, _, pairs in self._parts(quality))

    def components(self, quality: str, size: int) -> tuple[Component, ...]:
        """Return the components of a mixture, with ``size`` pairs in all.

        Pairs are divided in proportion to the weights; without weights, in proportion to the pairs of the
        pools, so that every pair is seen equally often. Components are ordered by content, because the order
        of samples depends on their order and must not depend on names.
        """
        parts = self._parts(quality)
        whole = [pairs for _, _, pairs in parts]
        weights = _whole_numbers([part.weight for _, part, _ in parts])
        # The shares are the weights times the largest whole number with which a period has at most `PERIOD`
        # samples.
        pairs, shares = whole, [weight * max(1, PERIOD // sum(weights)) for weight in weights] or whole
        if size != sum(whole):
            pairs = shares = list(divide_count(size, weights or whole))
        if len(parts) == 1:
            shares = [1]  # as a plain subset, which has the same id
        return tuple(
            Component(
                name=name,
                pool=self.pools[name].id_of(part.quality),
                quality=part.quality,
                pairs=count,
                share=share,
            )
            for (name, part, _), count, share in zip(parts, pairs, shares, strict=True)
        )

    @property
    def widths(self) -> dict[str, int]:
        """The widths of the columns of the pools' indexes."""
        return {name: width for pool in self.pools.values() for name, width in pool.widths.items()}

    def of_component(self, name: str) -> PoolFacts:
        """Return the pool of a component."""
        return self.pools[name]

    def costs_of(self, mixture: str) -> tuple[ScoreCost, ...]:
        """Return the costs of all scores that the pools of a mixture are ranked by."""
        parts = self._parts(mixture)
        return tuple(cost for name, part, _ in parts for cost in self.pools[name].costs_of(part.quality))

    def _parts(self, mixture: str) -> list[tuple[str, MixedPool, int]]:
        """Return each pool of a mixture, and its pairs, in the order of their content."""

        def content(of: tuple[str, MixedPool, int]) -> tuple[str, str, int, float]:
            name, part, pairs = of
            quality = part.quality.partition(BY)[0]  # the id names the order of the score
            return self.pools[name].id_of(part.quality), quality, pairs, part.weight or 0.0

        parts = self.mixtures[mixture.removeprefix(MIXTURE)]
        counted = (
            (name, part, part.pairs or self.pools[name].available(part.quality))
            for name, part in parts.items()
        )
        return sorted(counted, key=content)


def _whole_numbers(weights: list[float | None]) -> list[int]:
    """Return weights as the smallest whole numbers in the same ratio; an empty list without weights."""
    exact = [Fraction(repr(weight)) for weight in weights if weight is not None]
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    return [weight // gcd(*whole) for weight in whole]


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFacts:
    """Facts about all evaluation sets together.

    Attributes:
        names: Content id of each set; part of each trial's id, because its result row holds their metrics.
        images: Images encoded in one evaluation of a trial; ``texts`` likewise.
        metrics: Metrics, each as ``<evaluation set>/<metric>``; empty if unknown.
        choices: Set → what a guess has to choose from: classes, or the images of a retrieval set.
    """

    names: tuple[str, ...]
    images: int
    texts: int
    metrics: tuple[str, ...] = ()
    choices: Mapping[str, int] = field(default_factory=dict)
