"""Intervals have their nominal coverage, and there is none if the noise was not measured."""

import numpy as np
import pandas as pd
import pytest

from analysis.belief.cell_draws import stream
from analysis.cells.intervals import interval
from analysis.cells.study_frames import StudyFrames
from tests.analysis.synthetic import LEVELS, cells_of, study, table_of, true_error

CENTRE = (3276, "top40", "ViT-X", "clip")


def truth(level: float) -> float:
    return true_error(level, *CENTRE) - 0.2


def one_curve(seed: int, *, seeds: int, noise: float, levels: tuple[float, ...] = LEVELS) -> pd.DataFrame:
    lines = {CENTRE: [truth(level) for level in levels]}
    return table_of(lines, levels, seeds=seeds, noise=noise, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_nine_in_ten_intervals_hold_the_true_error(seeds: int) -> None:
    true = np.array([truth(level) for level in LEVELS])
    held = []
    for repeat in range(150):
        # Noise well above the counting noise of 1,600 images, so that it is what is measured.
        rows = one_curve(repeat, seeds=seeds, noise=0.03)
        draws = cells_of(rows, draws=400)
        ends = np.array([interval(column) for column in draws.draws.T])
        held += ((ends[:, 0] <= true) & (true <= ends[:, 1])).tolist()
    assert 0.85 <= np.mean(held) <= 0.95


def test_more_seeds_narrow_the_interval() -> None:
    widths = []
    for seeds in (2, 8):
        low, high = interval(cells_of(one_curve(0, seeds=seeds, noise=0.03)).draws[:, 0])
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]


def test_single_runs_show_their_noise_by_how_far_they_miss_the_law_of_their_table() -> None:
    levels, noise = np.geomspace(2e11, 2e14, 10), 0.02
    lines = {
        (3276, "all", name, "clip"): 0.4 - lower + 0.4 * (levels / levels[0]) ** -0.3
        for name, lower in (("ViT-X", 0.0), ("ViT-S", 0.05), ("ViT-M", 0.1))
    }
    results = table_of(lines, levels, seeds=1, noise=noise, seed=0)
    draws = cells_of(results.assign(**{"held-out/count": 1e6}))
    assert (draws.source, "one run per cell" in draws.explanation) == ("laws", True)
    assert 0.3 * noise < np.median(draws.draws.std(axis=0)) < 1.5 * noise


def test_few_single_runs_have_no_draws_and_say_why() -> None:
    draws = cells_of(study(seeds=1).results)
    assert draws.source == "none"
    assert "no intervals" in draws.explanation
    assert draws.draws.shape == (0, 33)
    assert np.isnan(interval(draws.draws[:, 0])).all()


def test_seeds_that_agree_by_luck_still_have_the_counting_noise() -> None:
    draws = cells_of(one_curve(0, seeds=2, noise=0.0))
    error = draws.cells["error"].to_numpy()
    counting = np.sqrt(error * (1 - error) / 1600 / 2)
    assert (draws.draws.std(axis=0) > 0.7 * counting).all()


def test_a_single_run_takes_its_noise_from_the_cells_that_have_several(frames: StudyFrames) -> None:
    first = frames.results["trial"] == frames.results["trial"].iloc[0]
    cell = frames.results["trial"].str.replace("-s[0-9]+$", "", regex=True)
    draws = cells_of(frames.results[(cell != cell.iloc[0]) | first])
    spread = draws.draws.std(axis=0) / np.sqrt(draws.cells["error"] * (1 - draws.cells["error"]))
    single = (draws.cells["runs"] == 1).to_numpy()
    assert single.sum() == 1
    same = (draws.cells["budget"] == draws.cells["budget"][single].iloc[0]).to_numpy()
    # It also takes from the law, so its draws are less than √3 times as wide as those of three runs.
    assert 1.05 < spread[single].mean() / np.median(spread[same & ~single]) < np.sqrt(3)


def test_each_question_has_its_own_reproducible_stream() -> None:
    assert stream("frontier", 0).integers(1 << 40) == stream("frontier", 0).integers(1 << 40)
    assert stream("frontier", 0).integers(1 << 40) != stream("laws", 0).integers(1 << 40)
    assert stream("frontier", 0).integers(1 << 40) != stream("frontier", 1).integers(1 << 40)
