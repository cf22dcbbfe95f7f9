"""Adaptive designs on the embedded study's finished grid, and rehearsals of what they will probably cost."""

import numpy as np
import pandas as pd
import pytest

from analysis.belief.verdict import CLEAR
from analysis.cells.table import Trials, records, tidy
from analysis.design.adaptive import FIRST_ROUND, decide, rehearse
from analysis.design.questions import Ask
from benchmarks.design import replay, with_trunks
from tests.analysis.made_up.designs import grid as made_up
from tests.analysis.made_up.studies import study as made_up_curves
from tests.analysis.synthetic import METRIC, trial_row

pytestmark = pytest.mark.slow

FLIP = "mini-ViT-XS-8, FLIP (50 %), 13,108 pairs, top 40 %"
CROP = "mini-ViT-XS-8, CLIP + crop and flip, 13,108 pairs, top 40 %"
CNN = "mini-ConvNeXt, CLIP, 13,108 pairs, top 40 %"
LEVELS = (2e11, 6e11, 1.8e12, 5.4e12)


@pytest.fixture(scope="module")
def grid(small_full: pd.DataFrame) -> pd.DataFrame:
    return small_full


@pytest.fixture(scope="module")
def plan(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the grid without results."""
    return grid.drop(columns=[name for name in grid.columns if "/" in str(name)])


def seen(grid: pd.DataFrame, rows: "pd.Series[bool]") -> Trials:
    return tidy(grid[rows], metric=METRIC)


def test_first_round_runs_each_curve_at_two_levels_and_twice_at_the_first(grid: pd.DataFrame) -> None:
    decision = decide(seen(grid, grid["seed"] < 0), grid, ask=Ask(), slots=1000)

    chosen = grid.set_index("trial").loc[[pick.trial for pick in decision.picks]]
    assert chosen.groupby(["level_flops", "seed"]).size().to_dict() == {
        (2e11, 0): 13, (2e11, 1): 13, (6e11, 0): 13,
    }  # fmt: skip
    assert {pick.reason for pick in decision.picks} == {FIRST_ROUND}


def test_configuration_behind_at_small_levels_survives_to_win_at_the_largest(grid: pd.DataFrame) -> None:
    # FLIP is the last but three of 13 at 200 GFLOP, and the first at 5.4 TFLOP.
    first = (grid["level_flops"] < 1e12) & (grid["seed"] < 2)
    worst = grid[grid["level_flops"] == 2e11].groupby(["strategy", "architecture"])[METRIC].mean().rank()
    assert worst["flip-50", "mini-ViT-XS-8"] <= 4

    largest = decide(seen(grid, first), grid, ask=Ask()).answers[-1]

    assert largest.flops == 5.4e12
    assert FLIP not in largest.dropped


def test_a_cell_that_lost_a_run_gets_no_more_and_its_configuration_is_still_tried_above(
    grid: pd.DataFrame,
) -> None:
    flip = (grid["strategy"] == "flip-50") & (grid["architecture"] == "mini-ViT-XS-8")
    first = (grid["level_flops"] < 1e12) & (grid["seed"] < 2)
    for level, phase in ((2e11, first & (grid["level_flops"] < 6e11) & (grid["seed"] < 1)), (6e11, first)):
        cell = flip & (grid["level_flops"] == level)
        lost = phase & cell & (grid["seed"] == 0)
        results = grid.assign(status=np.where(lost, "diverged", "finished"))

        found = decide(seen(results, phase), grid, ask=Ask(), ended=grid["trial"][lost], slots=1000)

        chosen = {pick.trial for pick in found.picks}
        assert not chosen & set(grid["trial"][cell]), "neither in the first round nor later"
        assert chosen & set(grid["trial"][flip & ~cell])
    apart = {answer.flops: answer.apart for answer in found.answers}
    assert apart[6e11].startswith(f"{FLIP} (lost 1 of 2 runs at 600 GFLOP, the one left has ")


def test_design_reaches_the_verdicts_of_the_full_grid_with_less_than_half_of_its_flops(
    grid: pd.DataFrame,
) -> None:
    decision, spent, chosen = replay(grid, metric=METRIC, ask=Ask(), slots=8)

    assert spent < 0.5
    assert chosen["train_flops"].sum() == pytest.approx(spent * grid["train_flops"].sum()), "none twice"
    assert [answer.flops for answer in decision.answers] == list(LEVELS)
    assert [(answer.leader, answer.verdict) for answer in decision.answers[:3]] == [(CNN, "clear")] * 3
    assert decision.answers[3].verdict == "tie"
    assert {FLIP, CROP} <= set(decision.answers[3].tied)


def test_same_results_give_the_same_decision_and_running_trials_are_not_chosen_again(
    grid: pd.DataFrame,
) -> None:
    known = seen(grid, (grid["level_flops"] < 1e12) & (grid["seed"] < 2))
    ask = Ask(best=(5.4e12,))

    first = decide(known, grid, ask=ask, slots=3)
    again = decide(known, grid, ask=ask, slots=3)
    more = decide(known, grid, ask=ask, slots=3, running=[pick.trial for pick in first.picks])

    assert first == again
    assert len(first.picks) == 3
    assert not {pick.trial for pick in first.picks} & {pick.trial for pick in more.picks}
    assert "lower the doubt" in first.picks[0].reason


def test_a_first_round_without_room_does_not_keep_the_others_from_their_answers(grid: pd.DataFrame) -> None:
    dear = grid["architecture"] == "mini-ConvNeXt"
    priced = grid.assign(paid_flops=np.where(dear, 1e6, 1.0) * grid["train_flops"])
    first = ~dear & (grid["level_flops"] < 1e12) & (grid["seed"] < 2)

    found = decide(seen(grid, first), priced, ask=Ask(), slots=3, room_flops=2e13)
    nothing = decide(seen(grid, first & ~first), priced, ask=Ask(), room_flops=1.0)

    assert found.picks
    assert all("lower the doubt" in pick.reason for pick in found.picks)
    assert [answer.flops for answer in found.answers] == list(LEVELS)
    assert (nothing.picks, nothing.answers) == ((), ())
    assert nothing.stop == "the budget has no room for a trial that is worth its cost"


def test_choice_knows_prices_and_the_room_in_the_budget(grid: pd.DataFrame) -> None:
    known = seen(grid, (grid["level_flops"] < 1e12) & (grid["seed"] < 2))
    flops = grid["train_flops"].to_numpy(np.float64)
    dear = np.where(grid["architecture"] == "mini-ConvNeXt", 1e6 * flops, flops)

    priced = decide(known, grid.assign(paid_flops=dear), ask=Ask(), slots=5)
    broke = decide(known, grid, ask=Ask(), slots=20, room_flops=1e11)

    architecture = grid.set_index("trial")["architecture"]
    assert "mini-ConvNeXt" not in {architecture[pick.trial] for pick in priced.picks}
    assert not broke.picks
    assert broke.stop == "the budget has no room for a trial that is worth its cost"


def simulated(kind: str, number: int) -> tuple[pd.DataFrame, float, float]:
    """Return a simulated grid, its largest level, and the lowest true error there of those that ran."""
    if kind == "designs":
        made = made_up(number)
        top = float(made.results["level_flops"].max())
        return made.results, top, min(error(top) for error in made.truth.values())
    curves = made_up_curves("broken", number)
    top = float(curves.levels[-1])
    ran = records(curves.results[curves.results["level_flops"] == top])
    return curves.results, top, min(float(curves.at(row, np.array([top]))[0]) for row in ran)


@pytest.mark.parametrize(("kind", "count", "least"), [("designs", 20, 0.75), ("broken laws", 40, 0.85)])
def test_forecast_beyond_the_grid_holds_the_truth(kind: str, count: int, least: float) -> None:
    held = []
    for number in range(count):
        results, top, best = simulated(kind, number)
        below = results[results["level_flops"] < top]
        (answer,) = decide(tidy(below, metric=METRIC), below, ask=Ask(best=None, forecast=top)).answers
        assert answer.kind == "forecast"
        held.append(answer.low <= best <= answer.high)

    assert np.mean(held) >= least  # 90 % intervals: fewer of 20 have a probability of 1 in 100


def test_clear_verdicts_of_a_design_are_right_on_simulated_grids() -> None:
    clear = []
    for number in range(4):
        made = made_up(number)
        decision, *_ = replay(made.results, metric=METRIC, ask=Ask(), slots=8)
        for answer in decision.answers:
            errors = {name: error(answer.flops) for name, error in made.truth.items()}
            best = min(errors, key=lambda name: errors[name])
            assert not any(name.startswith(f"{best},") for name in answer.dropped)
            if answer.verdict == "clear":
                clear.append(answer.leader.startswith(f"{best},"))

    assert len(clear) >= 6
    assert np.mean(clear) >= 0.9


def test_answered_questions_end_the_design(grid: pd.DataFrame) -> None:
    decision = decide(seen(grid, grid["seed"] >= 0), grid, ask=Ask(best=(2e11, 6e11)))

    assert not decision.picks
    assert decision.stop == "every question is answered"
    assert {answer.verdict for answer in decision.answers} == {"clear"}


def test_leader_below_the_asked_probability_is_tied_with_another(grid: pd.DataFrame) -> None:
    answers = decide(seen(grid, grid["seed"] >= 0), grid, ask=Ask(confidence=0.9999)).answers

    ties = [answer for answer in answers if answer.verdict == "tie"]
    assert any(answer.probability > CLEAR for answer in ties)
    assert min(len(answer.tied) for answer in ties) > 1


@pytest.mark.parametrize("regime", ["one-epoch", "equal-samples"])
def test_leader_that_ran_at_a_compute_is_clear_there_outside_fixed_compute(regime: str) -> None:
    rows = [
        trial_row((seen if regime == "one-epoch" else 1000, "all", name, "clip"), 1e9 * seen, seed, 0.5)
        | {
            "regime": regime, "level_flops": np.nan, "samples_seen": seen, "train_flops": 1e9 * seen,
            "paid_flops": 1e9 * seen, METRIC: 1 - (0.3 + 0.4 * (seen / 1000) ** -0.35 + gap + 0.005 * seed),
        }
        for name, gap in (("ViT-X", 0.0), ("ViT-S", 0.12))
        for seen in (1000, 3000, 9000)
        for seed in range(3)
    ]  # fmt: skip
    results = pd.DataFrame(rows)

    decision = decide(tidy(results, metric=METRIC), results, ask=Ask())

    assert [(answer.flops, answer.verdict) for answer in decision.answers] == [
        (1e12, "clear"), (3e12, "clear"), (9e12, "clear")
    ]  # fmt: skip
    assert decision.stop == "every question is answered"


def test_regime_without_a_cell_at_a_compute_has_no_answer_there(grid: pd.DataFrame) -> None:
    one_epoch = grid[grid["level_flops"] == 2e11].assign(
        regime="one-epoch", level_flops=np.nan, trial=lambda rows: rows["trial"] + "-once"
    )
    one_epoch = one_epoch.assign(train_flops=5e12, samples_seen=10**6)

    decision = decide(tidy(pd.concat([grid, one_epoch]), metric=METRIC), pd.concat([grid, one_epoch]),
                      ask=Ask(best=(6e11,)))  # fmt: skip

    assert [(answer.regime, answer.flops) for answer in decision.answers] == [("fixed-compute", 6e11)]


def test_rehearsals_cost_more_than_the_first_round_and_less_than_the_grid(plan: pd.DataFrame) -> None:
    costs = rehearse(plan, metric=METRIC, ask=Ask(), repeats=2)

    first_round = plan["train_flops"][(plan["level_flops"] < 1e12) & (plan["seed"] == 0)].sum()
    assert len(set(costs)) == 2
    assert first_round < costs.min()
    assert costs.max() < plan["train_flops"].sum()
    assert rehearse(plan, metric=METRIC, ask=Ask(), repeats=1) == costs[:1]


def test_rehearsals_know_trunks_and_the_budget(plan: pd.DataFrame) -> None:
    plain = rehearse(plan, metric=METRIC, ask=Ask(), repeats=1)

    trunks = rehearse(with_trunks(plan), metric=METRIC, ask=Ask(), repeats=1)
    capped = rehearse(plan, metric=METRIC, ask=Ask(), repeats=1, room_flops=20e12)

    assert trunks[0] < plain[0]
    assert 15e12 < capped[0] <= 20e12
