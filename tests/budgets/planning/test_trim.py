"""Study budget: the ladder that fits, and trimming of a grid that exceeds it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budgets.declaration.declaration import Declaration
from budgets.declaration.marked_file import DeclaredKeyError
from budgets.declaration.sections import Design, GridBlock, Ladder
from budgets.planning.plan import Charge, Plan
from tests.budgets.plans import GFLOP, LADDER, declare, plan_of

CHARGE = Charge(what="quality scorer", flops=100 * GFLOP)


def cost_of(levels: tuple[int, ...], **changes: object) -> int:
    return plan_of(declare(levels=levels, **changes), charges=(CHARGE,)).train_flops


def test_highest_ladder_whose_grid_fits_the_study_budget_is_chosen() -> None:
    cap = 20_000 * GFLOP
    plan = plan_of(declare(levels=(), study_flops=cap), charges=(CHARGE,))
    low, *_, top = plan.levels

    assert len(plan.levels) == 4
    assert [level / low for level in plan.levels] == pytest.approx([1, 2, 4, 8])
    assert plan.train_flops <= cap
    # The next number of three digits as the top level would not fit.
    step = 10 ** (len(str(top)) - 3)
    assert top % step == 0
    assert cost_of(tuple((top + step) // 2**k for k in range(4))) > cap
    assert plan.warnings[0].startswith("levels chosen: the highest 4 at a ratio of 2 whose grid fits")


def test_questions_of_a_design_are_held_against_the_levels_that_were_chosen() -> None:
    def asked(**design: object) -> Plan:
        design = {"adaptive": True} | design
        return plan_of(declare(levels=(), study_flops=20_000 * GFLOP, design=Design(**design)))  # type: ignore[arg-type]

    levels = asked().levels
    assert asked(best=levels[:1], forecast=20 * levels[-1]).levels == levels
    with pytest.raises(DeclaredKeyError, match=r"design\.best: 7 GFLOP is not a level of the study"):
        asked(best=(7 * GFLOP,))
    for forecast in (levels[-1], 31 * levels[-1]):
        with pytest.raises(DeclaredKeyError, match=r"must be beyond .*30 times"):
            asked(forecast=forecast)


def test_number_and_ratio_of_the_levels_may_be_declared() -> None:
    ladder = Ladder(levels=3, ratio=10.0)
    plan = plan_of(declare(levels=(), study_flops=30_000 * GFLOP, ladder=ladder))

    assert [level / plan.levels[0] for level in plan.levels] == pytest.approx([1, 10, 100], rel=1e-6)


def test_cells_lost_to_the_epochs_cap_do_not_raise_the_ladder() -> None:
    small_subset = GridBlock(architectures=LADDER[:1], sizes=(64,))
    plain = plan_of(declare(GridBlock(architectures=LADDER), levels=(), study_flops=20_000 * GFLOP))
    capped = plan_of(
        declare(GridBlock(architectures=LADDER), small_subset, levels=(), study_flops=20_000 * GFLOP)
    )

    assert capped.levels[-1] < plain.levels[-1]
    assert any("max_epochs" in item.reason for item in capped.left_out)


def test_ladder_ends_where_every_cell_exceeds_the_epochs_cap_and_says_how_much_stays_unspent() -> None:
    def few_pairs(*architectures: str) -> Plan:
        block = GridBlock(architectures=architectures)
        return plan_of(declare(block, levels=(), study_flops=200_000 * GFLOP), pairs=1_024)

    one, three = few_pairs(LADDER[0]), few_pairs(*LADDER)

    # 1,000 epochs over 1,024 pairs cost 7.186 TFLOP: levels of three digits up to it.
    assert one.levels == tuple(7_180 * GFLOP * 10**3 // 2**k // 10**3 for k in (3, 2, 1, 0))
    assert [trial.cell.level_flops for trial in one.trials] == list(one.levels)
    assert one.warnings[1].startswith("93.3 % of the study budget stays unspent: higher levels would exceed ")
    assert three.warnings[1].startswith("57.8 % ")
    assert "5 of 12" in three.warnings[1]
    small = declare(
        GridBlock(architectures=LADDER[:1]), levels=(), study_flops=GFLOP, ladder=Ladder(levels=1)
    )
    with pytest.raises(ValueError, match=r"no cell .*\n.*\n.*budget\.study"):
        plan_of(small)


def test_trials_without_a_level_are_paid_before_the_ladder() -> None:
    one_epoch = GridBlock(architectures=LADDER, regime="one-epoch")
    declaration = declare(GridBlock(architectures=LADDER), one_epoch, levels=(), study_flops=20_000 * GFLOP)
    plan = plan_of(declaration)

    assert plan.train_flops <= 20_000 * GFLOP
    with pytest.raises(DeclaredKeyError, match=r"634.* GFLOP, .*600 GFLOP"):
        plan_of(declare(GridBlock(architectures=LADDER), one_epoch, levels=(), study_flops=600 * GFLOP))


def three_seeds(cap: int, fit: str = "drop", **changes: object) -> Declaration:
    return declare(seeds=(0, 1, 2), study_flops=cap, fit=fit, **changes)


def test_grid_over_budget_raises_with_excess_drops_and_alternatives() -> None:
    # 3 architectures x 3 seeds x (100 + 300) GFLOP are 3.6 TFLOP less what whole batches leave over.
    with pytest.raises(ValueError, match="the grid costs") as refusal:
        plan_of(three_seeds(3_000 * GFLOP, fit="refuse"), charges=(CHARGE,))

    text = str(refusal.value)
    assert "(18 trials, and 100 GFLOP of charges), but the study budget is 3 TFLOP: 68" in text
    assert "3 extra seeds at 300 GFLOP (3 trials" in text
    assert "raise budget.study" in text


def test_extra_seeds_are_dropped_costliest_and_last_declared_first() -> None:
    plan = plan_of(three_seeds(3_000 * GFLOP), charges=(CHARGE,))
    planned = {(t.cell.architecture, t.cell.level_flops, t.seed) for t in plan.trials}

    assert len(planned) == 15
    assert not any((name, 300 * GFLOP, 2) in planned for name in LADDER)
    assert plan.train_flops <= 3_000 * GFLOP
    assert [item.reason for item in plan.left_out] == [
        f"extra seeds are dropped to fit the study budget: seed 2, {cost} each (budget.fit: drop)"
        for cost in ("300 GFLOP", "299.4 GFLOP", "298.4 GFLOP")
    ]
    assert "(budget.fit: drop): 3 extra seeds" in plan.warnings[0]


def test_nothing_more_is_dropped_than_needed() -> None:
    plan = plan_of(three_seeds(3_300 * GFLOP))

    assert len(plan.trials) == 17
    assert "1 extra seed at 300 GFLOP (1 trial, 298.4 GFLOP)" in plan.warnings[0]
    assert plan.left_out[0].cell.architecture == LADDER[-1]


def test_top_level_is_dropped_when_one_seed_per_cell_exceeds_the_budget() -> None:
    plan = plan_of(three_seeds(1_000 * GFLOP))

    assert {trial.cell.level_flops for trial in plan.trials} == {100 * GFLOP}
    assert len(plan.trials) == 9
    assert all("the top level is dropped" in item.reason for item in plan.left_out)


def test_grid_that_dropping_cannot_fit_raises() -> None:
    with pytest.raises(ValueError, match="is not enough"):
        plan_of(three_seeds(200 * GFLOP))


def test_dropping_keeps_trial_ids() -> None:
    whole = plan_of(declare(seeds=(0, 1, 2)))
    dropped = plan_of(three_seeds(2_000 * GFLOP))

    assert {t.trial_id for t in dropped.trials} < {t.trial_id for t in whole.trials}


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    cap=st.integers(10**11, 10**14),
    ladder=st.builds(Ladder, levels=st.integers(1, 6), ratio=st.floats(1.1, 20)),
    levels=st.lists(st.integers(10**9, 10**13), max_size=4, unique=True).map(sorted),
    seeds=st.integers(1, 4).map(range).map(tuple),
    sizes=st.lists(st.none() | st.integers(1, 20_000), min_size=1, max_size=3, unique=True).map(tuple),
    fit=st.sampled_from(["refuse", "drop"]),
)
def test_plan_stays_within_budget_and_accounts_for_every_cell(
    cap: int,
    ladder: Ladder,
    levels: list[int],
    seeds: tuple[int, ...],
    sizes: tuple[int | None, ...],
    fit: str,
) -> None:
    block = GridBlock(architectures=(*LADDER, "mini-RN"), strategies=("clip", "flip-50"), sizes=sizes)
    declaration = declare(block, levels=tuple(levels), study_flops=cap, ladder=ladder, seeds=seeds, fit=fit)
    try:
        plan = plan_of(declaration, charges=(CHARGE,))
    except ValueError as refusal:
        assert "the study budget is" in str(refusal) or "no cell of the grid can be run" in str(refusal)  # noqa: PT017
        return
    cells = {trial.cell for trial in plan.trials} | {item.cell for item in plan.left_out}

    assert plan.train_flops <= cap
    assert len({trial.trial_id for trial in plan.trials}) == len(plan.trials)
    assert len(cells) == 8 * len({10_000 if size is None else size for size in sizes}) * len(plan.levels)
    assert fit == "drop" or len(plan.trials) == len(seeds) * len({trial.cell for trial in plan.trials})
