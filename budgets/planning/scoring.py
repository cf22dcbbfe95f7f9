"""What the quality scores of a study cost: by model in words, as charges, and in sum."""

from collections.abc import Iterable, Iterator

from budgets.planning.facts import ScoreCost
from budgets.planning.plan import Charge
from budgets.quantity import format_flops


def score_charges(costs: Iterable[ScoreCost]) -> tuple[Charge, ...]:
    """Return the training of each model and each scoring of a pool, once however often it is used."""
    charges: dict[str, int] = {}
    for cost in costs:
        if cost.train_flops:
            charges[f"training of the scorer {cost.model}"] = cost.train_flops
        if cost.scoring_flops:
            charges[f"score {_scored_by(cost)}, of the pool {cost.pool}"] = cost.scoring_flops
    return tuple(Charge(what=what, flops=flops) for what, flops in charges.items())


def score_flops(costs: Iterable[ScoreCost]) -> int:
    """Sum training and scoring FLOPs, each once."""
    return sum(charge.flops for charge in score_charges(costs))


def score_words(costs: Iterable[ScoreCost]) -> Iterator[str]:
    """Yield each score with the FLOPs of training its model and of scoring, in words."""
    for cost in dict.fromkeys(costs):
        trained = f"{format_flops(cost.train_flops)} to train" if cost.train_flops else "training not counted"
        scoring = format_flops(cost.scoring_flops) if cost.scoring_flops else "an uncounted amount"
        yield f"{_scored_by(cost)}: {trained}, {scoring} to score {cost.pairs:,} pairs"


def _scored_by(cost: ScoreCost) -> str:
    return cost.score + (f" by {cost.model}" if cost.model != cost.score else "")
