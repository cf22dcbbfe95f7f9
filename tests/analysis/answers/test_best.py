"""The best configuration at a budget: clear, a tie, or undecided, the same whoever asks."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.answers.best import best_at_budgets, turns, unranked
from analysis.answers.contrasts import contrasts
from analysis.answers.recommendation import recommend
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.cells.table import Trials, records, tidy
from analysis.design.adaptive import decide
from analysis.design.questions import Ask
from analysis.labels import configuration_text
from tests.analysis.synthetic import METRIC, trial_row

LEVELS = (2e11, 6e11, 1.8e12)
NOISE = 0.01


def drawn(results: pd.DataFrame, grid: pd.DataFrame | None = None) -> CellDraws:
    return cell_draws(tidy(results, metric=METRIC), grid)


def runs(
    name: str, level: float, error: float, *, seeds: int = 3, noise: float = NOISE
) -> list[dict[str, object]]:
    """Return seeds of a configuration at a level, around an error."""
    offsets = noise * np.linspace(-1, 1, seeds) if seeds > 1 else np.zeros(1)
    return [
        trial_row((1024, "all", name, "clip"), level, seed, error + float(offset))
        for seed, offset in enumerate(offsets)
    ]


def pair(gap: float, *, seeds: int = 3) -> pd.DataFrame:
    """Return two architectures with errors ``gap`` apart at one level."""
    rows = (runs(name, 2e11, 0.6 + more, seeds=seeds) for name, more in (("ViT-X", 0.0), ("ViT-S", gap)))
    return pd.DataFrame([row for each in rows for row in each])


def test_a_gap_far_outside_the_noise_is_clear() -> None:
    row = best_at_budgets(drawn(pair(0.2))).iloc[0]
    assert (row["verdict"], row["architecture"], row["tied"]) == ("clear", "ViT-X", "")
    assert row["probability"] > 0.99
    assert row["low"] < row["error"] < row["high"]
    assert row["error"] == pytest.approx(0.6, abs=NOISE)
    assert row["runner_up"] == "ViT-S, CLIP, 1,024 pairs, all"
    assert row["gap"] == pytest.approx(0.2, abs=2 * NOISE)


def test_a_gap_within_the_noise_is_a_tie_and_names_its_members() -> None:
    row = best_at_budgets(drawn(pair(0.003))).iloc[0]
    assert row["verdict"] == "tie"
    assert set(row["tied"].split("; ")) == {"ViT-X, CLIP, 1,024 pairs, all", "ViT-S, CLIP, 1,024 pairs, all"}
    assert row["gap_low"] < 0 < row["gap_high"]


def test_single_runs_at_one_level_show_no_noise_and_decide_nothing() -> None:
    row = best_at_budgets(drawn(pair(0.2, seeds=1))).iloc[0]
    assert row["verdict"] == "undecided"
    assert "no noise was measured" in row["reason"]
    assert np.isnan([row["low"], row["probability"]]).all()


@pytest.mark.slow
def test_of_ten_equal_configurations_one_is_rarely_called_clear() -> None:
    generator = np.random.default_rng(0)
    clear = 0
    for _ in range(100):
        rows = [
            trial_row((100 + place, "all", "ViT-X", "clip"), 2e11, seed, 0.5 + 0.03 * float(shift))
            for place in range(10)
            for seed, shift in enumerate(generator.standard_normal(3))
        ]
        clear += best_at_budgets(drawn(pd.DataFrame(rows))).iloc[0]["verdict"] == "clear"
    assert clear <= 10


def lose(results: pd.DataFrame, rows: "pd.Series[bool]") -> pd.DataFrame:
    """Return results in which some runs diverged."""
    status = np.where(rows, "diverged", "finished")
    return results.assign(status=status, **{METRIC: results[METRIC].mask(rows)})


def test_a_configuration_that_lost_runs_is_not_ranked_and_named_with_its_counts() -> None:
    results = pair(0.2, seeds=4)
    row = best_at_budgets(drawn(lose(results, results["trial"] == results["trial"][0]))).iloc[0]
    assert (row["verdict"], row["architecture"], row["runner_up"]) == ("undecided", "ViT-S", "")
    left = "ViT-X, CLIP, 1,024 pairs, all (lost 1 of 4 runs at 200 GFLOP, the 3 left average 60.3 %)"
    assert row["reason"].endswith(f"so there is nothing to compare it with; not ranked: {left}")
    (line,) = unranked(drawn(lose(results, results["seed"] > 0)))
    assert line.startswith(
        "200 GFLOP: nothing can be ranked: ViT-X, CLIP, 1,024 pairs, all (lost 3 of 4 runs "
    )


def with_survivor(early: float, flip: float | None = None) -> pd.DataFrame:
    """Return CLIP, SigLIP and FLIP with three seeds at two levels; at the larger, SigLIP lost two runs."""
    errors = {"clip": (0.55, 0.5), "siglip": (early, 0.599)} | ({"flip-50": (flip, flip)} if flip else {})
    results = pd.DataFrame([
        row | {"strategy": strategy, "trial": f"{strategy}-{row['trial']}"}
        for strategy, of_levels in errors.items()
        for level, error in zip(LEVELS[:2], of_levels, strict=True)
        for row in runs("ViT-X", level, error)
    ]).assign(paid_flops=lambda every: every["train_flops"])  # fmt: skip
    there = (results["strategy"] == "siglip") & (results["level_flops"] == LEVELS[1])
    results.loc[there, METRIC] = 0.466
    return lose(results, there & (results["seed"] > 0))


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize(
    ("errors", "verdict", "said"),
    [
        ((0.7, 0.8), "clear", "ahead by"),
        ((0.5, 0.8), "undecided", "but one that is not ranked may be lower"),
        ((0.7,), "undecided", "only one configuration can be ranked here"),
    ],
)
def test_the_survivor_of_lost_runs_is_nowhere_ranked(
    errors: tuple[float, ...], verdict: str, said: str, *, planned: bool
) -> None:
    results, survivor = with_survivor(*errors), "SigLIP, 1,024 pairs, all"
    trials = tidy(results, metric=METRIC)
    draws = cell_draws(trials, results if planned else None)
    apart = f"ViT-X, {survivor} (lost 2 of 3 runs at 600 GFLOP, the one left has 53.4 %)"

    below, row = records(best_at_budgets(draws))
    assert survivor in f"{below['runner_up']} {configuration_text(below)}", "nothing was lost at 200 GFLOP"
    assert (row["strategy"], row["verdict"], survivor in row["runner_up"]) == ("clip", verdict, False)
    assert said in row["reason"].removesuffix(f"; not ranked: {apart}") < row["reason"]
    found = recommend(draws, flops=LEVELS[1], pairs=1024)
    assert (found.verdict.kind, found.verdict.apart) == (verdict, apart)
    assert "siglip" not in set(found.candidates["strategy"])
    for each in records(contrasts(draws)):
        above = each["budget"] == LEVELS[1]
        assert above == ("SigLIP" not in f"{each['best']} {each['runner_up']}{each['tied']}{each['values']}")
        assert above == ("SigLIP (lost 2 of 3 runs" in each["lacking"])
    decision = decide(trials, results, ask=Ask(), ended=trials.lost["trial"])
    answer = decision.answers[-1]
    assert (answer.verdict, answer.apart) == (verdict, apart)
    assert "SigLIP" not in " ".join((answer.leader, *answer.tied))
    assert not {pick.trial for pick in decision.picks} & set(trials.lost["trial"])


def test_a_level_whose_best_a_cheaper_trial_beats_says_so() -> None:
    results = pd.DataFrame([
        *runs("ViT-X", 2e11, 0.4), *runs("ViT-S", 2e11, 0.7), *runs("ViT-S", 6e11, 0.6),
        *runs("ViT-M", 6e11, 0.65),
    ])  # fmt: skip
    trials = tidy(results, metric=METRIC)
    rows = records(best_at_budgets(cell_draws(trials, results)))
    assert [row["verdict"] for row in rows] == ["clear", "beaten"]
    assert "ViT-X" in rows[1]["reason"]


def steep(level: float) -> float:
    """Return the error of a model that is behind at 200 GFLOP and overtakes at 1.8 TFLOP."""
    return {2e11: 0.75, 6e11: 0.6, 1.8e12: 0.45}[level]


def flat(level: float) -> float:
    """Return the error of a model that falls slowly."""
    return {2e11: 0.62, 6e11: 0.57, 1.8e12: 0.53}[level]


def crossing(missing: tuple[str, float]) -> pd.DataFrame:
    return pd.DataFrame([
        row
        for name, error in (("ViT-M", steep), ("ViT-X", flat), ("ConvNeXt-C", lambda at: flat(at) + 0.2))
        for level in LEVELS
        if (name, level) != missing
        for row in runs(name, level, error(level))
    ])  # fmt: skip


def test_one_that_is_far_behind_and_was_not_run_there_leaves_the_best_clear() -> None:
    row = best_at_budgets(drawn(crossing(("ConvNeXt-C", 1.8e12)))).iloc[-1]
    assert (row["verdict"], row["architecture"]) == ("clear", "ViT-M")


def plain() -> pd.DataFrame:
    return crossing(("", 0.0))


def of_trunks() -> pd.DataFrame:
    results = plain()
    return results.assign(trunk=results["architecture"] + "-" + results["seed"].astype(str))


def first_round() -> pd.DataFrame:
    """Return what an adaptive design runs first: two seeds at the lowest level, one at the next."""
    results = plain()
    lowest = (results["level_flops"] == LEVELS[0]) & (results["seed"] < 2)
    return results[lowest | ((results["level_flops"] == LEVELS[1]) & (results["seed"] == 0))]


def diverged() -> pd.DataFrame:
    results = plain()
    results.loc[4, ["status", "reason"]] = "diverged", "loss is NaN"
    return results


@pytest.mark.parametrize(
    "made",
    [
        plain, of_trunks, first_round, diverged, lambda: plain().query("seed == 0"),
        lambda: crossing(("ConvNeXt-C", 6e11)), lambda: crossing(("ViT-M", 1.8e12)),
    ],
    ids=["full", "trunks", "first round", "diverged", "one seed", "missing cell", "absent at the top"],
)  # fmt: skip
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_design_and_the_report_give_the_same_numbers(
    made: Callable[[], pd.DataFrame], confidence: float
) -> None:
    results, grid = made(), plain().assign(paid_flops=lambda all_: all_["train_flops"])
    trials: Trials = tidy(results, metric=METRIC)
    draws = cell_draws(trials, grid, confidence=confidence)
    best = {row["flops"]: row for row in records(best_at_budgets(draws))}

    decision = decide(trials, grid, ask=Ask(confidence=confidence), ended=trials.excluded["trial"], slots=0)

    asked = [answer for answer in decision.answers if answer.flops in best]
    assert len(asked) == len(best)
    for answer in asked:
        row = best[answer.flops]
        assert answer.leader == configuration_text(row)
        assert answer.verdict == row["verdict"]
        if row["verdict"] == "undecided" and np.isnan(row["low"]):
            continue  # no noise is known, so there is no interval
        assert (answer.probability, answer.error, answer.low, answer.high) == (
            row["probability"], row["error"], row["low"], row["high"],
        )  # fmt: skip


def test_the_order_of_rows_changes_no_number() -> None:
    results = plain()
    mixed = results.sample(frac=1.0, random_state=1)
    one, other = (best_at_budgets(drawn(each, each)) for each in (results, mixed))
    pd.testing.assert_frame_equal(one.drop(columns="leaders"), other.drop(columns="leaders"))


def test_outside_fixed_compute_a_curve_that_cannot_spend_more_keeps_its_last_cell() -> None:
    small, large = (
        pd.DataFrame([row for level in levels for row in runs(name, level, error(level))])
        for name, levels, error in (("ViT-X", LEVELS[:2], flat), ("ViT-M", LEVELS, steep))
    )
    results = pd.concat([small, large], ignore_index=True).assign(regime="equal-samples", level_flops=np.nan)
    best = best_at_budgets(drawn(results, results))
    assert best["architecture"].tolist() == ["ViT-X", "ViT-X", "ViT-M"]
    shown, _ = turns(best)
    assert shown["architecture"].tolist() == ["ViT-X", "ViT-M"]


def test_a_leader_on_other_pairs_is_another_leader_except_in_one_epoch() -> None:
    best = pd.DataFrame({
        "regime": "equal-samples", "architecture": "ViT-X", "strategy": "clip", "quality": "all",
        "subset_size": [1e6, 2e6, 2e6, 4e6, 2e6, 2e6],
    })  # fmt: skip
    shown, more = turns(best)
    assert (shown.index.tolist(), more) == (
        [0, 1, 3, 4, 5],
        "1 more budget with the same leaders",
    )
    shown, _ = turns(best.assign(regime="one-epoch"))
    assert shown.index.tolist() == [0, 5]


def test_an_empty_study_has_no_best() -> None:
    assert best_at_budgets(drawn(plain().iloc[:0])).empty


FIVE = np.geomspace(2e11, 2e11 * 3**4, 5)
PAIRS = 90_000


def overtaking(seed: int, *, without: tuple[str, slice]) -> tuple[pd.DataFrame, str]:
    """Return three seeds of a small, a large and a worse model, and the best at the top level.

    The large one is steeper and overtakes at the top; one of them was not run at some levels.
    """
    generator = np.random.default_rng(seed)
    floor, scale, alpha = generator.uniform((0.35, 0.2, 0.35), (0.45, 0.3, 0.6))
    gain, crossing = generator.uniform((0.08, 2.2), (0.2, 3.6))
    steeper = alpha * generator.uniform(0.6, 1.1)
    u = FIVE / FIVE[0]
    at = 3.0**crossing
    lines = {
        "ViT-X": floor + scale * u**-alpha, "ViT-S": floor + 0.03 + 1.1 * scale * u**-alpha,
        "ViT-M": floor - gain + (gain + scale * at**-alpha) * (u / at) ** -steeper,
    }  # fmt: skip
    absent = range(len(FIVE))[without[1]]
    rows = pd.DataFrame([
        trial_row(
            (PAIRS, "all", name, "clip"), float(level), number, float(error)
        )
        for name, line in lines.items()
        for place, (level, error) in enumerate(zip(FIVE, line, strict=True))
        if name != without[0] or place not in absent
        for number in range(3)
    ])  # fmt: skip
    noisy = rows[METRIC] + 0.006 * generator.standard_normal(len(rows))
    rows[METRIC] = noisy.clip(0.01, 0.99)
    return rows, min(lines, key=lambda name: float(lines[name][-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "without", [("ViT-M", slice(4, None)), ("ViT-M", slice(3, None)), ("ViT-X", slice(1, None))],
    ids=["the large one not at the top", "nor below it", "the small one at the smallest level alone"],
)  # fmt: skip
def test_what_was_not_run_and_overtakes_is_never_passed_over(without: tuple[str, slice]) -> None:
    wrong, named = 0, 0
    for seed in range(20):
        results, best = overtaking(seed, without=without)
        draws = cell_draws(tidy(results, metric=METRIC), draws=400)
        found = recommend(draws, flops=FIVE[-1], pairs=PAIRS)
        leaders = found.candidates["architecture"][list(found.verdict.members)].tolist()
        row = records(best_at_budgets(draws))[-1]
        assert (row["verdict"], row["reason"]) == (found.verdict.kind, found.verdict.reason)
        assert row["architecture"] == leaders[0]
        wrong += found.verdict.kind == "clear" and leaders[0] != best
        named += best in leaders
    assert wrong <= 1
    assert named >= 19


def test_a_leader_that_was_not_run_at_the_level_is_named_with_that() -> None:
    results, _ = overtaking(3, without=("ViT-M", slice(4, None)))
    found = recommend(drawn(results), flops=FIVE[-1], pairs=PAIRS)
    assert found.candidates["architecture"][0] == "ViT-M"
    assert found.verdict.kind == "forecast"
    assert found.verdict.reason.endswith(", 3 × from its own runs")
    assert "run ViT-M, CLIP, 90,000 pairs, all" in found.experiment
