"""Intervals have their nominal coverage, and there is none if the noise was not measured."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.bootstrap import stream
from analysis.cells.intervals import interval
from analysis.cells.study_frames import StudyFrames
from analysis.laws.forms import FLOOR
from analysis.laws.laws import laws
from tests.analysis.synthetic import LEVELS, METRIC, cells_of, study, trial_row, true_error

CENTRE = (3276, "top40", "ViT-X", "clip")


def truth(level: float) -> float:
    return true_error(level, *CENTRE) - 0.2


def one_curve(seed: int, *, seeds: int, noise: float, levels: tuple[float, ...] = LEVELS) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows = [
        trial_row(CENTRE, level, run, truth(level) + noise * float(generator.standard_normal()))
        for level in levels
        for run in range(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_nine_in_ten_intervals_hold_the_true_error(seeds: int) -> None:
    true = np.array([truth(level) for level in LEVELS])
    held = []
    for repeat in range(150):
        # Noise well above the counting noise of 1,600 images, so that it is what is measured.
        rows = one_curve(repeat, seeds=seeds, noise=0.03)
        draws = cells_of(rows, question=f"repeat {repeat}", draws=400)
        ends = np.array([interval(column) for column in draws.draws.T])
        held += ((ends[:, 0] <= true) & (true <= ends[:, 1])).tolist()
    assert 0.85 <= np.mean(held) <= 0.95


@pytest.mark.slow
def test_the_exponents_interval_holds_the_true_one() -> None:
    levels = tuple(np.geomspace(2e11, 2e13, 6))
    held = []
    for repeat in range(40):
        rows = one_curve(repeat, seeds=3, noise=0.0, levels=levels)
        line = 0.3 + 0.5 * (rows["train_flops"] / levels[0]) ** -0.4
        noise = 0.015 * np.random.default_rng(repeat).standard_normal(len(rows))
        law = laws(cells_of(rows.assign(**{METRIC: 1 - line - noise}), draws=300), along="compute")[0]
        if law.fit.form == FLOOR:  # the exponent of another form is another number
            held.append(law.alpha.low <= 0.4 <= law.alpha.high)
    assert len(held) >= 15
    assert np.mean(held) >= 0.8


def test_more_seeds_narrow_the_interval() -> None:
    widths = []
    for seeds in (2, 8):
        low, high = interval(cells_of(one_curve(0, seeds=seeds, noise=0.03)).draws[:, 0])
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]


def test_one_seed_per_cell_has_no_interval_but_the_counting_noise_and_says_so() -> None:
    draws = cells_of(study(seeds=1).results)
    assert draws.source == "evaluation"
    assert "no interval" in draws.explanation
    error = draws.cells["error"].to_numpy()
    np.testing.assert_allclose(draws.draws.std(axis=0), np.sqrt(error * (1 - error) / 1600), rtol=0.15)


def test_one_seed_without_image_counts_has_no_draws() -> None:
    draws = cells_of(study(seeds=1).results.drop(columns="held-out/count"))
    assert draws.source == "none"
    assert draws.draws.shape == (0, 33)
    assert np.isnan(interval(draws.draws[:, 0])).all()


def test_seeds_that_agree_by_luck_still_have_the_counting_noise() -> None:
    draws = cells_of(one_curve(0, seeds=2, noise=0.0))
    error = draws.cells["error"].to_numpy()
    counting = np.sqrt(error * (1 - error) / 1600 / 2)
    assert (draws.draws.std(axis=0) > 0.9 * counting).all()


def test_a_single_run_takes_its_noise_from_the_cells_that_have_several(frames: StudyFrames) -> None:
    first = frames.results["trial"] == frames.results["trial"].iloc[0]
    cell = frames.results["trial"].str.replace("-s[0-9]+$", "", regex=True)
    draws = cells_of(frames.results[(cell != cell.iloc[0]) | first])
    spread = draws.draws.std(axis=0) / np.sqrt(draws.cells["error"] * (1 - draws.cells["error"]))
    single = (draws.cells["runs"] == 1).to_numpy()
    assert single.sum() == 1
    assert spread[single].mean() == pytest.approx(np.sqrt(3) * spread[~single].mean(), rel=0.2)


def test_each_question_has_its_own_reproducible_stream() -> None:
    assert stream("frontier", 0).integers(1 << 40) == stream("frontier", 0).integers(1 << 40)
    assert stream("frontier", 0).integers(1 << 40) != stream("laws", 0).integers(1 << 40)
    assert stream("frontier", 0).integers(1 << 40) != stream("frontier", 1).integers(1 << 40)
