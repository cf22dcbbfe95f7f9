"""Crossings of curves, the worth of a strategy, and the choice of the law that forecasts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.answers.crossover import cross, crossovers
from analysis.answers.equivalence import equivalences, equivalent, worth
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.table import records, tidy
from analysis.laws.forms import FLOOR, FLOOR_SHIFT
from analysis.laws.holdout import holdout
from analysis.laws.laws import Law, laws
from analysis.laws.surface_forecast import REPEATED
from tests.analysis.synthetic import study, trial_row

AT = np.geomspace(1e11, 1e13, 100)
Floats = NDArray[np.float64]


def bundle(line: Floats, spread: float, seed: int = 0) -> Floats:
    """Return a curve with 400 draws that scatter by ``spread``."""
    shift = np.concatenate([[0.0], spread * np.random.default_rng(seed).standard_normal(400)])
    return np.asarray(line + shift[:, None], dtype=np.float64)


def fitted(results: pd.DataFrame) -> tuple[CellDraws, tuple[Law, ...]]:
    draws = cell_draws(tidy(results, metric="held-out/top1"), question="laws")
    return draws, (*laws(draws, along="compute"), *laws(draws, along="data"))


def curves(
    errors: dict[str, Floats], levels: Floats, *, seeds: int = 3, noise: float = 0.004
) -> pd.DataFrame:
    """Return curves of architectures or strategies (``clip…``) over compute."""
    generator = np.random.default_rng(5)
    rows = []
    for name, line in errors.items():
        architecture, strategy = ("ViT-X", name) if name.islower() else (name, "clip")
        for level, error in zip(levels, line, strict=True):
            rows += [
                trial_row(
                    (4096, "all", architecture, strategy),
                    level,
                    seed,
                    error + noise * generator.standard_normal(),
                )
                for seed in range(seeds)
            ]
    return pd.DataFrame(rows)


def test_a_crossing_is_found_with_an_interval_around_it() -> None:
    first = bundle(0.9 - 0.1 * np.log10(AT / 1e11), 0.005)
    second = bundle(1.0 - 0.2 * np.log10(AT / 1e11), 0.005, seed=1)
    found = cross(first, second, AT)
    assert found.verdict == "overtakes"
    assert found.x == pytest.approx(1e12, rel=1e-6)
    assert 5e11 < found.ends.low < 1e12 < found.ends.high < 2e12


def test_a_curve_that_is_ahead_throughout_has_no_crossing_within_the_data() -> None:
    found = cross(bundle(np.full(100, 0.6), 0.01), bundle(np.full(100, 0.4), 0.01, seed=1), AT)
    assert (found.verdict, found.ahead_first, found.ahead_last) == ("none within the data", 1.0, 1.0)
    assert np.isnan(found.x)


def test_curves_within_the_noise_are_undecided() -> None:
    line = np.full(100, 0.5)
    assert cross(bundle(line, 0.02), bundle(line, 0.02, seed=1), AT).verdict == "undecided"


def test_an_interval_that_reaches_the_end_of_the_data_is_open() -> None:
    slope = 0.005 * np.log(AT / 6.5e12)
    found = cross(bundle(np.full(100, 0.5), 0.001), bundle(0.5 - slope, 0.001, seed=1), AT)
    assert found.verdict == "overtakes"
    assert np.isinf(found.ends.high)
    assert found.ends.low < 6.5e12


def test_without_noise_or_misses_no_crossing_is_decided() -> None:
    first, second = bundle(np.full(100, 0.6), 0.01), bundle(np.full(100, 0.4), 0.01)
    found = cross(first, second, AT, informed=False)
    assert found.verdict == "undecided"
    assert found.reason == "neither the noise between seeds nor the discrepancy of the laws was measured"


def test_the_larger_model_overtakes_where_its_law_does() -> None:
    levels = np.geomspace(2e11, 2e13, 6)
    small = 0.42 + 0.3 * (levels / 2e11) ** -0.5
    large = 0.30 + 0.5 * (levels / 2e11) ** -0.4
    draws, found = fitted(curves({"ViT-X": small, "ViT-M": large}, levels))
    row = crossovers(draws, found, along="compute").iloc[0]
    fine = np.geomspace(2e11, 2e13, 100_000)
    gap = 0.12 + 0.3 * (fine / 2e11) ** -0.5 - 0.5 * (fine / 2e11) ** -0.4
    true = fine[np.flatnonzero(gap > 0)[0]]
    assert (row["behind"], row["ahead"], row["verdict"]) == ("ViT-X", "ViT-M", "overtakes")
    assert row["low"] < true < row["high"]
    assert row["bca_low"] < true < row["bca_high"]
    assert row["x"] == pytest.approx(true, rel=0.15)


def test_the_x_of_an_error_is_read_off_the_best_so_far() -> None:
    at = np.array([1.0, 10.0, 100.0, 1000.0])
    curve = np.array([[0.8, 0.6, 0.6, 0.4]])
    for error, x in ((0.7, 10**0.5), (0.5, 10**2.5), (0.9, 0.0), (0.3, np.inf)):
        assert equivalent(np.array([error]), curve, at, x=30.0)[0] == pytest.approx(x), error


def test_on_a_flat_stretch_of_the_baseline_the_nearest_x_counts() -> None:
    at = np.array([1.0, 10.0, 100.0, 1000.0])
    curve = np.array([[0.8, 0.6, 0.6, 0.4]])
    for x, nearest in ((3.0, 10.0), (30.0, 30.0), (500.0, 100.0)):
        assert equivalent(np.array([0.6]), curve, at, x=x)[0] == pytest.approx(nearest)


@pytest.mark.slow
@given(
    errors=st.lists(st.floats(0.05, 0.95), min_size=2, max_size=7),
    noise=st.floats(0.001, 0.02),
    seeds=st.integers(1, 3),
)
@settings(max_examples=25, deadline=None)
def test_any_strategy_against_itself_is_worth_1_at_every_x(
    errors: list[float], noise: float, seeds: int
) -> None:
    levels = np.geomspace(2e11, 2e11 * 3.0 ** (len(errors) - 1), len(errors))
    draws, found = fitted(curves({"clip": np.array(errors)}, levels, seeds=seeds, noise=noise))
    (law,) = [law for law in found if law.along == "compute"]
    for row in worth(draws, law, law):
        assert row["ratio"] == pytest.approx(1.0, abs=1e-9)
        assert row["verdict"] == "undecided"
        ends = np.array([row["low"], row["high"]])
        assert np.isnan(ends).all() or (ends[0] <= 1 + 1e-9 and ends[1] >= 1 - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_worth_and_crossovers_do_not_contradict_each_other(seed: int) -> None:
    generator = np.random.default_rng(seed)
    levels = np.geomspace(2e11, 2e13, 5)
    lines = {
        name: floor + scale * (levels / 2e11) ** -0.4
        for name, floor, scale in zip(
            ("clip", "flip-50", "slip"),
            generator.uniform(0.3, 0.4, 3),
            generator.uniform(0.3, 0.5, 3),
            strict=True,
        )
    }
    draws, found = fitted(curves(lines, levels))
    crossed = {
        frozenset((row["behind"], row["ahead"])): row
        for row in records(crossovers(draws, found, along="compute"))
        if row["axis"] == "strategy"
    }
    for row in records(equivalences(draws, found, along="compute")):
        pair = crossed[frozenset(("CLIP", row["strategy"]))]
        ahead = row["strategy"] if row["verdict"] == "worth more" else "CLIP"
        if pair["verdict"] == "none within the data" and row["verdict"] != "undecided":
            assert ahead == pair["ahead"]
        if pair["verdict"] == "overtakes" and row["verdict"] != "undecided":
            assert ahead == (pair["behind"] if row["x"] < pair["low"] else pair["ahead"]) or (
                pair["low"] <= row["x"] <= pair["high"]
            )


def test_a_strategy_that_halves_the_compute_is_worth_twice_as_much() -> None:
    levels = np.geomspace(2e11, 2e13, 6)
    plain = 0.3 + 0.5 * (levels / 2e11) ** -0.4
    better = 0.3 + 0.5 * (2 * levels / 2e11) ** -0.4
    draws, found = fitted(curves({"clip": plain, "clip-crop-flip": better}, levels))
    table = equivalences(draws, found, along="compute")
    inside = table[np.isfinite(table["high"])]
    assert len(inside) >= 4
    assert inside["low"].lt(2).all()
    assert inside["high"].gt(2).all()
    assert set(inside["verdict"]) == {"worth more"}
    last = table.iloc[-1]
    assert np.isinf(last["high"])
    assert last["bound"][1] == pytest.approx(1, rel=1e-3)
    assert last["verdict"] == "worth more", "the whole of the baseline's range reaches x, and is not enough"


@pytest.mark.parametrize("more", [1.0, 1.0002, 1 / 1.0002])
def test_rounding_to_whole_batches_does_not_decide_about_the_ends_of_the_range(more: float) -> None:
    levels = np.geomspace(2e11, 2e13, 5)
    plain = np.array([0.70, 0.62, 0.55, 0.49, 0.44])
    results = curves({"clip": plain, "slip": plain - 0.03, "flip-50": plain + 0.03}, levels)
    results["train_flops"] *= np.where(results["strategy"] == "clip", more, 1.0)
    table = equivalences(*fitted(results), along="compute").set_index(["strategy", "x"])["verdict"]
    assert table["SLIP"].iloc[-1] == "worth more"
    assert table["FLIP (50 %)"].iloc[0] == "worth less"


def test_nothing_is_worth_more_because_the_baseline_ends_at_less_compute() -> None:
    levels = np.geomspace(2e11, 2e13, 5)
    plain = np.array([0.70, 0.62, 0.55, 0.49, 0.44])
    results = curves({"clip": plain, "slip": plain}, levels)
    results = results[(results["strategy"] != "clip") | (results["train_flops"] < 1e13)]
    table = equivalences(*fitted(results), along="compute")
    assert table["verdict"].iloc[-1] == "undecided"


@pytest.mark.slow
def test_the_law_that_made_the_data_forecasts_best() -> None:
    results = study(levels=tuple(np.geomspace(2e11, 1e13, 6)), noise=0.004).results
    found = holdout(*fitted(results))
    choice = found.choices["fixed-compute"]
    assert choice.form in (FLOOR, FLOOR_SHIFT)
    assert choice.error < 0.02
    scores = {row["law"]: row for row in records(found.scores)}
    assert scores["power law with floor"]["points"] == 11
    assert scores["last level"]["error"] > 2 * choice.error
    assert found.points["factor"].max() == pytest.approx(50**0.2, rel=0.02)
    assert not scores[REPEATED]["compared"]


@pytest.mark.slow
def test_held_out_levels_are_not_fitted() -> None:
    results = study(levels=tuple(np.geomspace(2e11, 1e13, 6))).results
    top = results["level_flops"] == results["level_flops"].max()
    moved = results.assign(
        **{"held-out/top1": np.where(top, 0.5 * results["held-out/top1"], results["held-out/top1"])}
    )
    before, after = (holdout(*fitted(frame)).points for frame in (results, moved))
    assert set(before["law"]) >= {"power law", "power law with floor", REPEATED}
    fair = (before["law"] != "last level").to_numpy()
    np.testing.assert_allclose(
        before.loc[fair, "forecast"].to_numpy(np.float64), after.loc[fair, "forecast"].to_numpy(np.float64)
    )
    assert (after["measured"] > before["measured"]).all()


def test_two_levels_are_too_few_to_hold_one_out() -> None:
    found = holdout(*fitted(study(levels=(2e11, 9e11)).results))
    assert not found.choices["fixed-compute"].tested
    assert "two must remain" in found.reason


def test_one_level_cannot_be_held_out() -> None:
    found = holdout(*fitted(study(levels=(2e11,)).results))
    assert (found.choices, len(found.points)) == ({}, 0)
    assert "none could be held out" in found.reason


def test_in_one_epoch_cells_of_different_sizes_are_one_curve_over_compute() -> None:
    results = study().results
    size = results["samples_seen"]
    one = results.assign(regime="one-epoch", subset_size=size, epochs=1.0, level_flops=np.nan)
    one = one.drop_duplicates(["subset_size", "quality", "architecture", "strategy", "seed"])
    draws = cell_draws(tidy(one, metric="held-out/top1"), question="laws")
    found = laws(draws, along="compute")
    assert all("subset_size" not in law.identity for law in found)
    assert max(law.fit.levels for law in found) >= 3
