"""Declarations for the planner's tests, small enough to check by hand."""

from collections.abc import Mapping
from typing import Any

from budgets.declaration.data_sections import DeclaredPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.sections import Budget, GridBlock, Training
from budgets.planning.facts import EvaluationFacts, PoolFacts
from budgets.planning.plan import Charge, Plan
from budgets.planning.planner import make_plan
from budgets.planning.tuning import Scores
from budgets.planning.tuning_plan import TuningPlan
from budgets.planning.winner import Score

LADDER = ("mini-ViT-XXS-8", "mini-ViT-XS-8", "mini-ViT-S-8")
GFLOP = 10**9
_OF_BUDGET = ("levels", "study_flops", "ladder", "fit")
NO_EVALUATION = EvaluationFacts(names=(), images=0, texts=0)


def declare(*blocks: GridBlock, **changes: object) -> Declaration:
    values: dict[str, Any] = {
        "name": "test",
        "pool": DeclaredPool(name="pool", pairs=10_000, scored=True),
        "levels": (100 * GFLOP, 300 * GFLOP),
        "grid": blocks or (GridBlock(architectures=LADDER),),
        "training": Training(lr_peak=dict.fromkeys((*LADDER, "mini-ConvNeXt", "mini-RN"), 1e-3)),
    }
    values |= changes
    budget = Budget(**{name: values.pop(name) for name in _OF_BUDGET if name in values})
    return Declaration(budget=budget, **values)


def plan_of(
    declaration: Declaration,
    *,
    pairs: int = 10_000,
    scored: bool = True,
    scored_pairs: int | None = None,
    charges: tuple[Charge, ...] = (),
    scores: Mapping[str, Score] | None = None,
    choices: int = 0,
    **facts: Any,  # noqa: ANN401 - passed on
) -> Plan:
    """Plan a study on one pool, given the scores of a tuning's trials, among so many classes."""
    return make_plan(
        declaration,
        pool=PoolFacts(name="pool", pairs=pairs, scored=scored, scored_pairs=scored_pairs),
        evaluation=NO_EVALUATION,
        charges=charges,
        scores=Scores(metric="validation/top1", of=scores or {}, choices=choices),
        **facts,
    )


def tuning_of(plan: Plan) -> TuningPlan:
    assert plan.tuning is not None
    return plan.tuning
