"""Facts about the pool and the evaluation sets that the planner needs, so that it reads no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgets.quality import NAMED, available, score_of_quality


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """The order of a pool's pairs by a named score.

    Attributes:
        name: Content id of the pool in this order.
        scored_pairs: Number of pairs that have this score.
    """

    name: str
    scored_pairs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """Facts about a pool.

    Attributes:
        name: Content id of the pool in the order of the score in force; part of the ids of ``topN``.
        unranked: Content id of the pool that new scores do not change; part of all other ids.
            Empty for ``name``.
        pairs: Number of image-text pairs.
        scored: True if the pairs have a quality score.
        scored_pairs: Number of pairs that have a score; ``None`` for all.
        subsets: Name of a subset → its number of pairs.
        rankings: Name of a score → the order by it.
    """

    name: str
    pairs: int
    scored: bool
    scored_pairs: int | None = None
    subsets: Mapping[str, int] = field(default_factory=dict)
    unranked: str = ""
    rankings: Mapping[str, Ranking] = field(default_factory=dict)

    def available(self, quality: str) -> int:
        """Count the pairs of a quality."""
        if quality.startswith(NAMED):
            return self.subsets[quality.removeprefix(NAMED)]
        return available(self.pairs, quality)

    def id_of(self, quality: str) -> str:
        """Return the content id that decides the pairs of a quality, and no more."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFacts:
    """Facts about all evaluation sets together.

    Attributes:
        names: Content id of each set; part of each trial's id, because its result row holds their metrics.
        images: Images encoded in one evaluation of a trial.
        texts: Texts encoded in one evaluation of a trial.
        metrics: Metrics, each as ``<evaluation set>/<metric>``; empty if unknown.
    """

    names: tuple[str, ...]
    images: int
    texts: int
    metrics: tuple[str, ...] = ()
