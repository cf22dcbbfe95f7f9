"""Tuning: its cells and cost, the choice of the winner, and the widening of the values."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from budgets.declaration.marked_file import DeclaredKeyError
from budgets.declaration.rules import TrainingRule
from budgets.declaration.sections import GridBlock, Training, Tuning
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.winner import Score, step_beyond
from tests.budgets.plans import GFLOP, declare, plan_of, tuning_of

PAIR = ("mini-ViT-XXS-8", "clip")
RATES = (1e-3, 2e-3, 4e-3)


def tuned_plan(
    scores: Mapping[str, Score] | None = None,
    *,
    share: float = 0.3,
    fields: dict[str, tuple[float, ...]] | None = None,
    **changes: object,
) -> Plan:
    """Return a study of one architecture and strategy at two levels, tuned at the lower one."""
    tuning = Tuning(share=share, fields={"lr_peak": RATES, **(fields or {})})
    values = {"study_flops": 3000 * GFLOP, "tuning": tuning, "training": Training(lr_peak={})} | changes
    declaration = declare(GridBlock(architectures=PAIR[:1], sizes=(2_000, 10_000)), **values)
    return plan_of(declaration, scores=scores)


def scored(plan: Plan, score: Callable[[Trial], float | None]) -> dict[str, Score]:
    return {
        trial.trial_id: Score(value=score(trial), standard_error=0.01) for trial in tuning_of(plan).trials
    }


def rates(plan: Plan) -> list[float]:
    return [trial.lr_peak for trial in tuning_of(plan).trials]


def test_tuning_uses_smallest_level_and_largest_subset() -> None:
    plan = tuned_plan()

    assert {(t.cell.level_flops, t.cell.subset_size, t.seed) for t in tuning_of(plan).trials} == {
        (100 * GFLOP, 10_000, 1000)
    }
    assert rates(plan) == list(RATES)
    assert tuning_of(plan).waiting == (PAIR,)
    assert tuning_of(plan).reserve_flops == 900 * GFLOP
    assert plan.train_flops == sum(t.train_flops for t in (*tuning_of(plan).trials, *plan.trials))


def test_winning_learning_rate_enters_the_grids_trial_ids() -> None:
    before = tuned_plan()
    after = tuned_plan(scored(before, lambda trial: {1e-3: 0.2, 2e-3: 0.4, 4e-3: 0.1}[trial.lr_peak]))

    assert tuning_of(after).waiting == ()
    assert [winner.values for winner in tuning_of(after).winners] == [{"lr_peak": 2e-3}]
    assert {trial.lr_peak for trial in after.trials} == {2e-3}
    assert len(after.trials) == len(before.trials)
    assert rates(after) == list(RATES), "a winner within the values is no reason to look further"


def test_winner_at_the_edge_widens_values_once_then_warns() -> None:
    first = tuned_plan()
    results = scored(first, lambda trial: trial.lr_peak * 10)
    second = tuned_plan(results)

    assert rates(second) == [*RATES, 8e-3]
    assert tuning_of(second).waiting == (PAIR,), "what is beyond the edge is not known yet"

    further = results | scored(second, lambda trial: trial.lr_peak * 10)
    third = tuned_plan(further)
    assert rates(third) == [*RATES, 8e-3]
    (winner,) = tuning_of(third).winners
    assert (winner.values, winner.widened, winner.at_edge) == ({"lr_peak": 8e-3}, ("lr_peak",), ("lr_peak",))
    assert any("lr_peak = 0.008 won at the edge" in warning for warning in third.warnings)


def test_values_are_widened_only_within_tunings_share() -> None:
    results = scored(tuned_plan(share=0.1), lambda trial: trial.lr_peak * 10)
    plan = tuned_plan(results, share=0.1)

    assert rates(plan) == list(RATES)
    assert any("at the edge" in warning for warning in plan.warnings)


def test_every_combination_of_several_fields_is_tried() -> None:
    fields: dict[str, tuple[float, ...]] = {"weight_decay": (0.0, 0.1), "batch_size": (32, 64)}
    plan = tuned_plan(share=0.7, fields=fields)
    results = scored(
        plan, lambda t: 0.5 - abs(t.lr_peak - 2e-3) - t.recipe.weight_decay + t.batch_size / 1000
    )
    after = tuned_plan(results, share=0.7, fields=fields)

    assert len(results) == 12
    # No weight decay is that field's end; a batch of 128 is one step further than 64.
    assert {t.batch_size for t in tuning_of(after).trials} == {32, 64, 128}
    assert {t.recipe.weight_decay for t in tuning_of(after).trials} == {0.0, 0.1}


def test_difference_within_counting_noise_is_a_tie() -> None:
    scores = scored(tuned_plan(), lambda trial: {1e-3: 0.2, 2e-3: 0.4, 4e-3: 0.39}[trial.lr_peak])
    plan = tuned_plan(scores)

    assert [winner.tie for winner in tuning_of(plan).winners] == [True]
    assert any("lr_peak 0.002 (40.0 %) ties with lr_peak 0.004 (39.0 %)" in note for note in plan.warnings)


def test_pair_that_diverges_at_every_value_is_left_out_with_reason() -> None:
    both = (GridBlock(architectures=PAIR[:1]), GridBlock(architectures=("mini-ViT-XS-8",)))
    changes: dict[str, Any] = {"grid": both, "share": 0.5}
    scores = scored(
        tuned_plan(**changes),
        lambda trial: None if trial.cell.architecture == PAIR[0] else 0.5 - abs(trial.lr_peak - 2e-3),
    )
    plan = tuned_plan(scores, **changes)

    assert {trial.cell.architecture for trial in plan.trials} == {"mini-ViT-XS-8"}
    assert {item.reason for item in plan.left_out} == {"tuning: training diverged at every value tried"}


def test_too_small_tuning_share_raises_with_the_needed_share() -> None:
    with pytest.raises(DeclaredKeyError, match=r"29\d(\.\d+)? GFLOP .* at least (9|10)"):
        tuned_plan(share=0.05)


TWO = (GridBlock(architectures=PAIR[:1]), GridBlock(architectures=("mini-ViT-XS-8",)))
CHANCE = {1e-3: 0.016, 2e-3: 0.033, 4e-3: 0.02}  # of 64 classes


def climbing(first_learns_at: int, *, share: float) -> Plan:
    """Tune two architectures, of which the first one's results beat chance from a level on."""
    training = Training(lr_peak={PAIR[0]: 1.5e-3})
    declaration = declare(
        *TWO, levels=(100 * GFLOP, 300 * GFLOP, 900 * GFLOP), study_flops=20_000 * GFLOP, training=training,
        tuning=Tuning(share=share, check=0.3, fields={"lr_peak": RATES}),
    )  # fmt: skip
    scores: dict[str, Score] = {}
    while tuning_of(plan := plan_of(declaration, scores=scores, choices=64)).waiting:
        for trial in tuning_of(plan).trials:
            low = (
                trial.cell.architecture == PAIR[0] and (trial.cell.level_flops or 0) < first_learns_at * GFLOP
            )
            value = CHANCE[trial.lr_peak] if low else 0.5 - abs(trial.lr_peak - 2e-3)
            scores[trial.trial_id] = Score(value=value, standard_error=0.002)
        assert sum(trial.train_flops for trial in tuning_of(plan).trials) <= tuning_of(plan).reserve_flops
    return plan


def levels_of(plan: Plan, architecture: str) -> list[int]:
    trials = tuning_of(plan).trials
    return sorted({t.cell.level_flops or 0 for t in trials if t.cell.architecture == architecture})


def test_values_at_chance_are_tried_at_higher_levels_until_one_beats_chance() -> None:
    plan = climbing(900, share=0.3)

    assert levels_of(plan, PAIR[0]) == [100 * GFLOP, 300 * GFLOP, 900 * GFLOP]
    assert levels_of(plan, "mini-ViT-XS-8") == [100 * GFLOP]
    first, _ = tuning_of(plan).winners
    assert (first.cell.level_flops, first.values) == (900 * GFLOP, {"lr_peak": 2e-3})
    low, high = (warning for warning in plan.warnings if "at chance" in warning)
    assert low == (
        "tuning of mini-ViT-XXS-8 with clip: all 3 results at 100 GFLOP are at chance (1.6 % to 3.3 %; "
        "chance 1.6 %); the values were tried at 300 GFLOP instead"
    )
    assert high.endswith("the values were tried at 900 GFLOP instead")
    checked = {(trial.cell.architecture, trial.cell.level_flops) for trial in tuning_of(plan).neighbours}
    assert checked == {("mini-ViT-XS-8", 900 * GFLOP)}, "a pair is checked above its own level"


@pytest.mark.parametrize(
    ("learns_at", "share", "reached", "why"),
    [(900, 0.1, 300, r"to try the values at 900 GFLOP, raise tuning.share to 2[0-2]"),
     (2000, 0.3, 900, "there is no higher level to try the values at")],
)  # fmt: skip
def test_no_value_is_chosen_from_results_at_chance(
    learns_at: int, share: float, reached: int, why: str
) -> None:
    plan = climbing(learns_at, share=share)

    assert levels_of(plan, PAIR[0])[-1] == reached * GFLOP
    assert [winner.architecture for winner in tuning_of(plan).winners] == ["mini-ViT-XS-8"]
    rates = {trial.cell.architecture: trial.lr_peak for trial in plan.trials}
    assert rates == {PAIR[0]: 1.5e-3, "mini-ViT-XS-8": 2e-3}, "the declared rate holds"
    assert {trial.cell.architecture for trial in tuning_of(plan).neighbours} == {"mini-ViT-XS-8"}
    last = [warning for warning in plan.warnings if "at chance" in warning][-1]
    assert f"at {reached} GFLOP are at chance" in last
    assert re.search(f"{why}.*; others beat chance at 100 GFLOP; undecided, .* lr_peak 0.0015$", last)


def test_pairs_that_are_not_tuned_keep_their_declared_rates() -> None:
    rule = TrainingRule(architectures=("mini-ViT-XS-8",), strategies=("slip",), tune=False, lr_peak=7e-4)
    names, strategies = (PAIR[0], "mini-ViT-XS-8", "mini-RN"), ("clip", "slip")
    changes: dict[str, Any] = {
        "grid": (GridBlock(architectures=names, strategies=strategies),),
        "tuning": Tuning(share=0.5, fields={"lr_peak": RATES}, architectures=names[:2]),
        "training": Training(lr_peak={"mini-RN": 5e-4}, rules=(rule,)), "study_flops": 9000 * GFLOP,
    }  # fmt: skip
    scores = scored(tuned_plan(**changes), lambda trial: 0.5 - abs(trial.lr_peak - 2e-3))
    plan = tuned_plan(scores, **changes)

    of = {trial.cell.combination: trial.lr_peak for trial in plan.trials}
    tuned = {(PAIR[0], "clip"), (PAIR[0], "slip"), ("mini-ViT-XS-8", "clip")}
    assert {trial.cell.combination for trial in tuning_of(plan).trials} == tuned
    assert {pair: rate for pair, rate in of.items() if pair not in tuned} == {
        ("mini-ViT-XS-8", "slip"): 7e-4, ("mini-RN", "clip"): 5e-4, ("mini-RN", "slip"): 5e-4
    }  # fmt: skip
    assert {of[pair] for pair in tuned} == {2e-3}


def test_too_dear_tuning_names_its_dearest_pairs_and_what_limits_it() -> None:
    with pytest.raises(DeclaredKeyError) as error:
        tuned_plan(grid=TWO, share=0.1)
    assert "tuning.architectures, tuning.strategies" in str(error.value)
    assert re.search(r"Cost by pair: mini-ViT-X+S-8 clip 299 GFLOP, mini-ViT-X+S-8 clip 29", str(error.value))


def test_step_beyond_keeps_ratio_and_field_bounds() -> None:
    assert step_beyond("lr_peak", (1e-3, 2e-3, 4e-3), 4e-3) == 8e-3
    assert step_beyond("lr_peak", (1e-3, 3e-3), 1e-3) == 3.333e-4
    assert step_beyond("lr_peak", (1e-3, 2e-3, 4e-3), 2e-3) is None
    assert step_beyond("beta2", (0.9, 0.98), 0.98) == 0.996
    assert step_beyond("warmup", (0.1, 0.5), 0.5) is None
    assert step_beyond("weight_decay", (0, 0.1), 0) is None
    assert step_beyond("weight_decay", (0, 0.1), 0.1) == 0.2


def test_a_seed_that_tuning_and_grid_share_is_noted() -> None:
    shared = Tuning(share=0.3, fields={"lr_peak": RATES}, seeds=(0, 1000))
    (note,) = [warning for warning in tuned_plan(tuning=shared).warnings if "lucky seed" in warning]
    assert note.startswith("tuning.seeds and the grid share 0: ")
    assert not [warning for warning in tuned_plan().warnings if "lucky seed" in warning]
