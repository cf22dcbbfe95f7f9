"""A named subset is a quality with a fixed size, chosen without a score."""

import pytest

from budgets.declaration.sections import GridBlock
from budgets.planning.facts import PoolFacts
from budgets.planning.planner import make_plan
from budgets.quality import check_quality
from tests.budgets.plans import LADDER, NO_EVALUATION, declare

POOL = PoolFacts(name="pool", pairs=10_000, scored=False, subsets={"basic": 640})


def test_named_subset_is_planned_at_its_size_and_rejects_larger() -> None:
    block = GridBlock(architectures=LADDER[:1], quality=("subset:basic",), sizes=(None, 500, 641))

    plan = make_plan(declare(block), pool=POOL, evaluation=NO_EVALUATION)

    assert {trial.cell.subset_size for trial in plan.trials} == {640, 500}
    assert {item.reason for item in plan.left_out} == {
        "641 pairs requested, but the pool holds 640 of quality subset:basic"
    }


def test_quality_is_all_a_percentage_or_a_named_subset() -> None:
    allowed = ["all", "top40", "subset:data-comp_1.b"]
    assert [check_quality(text) for text in allowed] == allowed
    for wrong in ("basic", "subset:", "top0", "top100", "subset:a b"):
        with pytest.raises(ValueError, match=f"unknown quality '{wrong}'; allowed: 'all', 'top1' to 'top99'"):
            check_quality(wrong)
