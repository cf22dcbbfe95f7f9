"""What the planner must know of a pool and of evaluation sets, so that it touches no disk."""

from dataclasses import dataclass


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
