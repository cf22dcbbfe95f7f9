"""The best configuration at a budget: clear, a tie, or undecided."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.choice import choose
from analysis.answers.contrasts import comparisons, contrasts, statements
from analysis.answers.frontier import frontier
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.study_frames import StudyFrames, with_budgets
from analysis.cells.table import records, tidy
from analysis.charts.bar_figures import quality_bars, strategy_bars
from analysis.charts.compute_figures import over_compute
from analysis.charts.figure_data import FigureData
from analysis.labels import POOL
from analysis.laws.laws import Measure, measure
from analysis.report.paper import PANELS, ZERO_SHOT
from tests.analysis.paper_curves import paper_tables
from tests.analysis.synthetic import study, trial_row


def drawn(results: pd.DataFrame, draws: int = 2000) -> CellDraws:
    return cell_draws(tidy(results, metric="held-out/top1"), question="frontier", draws=draws)


def pair(gap: float, *, seeds: int) -> pd.DataFrame:
    """Return two architectures with errors ``gap`` apart, and seeds that scatter by 0.01."""
    offsets = np.linspace(-0.01, 0.01, seeds) if seeds > 1 else np.zeros(1)
    return pd.DataFrame([
        trial_row((1024, "all", architecture, "clip"), 2e11, seed, 0.6 + shift + float(offset))
        for architecture, shift in (("ViT-X", 0.0), ("ViT-S", gap))
        for seed, offset in enumerate(offsets)
    ])  # fmt: skip


def test_a_gap_far_outside_the_noise_is_clear() -> None:
    row = frontier(drawn(pair(0.2, seeds=3))).iloc[0]
    assert (row["verdict"], row["architecture"], row["tied"]) == ("clear", "ViT-X", "")
    assert row["probability"] > 0.99
    assert row["low"] < 0.6 < row["high"]
    assert row["runner_up"] == "ViT-S, CLIP, 1,024 pairs, all"
    assert row["gap"] == pytest.approx(0.2)


def test_a_gap_within_the_noise_is_a_tie_and_names_its_members() -> None:
    row = frontier(drawn(pair(0.003, seeds=3))).iloc[0]
    assert row["verdict"] == "tie"
    assert row["tied"] == "ViT-X, CLIP, 1,024 pairs, all; ViT-S, CLIP, 1,024 pairs, all"
    assert row["gap_low"] < 0 < row["gap_high"]


def test_one_seed_is_undecided_however_wide_the_gap() -> None:
    row = frontier(drawn(pair(0.2, seeds=1))).iloc[0]
    assert row["verdict"] == "undecided"
    assert "noise between seeds is unknown" in row["reason"]


def test_a_single_configuration_is_undecided() -> None:
    row = frontier(drawn(pair(0.2, seeds=3).iloc[:3])).iloc[0]
    assert row["verdict"] == "undecided"
    assert "nothing to compare it with" in row["reason"]


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
        clear += choose(drawn(pd.DataFrame(rows), draws=500)).verdict == "clear"
    assert clear <= 10


def test_a_leader_that_lost_a_run_to_divergence_is_not_clear() -> None:
    lost = pair(0.2, seeds=4)
    lost.loc[0, "status"], lost.loc[0, "held-out/top1"] = "diverged", np.nan
    row = frontier(drawn(lost)).iloc[0]
    assert (row["verdict"], row["runs"], row["diverged"]) == ("undecided", 3, 1)
    assert row["reason"].endswith("but 1 run of it diverged or gave no number, which its mean excludes")


def test_equal_configurations_share_the_probability_and_all_belong_to_the_tie() -> None:
    rows = [
        trial_row((size, "all", "ViT-X", "clip"), 2e11, seed, 0.6 + offset)
        for size in (256, 512, 1024, 2048, 4096)
        for seed, offset in enumerate((-0.01, 0.0, 0.01))
    ]
    choice = choose(drawn(pd.DataFrame(rows)))
    np.testing.assert_allclose(choice.probability, 0.2, atol=0.04)
    assert (choice.verdict, len(choice.members)) == ("tie", 5)


def test_a_single_run_that_is_clearly_ahead_says_where_its_noise_was_measured() -> None:
    row = frontier(drawn(pair(0.2, seeds=3).iloc[2:])).iloc[0]
    assert (row["verdict"], row["runs"]) == ("clear", 1)
    assert "as measured on other cells" in row["reason"]


def test_an_empty_study_has_an_empty_frontier() -> None:
    assert frontier(drawn(pd.DataFrame())).empty


def test_a_comparison_differs_only_along_one_axis(frames: StudyFrames) -> None:
    draws = drawn(frames.results)
    for axis in ("subset_size", "architecture", "strategy"):
        for comparison in comparisons(draws, axis):
            cells = draws.cells.iloc[comparison.positions]
            assert len(set(cells[axis])) == len(cells) > 1
            others = {"regime", "budget", "subset_size", "quality", "architecture", "strategy"} - {axis}
            assert len(cells[sorted(others)].drop_duplicates()) == 1


def test_qualities_of_one_pool_are_compared_at_their_largest_subsets(frames: StudyFrames) -> None:
    found = comparisons(drawn(frames.results), "quality")
    assert [comparison.held["subset_size"] for comparison in found] == [POOL] * 3


def test_more_data_is_found_to_help_where_it_does(frames: StudyFrames) -> None:
    table = contrasts(drawn(frames.results))
    sizes = table[table["axis"] == "subset_size"]
    assert sizes["place"].tolist() == ["last"] * 3
    assert sizes["verdict"].tolist() == ["clear"] * 3


def test_a_comparison_that_lacks_a_side_is_not_clear_and_says_what_it_lacks(frames: StudyFrames) -> None:
    at_200 = frames.results["level_flops"] == frames.results["level_flops"].min()
    slip, late = frames.results["strategy"] == "slip", frames.results["seed"] == 2
    vit_s = frames.results["architecture"] == "ViT-S"
    trials = tidy(frames.results[~(at_200 & (slip | vit_s & late))], metric="held-out/top1")
    draws, plan = cell_draws(trials, question="test"), with_budgets(frames.plan, trials)

    table = contrasts(draws, plan)
    here = table[table["budget"] == 200e9].set_index("axis")
    assert here.loc["strategy", "lacking"] == "not run: SLIP; 3 of 12 runs missing"
    assert here.loc["strategy", "verdict"] != "clear"
    assert here.loc["architecture", "lacking"] == "1 of 12 runs missing"
    assert here.loc["architecture", "verdict"] == "clear", "the leader has all its seeds"
    assert set(table.loc[table["budget"] > 200e9, "lacking"]) == {""}

    said = {statement.title: statement for statement in statements(draws, table, plan)}
    assert "; not run: SLIP; 3 of 12 runs missing)" in said["Which training strategy?"].steps[0]
    assert "1 lacks trials that were planned" in said["Which training strategy?"].text
    early = tidy(frames.results[slip & at_200], metric="held-out/top1")
    nothing = cell_draws(early, question="test")
    none = statements(nothing, contrasts(nothing), with_budgets(frames.plan, early))
    assert none[0].text == "No answer yet: none of 3 planned comparisons has two finished sides."


def test_a_statement_on_one_epoch_lists_all_budgets_since_pairs_grow_with_them() -> None:
    rows = [
        trial_row((pairs, "all", architecture, "clip"), pairs * cost, seed, error + 0.001 * seed)
        for pairs, errors in ((10_000, (0.5, 0.6)), (40_000, (0.4, 0.35)))
        for architecture, cost, error in zip(("ViT-X", "ViT-M"), (1e7, 4e7), errors, strict=True)
        for seed in range(3)
    ]
    results = pd.DataFrame(rows).assign(regime="one-epoch", level_flops=np.nan, epochs=1.0)
    results = results.assign(samples_seen=results["subset_size"].astype(float))
    draws = drawn(results)
    said = {each.title: each for each in statements(draws, contrasts(draws))}["Which architecture?"]
    assert said.held == "CLIP, all"
    assert [step.partition(": ")[0] for step in said.steps] == ["10,000 samples", "40,000 samples"]
    assert [step.partition(": ")[2].split(" (")[0] for step in said.steps] == ["ViT-X", "ViT-M"]


def test_statements_say_what_was_not_compared() -> None:
    draws = drawn(pair(0.2, seeds=3))
    said = {statement.title: statement for statement in statements(draws, contrasts(draws))}
    assert said["Which architecture?"].verdict == "clear"
    assert said["Does more data help?"].verdict == "undecided"
    assert "No two finished trials differ" in said["Does more data help?"].text


def test_the_leader_is_the_one_the_study_was_made_with() -> None:
    best = frontier(drawn(study(seeds=3, noise=0.004).results))
    assert best["architecture"].tolist() == ["ConvNeXt-C"] * 3
    assert best["verdict"].tolist() == ["clear"] * 3


def dominated(best: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    """Return the rows of a frontier that a trial with at most the same FLOPs beats."""
    return [
        f"{row['architecture']} at {row['at']}"
        for row in records(best[best["verdict"] != "beaten"])
        if ((cells["train_flops"] <= row["train_flops"]) & (cells["error"] < row["error"])).any()
    ]


def test_no_star_of_figure_8b_is_on_a_point_that_a_cheaper_trial_beats() -> None:
    draws = cell_draws(tidy(paper_tables()["paper-one-epoch"], metric=ZERO_SHOT), question="8b")
    best = frontier(draws)
    assert dominated(best, draws.cells) == []
    assert best["flops"].is_monotonic_increasing
    assert best["error"].is_monotonic_decreasing
    at_6 = best.set_index("at").loc["6.34 EFLOP"]
    assert (at_6["architecture"], round(at_6["error"], 3)) == ("ViT-Ti/16", 0.655)
    assert not ((best["architecture"] == "ViT-B/16") & (best["flops"] < 1.2e19)).any()
    assert best["at"].iloc[-1] == "1.29 ZFLOP"


@pytest.mark.parametrize(("reader", "metric"), sorted({(one.reader, one.metric) for one in PANELS.values()}))
def test_no_star_of_a_paper_panel_is_on_a_beaten_point(reader: str, metric: str) -> None:
    trials = tidy(paper_tables()[reader], metric=metric)
    draws = cell_draws(trials, question="panel")
    best = frontier(draws)
    assert len(best)
    assert dominated(best, draws.cells) == []
    figure = over_compute(Measure(metric=metric, draws=draws), best, axis="architecture")
    assert isinstance(figure, FigureData)
    stars = figure.frame[figure.frame["mark"].str.startswith("best")]
    for star in records(stars):
        cheaper = draws.cells["train_flops"] <= star["x"]
        assert not (100 * draws.cells["error"][cheaper] < star["y"]).any()


def test_a_level_whose_best_a_cheaper_trial_beats_has_no_star_and_says_so() -> None:
    late = pair(0.2, seeds=3).assign(level_flops=9e11)
    late["held-out/top1"] -= 0.1
    late["trial"] += "-late"
    late["train_flops"] *= 4.5
    draws = drawn(pd.concat([pair(0.2, seeds=3), late], ignore_index=True))
    best = frontier(draws)
    assert best["verdict"].tolist() == ["clear", "beaten"]
    reason = best["reason"].iloc[1]
    assert reason.startswith("ViT-X, CLIP, 1,024 pairs, all at 200 GFLOP has 60.0 %, lower at no higher cost")
    measured = Measure(metric="held-out/top1", draws=draws)
    figure = over_compute(measured, best, axis="architecture")
    assert isinstance(figure, FigureData)
    assert figure.frame["mark"].str.startswith("best").sum() == 1
    assert "none at 1 budget where a cheaper trial is lower" in figure.caption


def test_a_quality_that_a_cheaper_bar_beats_has_no_star() -> None:
    rows = [
        trial_row((size, quality, "ViT-X", "clip"), level, seed, error + offset)
        for level, shift in ((2e11, 0.0), (9e11, 0.1))
        for size, quality, error in ((512, "top20", 0.5), (1024, "all", 0.6))
        for seed, offset in enumerate((shift - 0.01, shift, shift + 0.01))
    ]
    figure = quality_bars([measure(pd.DataFrame(rows), "held-out/top1", question="bars")])
    assert isinstance(figure, FigureData)
    stars = figure.frame[figure.frame["mark"].str.startswith("best")]
    assert stars["label"].tolist() == ["200 GFLOP"]
    assert "900 GFLOP: top 20 %, clear, but another bar is lower at no higher cost" in figure.caption


def test_strategies_on_less_data_keep_their_star() -> None:
    figure = strategy_bars([measure(paper_tables()["paper-strategies"], ZERO_SHOT, question="bars")])
    assert isinstance(figure, FigureData)
    stars = figure.frame[figure.frame["mark"].str.startswith("best")]
    assert stars["label"].nunique() > 3, "data are what a group holds, whatever the others have"


def test_mixtures_are_compared_as_an_axis_and_called_by_their_names() -> None:
    rows = [
        trial_row((1024, f"mixture:{name}", "ViT-X", "clip"), 2e11, seed, error + shift)
        for name, error in (("web", 0.6), ("half", 0.4))
        for seed, shift in enumerate((-0.01, 0.0, 0.01))
    ]
    draws = drawn(pd.DataFrame(rows))
    table = contrasts(draws)
    (row,) = records(table[table["axis"] == "quality"])
    assert (row["best"], row["verdict"]) == ("mixture half", "clear")
    assert row["values"] == "mixture half · mixture web"
    stated = statements(draws, table)[0]
    assert stated.title == "Which mixture of pools?"
    assert stated.steps == ("200 GFLOP: mixture half (clear: 20.0 points ahead of mixture web)",)
    figure = quality_bars([measure(pd.DataFrame(rows), "held-out/top1", question="bars")])
    assert isinstance(figure, FigureData)
    assert figure.title == "Mixtures of pools at each budget"
