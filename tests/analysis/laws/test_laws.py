"""Curves are read from the joint law: their bands, its parameters, and its forecasts of held-out levels."""

import numpy as np
import pandas as pd
import pytest

from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.belief.curves import read
from analysis.belief.parameters import parameters
from analysis.cells.table import Trials, records, tidy
from analysis.charts.answer_figures import forecasts
from analysis.laws.holdout import JOINT, LAST, holdout
from analysis.laws.laws import Law, laws
from tests.analysis.paper_curves import families, left_out
from tests.analysis.synthetic import METRIC, cells_of, figure_of, trial_row

pytestmark = pytest.mark.slow

Paper = list[tuple[str, Trials, CellDraws, list[Law]]]
LEVELS = (1e11, 3e11, 9e11, 2.7e12, 8.1e12)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return [
        (along, trials, draws := cell_draws(trials), laws(draws, along=along))
        for _, along, trials in families()
    ]


def test_31_of_32_curves_of_the_paper_fall(paper: Paper) -> None:
    found = [law for *_, fitted in paper for law in fitted if len(law.positions) >= 4]
    assert len(found) == 32
    assert sum(law.status == "ok" for law in found) >= 31


def test_the_joint_law_misses_the_papers_points_by_less_than_a_point(paper: Paper) -> None:
    misses = []
    for along, _, draws, fitted in paper:
        for law in fitted if along == "compute" else ():
            line = np.median(read(draws, law, draws.column("train_flops")[law.positions]), axis=0)
            misses.append(100 * np.sqrt(((draws.column("error")[law.positions] - line) ** 2).mean()))
    assert len(misses) == 15
    assert np.median(misses) < 0.5


def test_bands_hold_a_left_out_cell_nine_times_in_ten(paper: Paper) -> None:
    # A cell of every curve at once; all of them, one in turn, are a line of ``benchmarks/coverage.py``.
    held = []
    for along, trials, draws, fitted in paper:
        long = [law for law in fitted if len(law.positions) > 4]
        out = [int(law.positions[(2, 4, 6, 9)[k % 4] % len(law.positions)]) for k, law in enumerate(long)]
        held += left_out(trials, draws, long, along, out)
    assert len(held) >= 25
    assert 0.8 <= np.mean(held) <= 1.0


def test_the_band_of_a_curve_over_data_goes_through_the_draws_of_its_cells(small_full: pd.DataFrame) -> None:
    draws = cells_of(small_full)
    for law in laws(draws, along="data"):
        x = draws.column("subset_size")[law.positions]
        np.testing.assert_allclose(read(draws, law, x), draws.draws[:, law.positions], atol=1e-9)
        between = read(draws, law, np.sqrt(x[:-1] * x[1:]))
        assert (between.std(axis=0) > 0.5 * draws.draws[:, law.positions].std(axis=0).min()).all()


def test_a_curve_that_does_not_fall_has_no_band() -> None:
    rows = [
        trial_row((2048, "all", name, "clip"), level, seed, error + 0.002 * seed)
        for name, errors in (("ViT-X", (0.9, 0.7, 0.6)), ("ViT-S", (0.6, 0.61, 0.6)))
        for level, error in zip(LEVELS, errors, strict=False)
        for seed in range(3)
    ]
    found = {
        str(law.identity["architecture"]): law for law in laws(cells_of(pd.DataFrame(rows)), along="compute")
    }
    assert {name: law.status for name, law in found.items()} == {"ViT-X": "ok", "ViT-S": "no decrease"}
    assert found["ViT-S"].band.empty
    band = found["ViT-X"].band
    assert (band["low"] <= band["y"]).all()
    assert (band["y"] <= band["high"]).all()


def _trials(*, noise: float, levels: tuple[float, ...] = LEVELS) -> pd.DataFrame:
    """Return two strategies of three sizes; FLIP has three quarters of CLIP's q at equal cost and samples."""
    generator, rows = np.random.default_rng(5), []
    for name, strategy, level in (
        (name, strategy, level)
        for name in ("ViT-X", "ViT-S", "ViT-M")
        for strategy in ("clip", "slip")
        for level in levels
    ):
        row = trial_row((10**9, "all", name, strategy), level, 0, 0.5)
        size, samples = float(str(row["train_flops_per_sample"])), float(str(row["samples_seen"]))
        q = (1.0 if strategy == "clip" else 0.75) * ((size / 1e8) ** -0.4 + (samples / 3e4) ** -0.5)
        for seed in range(3):
            error = 0.1 + 0.89 * q / (1 + q) + noise * generator.standard_normal()
            rows.append(trial_row((10**9, "all", name, strategy), level, seed, float(error)))
    return pd.DataFrame(rows)


def test_the_effect_of_a_strategy_is_a_factor_with_an_interval() -> None:
    found = parameters(cells_of(_trials(noise=0.003)).families.values())
    (row,) = records(found[found["parameter"] == "strategy"])
    assert row["of"] == "slip"
    assert row["low"] < 0.75 < row["high"]
    assert {"E", "alpha", "beta", "gamma"} <= set(found["parameter"])
    assert "epochs" not in set(found["parameter"]), "no pair is seen twice"
    assert (found["low"] <= found["value"]).all()


def test_held_out_levels_are_forecast_from_those_below() -> None:
    trials = tidy(_trials(noise=0.003), metric=METRIC)
    found = holdout(trials)
    assert set(found.points["level"]) == set(LEVELS[-2:])
    assert len(found.points) == 2 * 6
    joint, last = records(found.scores)
    assert (joint["law"], last["law"]) == (JOINT, LAST)
    assert joint["error"] < 0.02 < last["error"]
    assert last["bias"] == pytest.approx(last["error"]), "errors fall"
    assert joint["held"] >= 0.75
    drawn = figure_of(forecasts(found, metric=METRIC)).frame
    assert (drawn["mark"] == "point").sum() == 2 * len(found.points)


def test_two_levels_leave_nothing_to_forecast() -> None:
    found = holdout(tidy(_trials(noise=0.003, levels=LEVELS[:2]), metric=METRIC))
    assert found.points.empty
    assert "was run at 3 levels" in found.reason


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_what_is_read_of_losses_does_not_depend_on_their_unit(factor: float) -> None:
    results = _trials(noise=0.003)

    def line(unit: float) -> list[float]:
        scaled = results.assign(**{"text/loss": unit * 3 * (1 - results[METRIC])})
        found = laws(cell_draws(tidy(scaled, metric="text/loss")), along="compute")
        return [float(value) / unit for law in found for value in law.band["high"]]

    np.testing.assert_allclose(line(factor), line(1.0), rtol=1e-6)
