"""Facts about the pool and the evaluation sets that the planner needs, so that it reads no files."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgets.quality import NAMED, available


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """Facts about a pool.

    Attributes:
        name: Content id of the pool; part of each trial's id.
        pairs: Number of image-text pairs.
        scored: True if the pairs have a quality score.
        scored_pairs: Number of pairs that have a score; ``None`` for all.
        subsets: Name of a subset → its number of pairs.
    """

    name: str
    pairs: int
    scored: bool
    scored_pairs: int | None = None
    subsets: Mapping[str, int] = field(default_factory=dict)

    def available(self, quality: str) -> int:
        """Count the pairs of a quality."""
        if quality.startswith(NAMED):
            return self.subsets[quality.removeprefix(NAMED)]
        return available(self.pairs, quality)


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
