"""What the planner must know of a pool and of evaluation sets, so that it touches no disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from budgets.quality import NAMED, available


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolFacts:
    """What the planner must know of a pool.

    Attributes:
        name: Identifies the pool's content; part of each trial's id.
        pairs: Number of image-text pairs.
        scored: Whether the pairs have a quality score.
        scored_pairs: How many of them have; ``None`` for all.
        subsets: Pairs in each named subset.
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
    """What the planner must know of the evaluation sets together.

    Attributes:
        names: The sets, each by a name that stands for its content; part of each trial's id, since its row
            holds their metrics.
        images: Images encoded in one evaluation of a trial.
        texts: Texts encoded in one evaluation of a trial.
        metrics: What is measured, each as ``<evaluation set>/<metric>``; empty where it is not known.
    """

    names: tuple[str, ...]
    images: int
    texts: int
    metrics: tuple[str, ...] = ()
