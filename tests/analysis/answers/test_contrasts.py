"""Options along one part of the configuration: verdicts, crossings, worth, and the quality trade."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.answers.contrasts import compared, contrasts, pareto
from analysis.answers.crossing import comparisons, cross, matching, quality_trades
from analysis.arrays import Floats
from analysis.belief.cell_draws import cell_draws
from analysis.cells.pareto import undominated
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import records, tidy, with_budgets
from analysis.labels import POOL, quality_fraction
from tests.analysis.synthetic import METRIC, QUALITIES, cells_of, table_of, trial_row

AT = np.geomspace(1e11, 1e13, 100)
LEVELS = tuple(np.geomspace(2e11, 2e13, 5))
PAIR = ["axis", "along", "held", "option", "other"]


def one_pair(results: pd.DataFrame) -> dict[str, object]:
    """Return the crossing of the only pair of a table."""
    (row,) = records(comparisons(cells_of(results)).drop_duplicates(PAIR))
    return row


def curves(
    errors: dict[str, Floats], levels: Floats, *, seeds: int = 3, noise: float = 0.004
) -> pd.DataFrame:
    """Return curves of architectures or strategies (``clip…``) over compute."""
    named = {
        (4096, "all", *(("ViT-X", name) if name.islower() else (name, "clip"))): line
        for name, line in errors.items()
    }
    return table_of(named, levels, seeds=seeds, noise=noise)


def scattered(line: Floats, spread: float, seed: int = 0) -> Floats:
    """Return 400 draws of a curve that scatter by ``spread``."""
    return np.asarray(line + spread * np.random.default_rng(seed).standard_normal(400)[:, None])


def pools(pairs: int, *, seeds: int = 3, turn: float = 0.0, noise: float = 0.004) -> pd.DataFrame:
    """Return three qualities of a pool; the log of the best fraction grows with the budget by ``turn``."""
    generator = np.random.default_rng(2)
    rows = []
    for level in LEVELS:
        best = np.log(0.4) + turn * np.log(level / LEVELS[2])
        for quality, fraction in QUALITIES.items():
            error = 0.5 - 0.03 * np.log(level / 2e11) + 0.04 * (np.log(fraction) - best) ** 2
            rows += [
                trial_row(
                    (int(pairs * fraction), quality, "ViT-X", "clip"), level, seed,
                    float(error) + noise * float(generator.standard_normal()),
                )
                for seed in range(seeds)
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_qualities_of_one_pool_are_compared_at_their_largest_subsets(frames: StudyFrames) -> None:
    found = compared(cells_of(frames.results), "quality")
    assert [held["subset_size"] for held, _ in found] == [POOL] * 3
    table = comparisons(cells_of(frames.results))
    assert set(table.loc[table["axis"] == "quality", "held"]) == {
        "ViT-X, CLIP, largest subset of each quality"
    }


def test_more_data_is_found_to_help_where_it_does(frames: StudyFrames) -> None:
    table = contrasts(cells_of(frames.results))
    sizes = table[table["axis"] == "subset_size"]
    assert (sizes["best"] == sizes["values"].str.rpartition(" · ")[2]).tolist() == [True] * 3
    assert sizes["verdict"].tolist() == ["clear"] * 3


def test_an_option_that_has_not_run_takes_part_and_what_is_lacking_is_said(frames: StudyFrames) -> None:
    at_200 = frames.results["level_flops"] == frames.results["level_flops"].min()
    slip, late = frames.results["strategy"] == "slip", frames.results["seed"] == 2
    vit_s = frames.results["architecture"] == "ViT-S"
    trials = tidy(frames.results[~(at_200 & (slip | vit_s & late))], metric=METRIC)
    plan = with_budgets(frames.plan, trials)
    draws = cell_draws(trials, frames.plan)

    table = contrasts(draws, plan)
    here = table[table["budget"] == 200e9].set_index("axis")
    assert here.loc["strategy", "lacking"] == "not run: SLIP; 3 of 12 runs missing"
    assert str(here.loc["strategy", "values"]).endswith("· SLIP")
    assert here.loc["architecture", "lacking"] == "1 of 12 runs missing"
    assert set(table.loc[table["budget"] > 200e9, "lacking"]) == {""}


def test_nothing_is_clear_over_an_option_that_may_be_lower_and_has_not_run() -> None:
    levels = np.geomspace(2e11, 5.4e12, 4)
    small = 0.50 + 0.3 * (levels / 2e11) ** -0.6
    large = 0.30 + 0.6 * (levels / 2e11) ** -0.35
    results = curves({"ViT-X": small, "ViT-S": small + 0.05, "ViT-M": large}, levels)
    unrun = (results["architecture"] == "ViT-M") & (results["level_flops"] == levels[-1])
    trials = tidy(results[~unrun], metric=METRIC)
    plan = with_budgets(results, trials)
    table = contrasts(cell_draws(trials, results), plan)
    (last,) = records(table[table["budget"] == levels[-1]])
    assert last["verdict"] != "clear"
    assert "ViT-M (not run)" in last["reason"] or "it was not run" in last["reason"]


@pytest.mark.parametrize(
    ("value", "best", "verdict"), [("ConvNeXt-C", "ViT-S", "tie"), ("ViT-X", "ConvNeXt-C", "clear")]
)
def test_a_value_whose_runs_were_all_lost_is_not_ranked(
    frames: StudyFrames, value: str, best: str, verdict: str
) -> None:
    results = frames.results
    gone = (results["architecture"] == value) & (results["level_flops"] == 9e11)
    table = contrasts(cells_of(results.assign(status=np.where(gone, "diverged", "finished"))))
    (row,) = records(table[(table["axis"] == "architecture") & (table["budget"] == 9e11)].tail(1))
    assert (row["best"], row["verdict"]) == (best, verdict)
    assert value not in (row["best"], row["runner_up"], *row["tied"].split("; "))
    assert row["lacking"] == f"not ranked: {value} (lost 3 of 3 runs at 900 GFLOP)"
    assert row["reason"].endswith(row["lacking"])


def test_mixtures_are_compared_as_an_axis_and_called_by_their_names() -> None:
    rows = [
        trial_row((1024, f"mixture:{name}", "ViT-X", "clip"), 2e11, seed, error + shift)
        for name, error in (("web", 0.6), ("half", 0.4))
        for seed, shift in enumerate((-0.01, 0.0, 0.01))
    ]
    draws = cells_of(pd.DataFrame(rows))
    table = contrasts(draws)
    (row,) = records(table[table["axis"] == "quality"])
    assert (row["best"], row["verdict"]) == ("mixture half", "clear")
    assert row["values"] == "mixture half · mixture web"


def test_a_crossing_is_found_with_an_interval_around_it() -> None:
    first = scattered(0.9 - 0.1 * np.log10(AT / 1e11), 0.005)
    second = scattered(1.0 - 0.2 * np.log10(AT / 1e11), 0.005, seed=1)
    found = cross(first - second, AT)
    assert (found.verdict, found.crossings) == ("overtakes", 1)
    assert found.x == pytest.approx(1e12, rel=0.05)
    assert 5e11 < found.x_low < 1e12 < found.x_high < 2e12
    assert cross(second - first, AT).verdict == "is overtaken"


@pytest.mark.parametrize(
    ("ahead_by", "verdict"),
    [
        (scattered(np.full(100, 0.2), 0.01), "none within the data"),
        (scattered(np.zeros(100), 0.02), "undecided"),
        (scattered(0.005 * np.log(AT / 6.5e12), 0.0015), "undecided"),
    ],
    ids=["ahead throughout", "within the noise", "so near the end that it may lie beyond"],
)
def test_no_crossing_is_claimed_that_the_data_do_not_show(ahead_by: Floats, verdict: str) -> None:
    found = cross(ahead_by, AT)
    assert found.verdict == verdict
    assert np.isnan(found.x)


def test_without_draws_no_crossing_is_decided() -> None:
    found = cross(np.empty((0, 100)), AT)
    assert (found.verdict, found.reason) == ("undecided", "no noise was measured")


def test_of_several_crossings_the_last_is_given_and_their_number_is_said() -> None:
    ahead_by = scattered(0.05 * np.log10(AT / 2e11) * np.log10(AT / 4e12), 0.001)
    found = cross(ahead_by, AT)
    assert (found.verdict, found.crossings) == ("overtakes", 2)
    assert found.x_low < 4e12 < found.x_high
    assert (
        found.reason
        == "it overtakes in 100 % of the draws; they cross 2 times, and this is the last crossing"
    )


def test_the_larger_model_overtakes_where_its_law_does() -> None:
    levels = np.geomspace(2e11, 2e13, 6)
    small = 0.42 + 0.3 * (levels / 2e11) ** -0.5
    large = 0.30 + 0.5 * (levels / 2e11) ** -0.4
    row = one_pair(curves({"ViT-X": small, "ViT-M": large}, levels))
    fine = np.geomspace(2e11, 2e13, 100_000)
    gap = 0.12 + 0.3 * (fine / 2e11) ** -0.5 - 0.5 * (fine / 2e11) ** -0.4
    true = fine[np.flatnonzero(gap > 0)[0]]
    assert (row["other"], row["option"], row["crossing"]) == ("ViT-X", "ViT-M", "overtakes")
    assert row["x_low"] < true < row["x_high"]
    assert row["crossing_x"] == pytest.approx(true, rel=0.15)


@pytest.mark.parametrize("seed", range(6))
def test_a_crossing_of_curves_that_turn_up_again_is_not_missed(seed: int) -> None:
    generator = np.random.default_rng(seed)
    levels = np.geomspace(2e11, 2e11 * 3**5, 6)
    fine = np.geomspace(levels[0], levels[-1], 2000)

    def made(cost: float, floor: float, fall: float, harm: float) -> tuple[Floats, Floats]:
        def error(x: Floats) -> Floats:
            again = np.maximum(0.0, np.log(x / cost / 4096 / 5))  # overfits from the fifth epoch on
            return np.asarray(floor + fall * (x / 2e11) ** -0.6 + harm * again**2)

        return error(levels), error(fine)

    (small, small_fine), (large, large_fine) = (
        made(cost, *generator.uniform((0.3, 0.3, 0.003), (0.45, 0.4, 0.012))) for cost in (13e6, 72e6)
    )
    crosses = bool((np.diff(np.sign(small_fine - large_fine)) != 0).any())
    row = one_pair(curves({"ViT-X": small, "ViT-M": large}, levels))
    if crosses:
        assert row["crossing"] != "none within the data"
    else:
        assert row["crossing"] not in {"overtakes", "is overtaken"}


@pytest.mark.parametrize(
    ("error", "x", "expected"),
    [(0.7, 30.0, 10**0.5), (0.5, 30.0, 10**2.5), (0.9, 30.0, 0.0), (0.3, 30.0, np.inf),
     (0.6, 3.0, 10.0), (0.6, 30.0, 30.0), (0.6, 500.0, 100.0)],
)  # fmt: skip
def test_the_x_of_an_error_is_read_off_the_curve_and_the_nearest_one_where_it_is_flat(
    error: float, x: float, expected: float
) -> None:
    at, curve = np.array([1.0, 10.0, 100.0, 1000.0]), np.array([[0.8, 0.6, 0.6, 0.4]])
    assert matching(np.array([error]), curve, at, x=x)[0] == pytest.approx(expected)


@given(errors=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=7))
@settings(max_examples=50, deadline=None)
def test_any_option_against_itself_is_worth_1_at_every_x(errors: list[float]) -> None:
    at, curve = np.geomspace(1.0, 100.0, len(errors)), np.minimum.accumulate(np.array([errors]), axis=1)
    for place, x in enumerate(at.tolist()):
        assert matching(curve[:, place], curve, at, x=x)[0] == pytest.approx(x)


def test_a_strategy_that_halves_the_compute_is_worth_twice_as_much() -> None:
    levels = np.geomspace(2e11, 2e13, 6)
    plain = 0.3 + 0.5 * (levels / 2e11) ** -0.4
    better = 0.3 + 0.5 * (2 * levels / 2e11) ** -0.4
    table = comparisons(cells_of(curves({"clip": plain, "clip-crop-flip": better}, levels)))
    assert set(table["other"]) == {"CLIP"}
    inside = table[np.isfinite(table["factor_high"])]
    assert len(inside) >= 4
    assert inside["factor_low"].lt(2).all()
    assert inside["factor_high"].gt(2).all()
    assert set(inside["verdict"]) == {"ahead"}
    last = table.iloc[-1]
    assert np.isinf(last["factor_high"])
    assert last["highest"] == pytest.approx(1, rel=1e-3)
    assert last["verdict"] == "ahead", "it is lower at the largest x, where the other was measured too"


@pytest.mark.parametrize("more", [1.0, 1.0002, 1 / 1.0002])
def test_rounding_to_whole_batches_does_not_decide_about_the_ends_of_the_range(more: float) -> None:
    levels = np.geomspace(2e11, 2e13, 5)
    plain = np.array([0.70, 0.62, 0.55, 0.49, 0.44])
    results = curves({"clip": plain, "slip": plain - 0.03, "flip-50": plain + 0.03}, levels)
    results["train_flops"] *= np.where(results["strategy"] == "clip", more, 1.0)
    table = comparisons(cells_of(results))
    verdicts = table[table["other"] == "CLIP"].set_index(["option", "x"])["verdict"]
    assert verdicts["SLIP"].iloc[-1] == "ahead"
    assert verdicts["FLIP (50 %)"].iloc[0] == "behind"


def test_an_error_that_was_reached_counts_as_reached_with_more_compute() -> None:
    levels = np.geomspace(2e11, 2e13, 5)
    turning = np.array([0.70, 0.60, 0.50, 0.53, 0.56])
    table = comparisons(cells_of(curves({"clip": turning, "slip": turning + 0.1}, levels)))
    assert table["factor_high"].iloc[-1] < 1, "the lowest so far, at less compute, counts"
    assert set(table["verdict"]) == {"behind"}


def test_nothing_is_ahead_because_the_other_ends_at_less_compute() -> None:
    levels = np.geomspace(2e11, 2e13, 5)
    plain = np.array([0.70, 0.62, 0.55, 0.49, 0.44])
    results = curves({"clip": plain, "slip": plain}, levels)
    results = results[(results["strategy"] != "clip") | (results["train_flops"] < 1e13)]
    last = comparisons(cells_of(results)).iloc[-1]
    assert last["verdict"] == "undecided"
    assert np.isnan(last["gap"])


def test_a_cell_is_on_the_frontier_where_no_cheaper_one_is_better() -> None:
    compute = np.array([1.0, 2.0, 2.0, 4.0, 8.0])
    error = np.array([[0.5, 0.6, 0.4, 0.45, 0.3], [0.5, 0.3, 0.4, 0.2, 0.3]])
    assert undominated(compute, error).tolist() == [
        [True, False, True, False, True],
        [True, True, False, True, False],
    ]


def test_cells_of_nearly_equal_cost_count_as_equally_expensive() -> None:
    error = np.array([[0.5, 0.4]])
    for start in np.geomspace(1.0, 1.1, 50):
        assert undominated(np.array([start, 1.02 * start]), error).tolist() == [[False, True]]
        assert undominated(np.array([start, 1.05 * start]), error).tolist() == [[True, True]]


def test_the_frontier_has_the_best_of_each_budget(frames: StudyFrames) -> None:
    found = pareto(cells_of(frames.results))
    assert found["error"].is_monotonic_decreasing
    assert found["train_flops"].is_monotonic_increasing
    assert found["probability"].between(0, 1).all()
    assert found["probability"].iloc[-1] > 0.5


def test_rounding_to_whole_batches_adds_no_point_to_the_frontier() -> None:
    rows = [
        trial_row(
            (8192, "all", architecture, "clip"), level, seed, error - 0.05 * float(np.log(level / 2e11))
        )
        | {"train_flops": share * level}
        for level in LEVELS
        for architecture, share, error in (("ViT-X", 0.9, 0.61), ("ViT-S", 0.999, 0.60))
        for seed in range(2)
    ]
    assert set(pareto(cells_of(pd.DataFrame(rows)))["architecture"]) == {"ViT-S"}


@pytest.mark.parametrize(
    ("turn", "verdict"), [(0.3, "filter less"), (-0.3, "filter more"), (0.0, "undecided")]
)
def test_the_simulated_trend_of_the_best_fraction_is_found(turn: float, verdict: str) -> None:
    (found,) = records(quality_trades(cells_of(pools(8192, turn=turn))))
    assert (found["along"], found["verdict"]) == ("budget", verdict)
    assert np.sign(round(found["slope"], 1)) == np.sign(turn)
    # Between the fractions tried the best one is not known, however sure the choice among them is.
    step = float(np.log(found["x"][-1] / found["x"][0]))
    assert found["low"] + 0.5 * np.log(2) / step < found["slope"] < found["high"] - 0.5 * np.log(2) / step
    if verdict != "undecided":
        assert found["fractions"][0] != found["fractions"][-1]


def test_mixtures_are_not_fractions_of_a_pool() -> None:
    alone = pools(8192, turn=0.3)
    mixed = alone[alone["quality"] == "all"].assign(quality="mixture:half", **{METRIC: 0.99})
    mixed = mixed.assign(trial=mixed["trial"] + "-mixed")
    (found,) = records(quality_trades(cells_of(pd.concat([alone, mixed], ignore_index=True))))
    assert found["verdict"] == "filter less"
    assert {*found["fractions"]} <= {*QUALITIES.values()}
    assert quality_trades(cells_of(mixed)).empty


def test_two_pools_are_compared_at_each_budget() -> None:
    small = pools(8192)
    small = small.assign(trial=small["trial"] + "-small")
    found = quality_trades(cells_of(pd.concat([small, pools(65_536)], ignore_index=True)))
    assert found["along"].tolist() == ["budget", "budget", *["pool"] * 5]
    assert found["x"].iloc[-1] == pytest.approx([8192, 65_536], rel=0.01)


def test_fractions_that_were_not_tried_everywhere_make_no_trend() -> None:
    rows = pools(8192, turn=0.0)
    late = rows["level_flops"] > rows["level_flops"].median()
    purest = rows["quality"].map(quality_fraction) == rows["quality"].map(quality_fraction).min()
    # The purest is always the best, and was not run at the higher levels.
    accuracy = rows[METRIC].where(~purest, 0.9)
    (found,) = records(quality_trades(cells_of(rows.assign(**{METRIC: accuracy})[~(late & purest)])))
    assert found["verdict"] == "undecided"
    assert found["slope"] == pytest.approx(0.0, abs=0.05)
