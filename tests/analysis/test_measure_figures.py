"""The figures of other regimes, other measures, accuracy under shift and what a strategy is worth."""

import numpy as np
import pandas as pd
import pytest

from analysis.bootstrap import CellDraws, cell_draws
from analysis.equivalence import equivalences
from analysis.figure_data import FigureData
from analysis.laws import laws
from analysis.measure_figures import over_compute_of
from analysis.run_figures import quality_trade
from analysis.size_figures import by_architecture
from analysis.table import tidy
from analysis.worth_figures import equivalence, shift
from tests.analysis.synthetic import StudyFrames

METRIC = "held-out/top1"


def cells_of(results: pd.DataFrame) -> CellDraws:
    return cell_draws(tidy(results, metric=METRIC), question="figure")


def drawn(data: object) -> FigureData:
    assert isinstance(data, FigureData), data
    return data


@pytest.fixture(scope="module")
def regimes(frames: StudyFrames) -> pd.DataFrame:
    """Two architectures over three sizes, at equal samples and in one epoch, besides the fixed budgets."""
    first = frames.results[
        (frames.results["architecture"] == "ViT-X")
        & (frames.results["strategy"] == "clip")
        & (frames.results["level_flops"] == frames.results["level_flops"].min())
    ]
    other = first.assign(architecture="ViT-S", trial=first["trial"] + "-s")
    other[METRIC] = 0.9 * first[METRIC]
    both = pd.concat([first, other])
    equal = both.assign(
        regime="equal-samples", level_flops=np.nan, samples_seen=65_536, trial=both["trial"] + "-equal"
    )
    once = both.assign(
        regime="one-epoch",
        level_flops=np.nan,
        samples_seen=both["subset_size"],
        trial=both["trial"] + "-once",
    )
    once = once.assign(train_flops=once["samples_seen"] * once["train_flops_per_sample"] * 1.0)
    whole: pd.DataFrame = pd.concat([frames.results, equal, once], ignore_index=True)
    return whole


def test_error_over_data_has_a_panel_for_equal_samples_and_one_for_one_epoch(regimes: pd.DataFrame) -> None:
    draws = cells_of(regimes)
    fitted = [*laws(draws, along="compute"), *laws(draws, along="data")]
    data = drawn(by_architecture(draws, fitted, metric=METRIC))
    points = data.frame[data.frame["mark"] == "point"]
    assert set(points["panel"]) == {
        "equal samples: CLIP, top 40 % at 65,536 samples", "one epoch: CLIP, top 40 %",
    }  # fmt: skip
    assert set(points["series"]) == {"ViT-X", "ViT-S"}
    assert set(points["x"]) == {512.0, 1024.0, 3276.0}
    # A law of one epoch is drawn over pairs, within those that were measured.
    once = data.frame[
        data.frame["panel"].str.startswith("one epoch") & data.frame["mark"].str.contains("law")
    ]
    assert once["x"].between(511, 3277).all()


def test_quality_has_a_panel_for_each_regime(regimes: pd.DataFrame) -> None:
    data = drawn(quality_trade(cells_of(regimes), metric=METRIC))
    assert set(data.frame["panel"]) >= {"fixed compute", "equal samples"}


def test_other_measures_are_drawn_one_panel_each_with_laws_where_supported(frames: StudyFrames) -> None:
    results = frames.results.assign(**{"pairs/count": 512.0})
    results["pairs/image_to_text_r1"] = 0.6 * results[METRIC]
    results["pairs/text_to_image_r1"] = 0.5 * results[METRIC]
    data = drawn(
        over_compute_of(
            results, name="retrieval", title="Retrieval", endings=("image_to_text_r1", "text_to_image_r1")
        )
    )
    assert list(dict.fromkeys(data.frame["panel"])) == [
        "image-to-text R@1 error (pairs)", "text-to-image R@1 error (pairs)",
    ]  # fmt: skip
    assert {"point", "tentative law"} <= set(data.frame["mark"])
    assert "best" not in set(data.frame["mark"])


def test_cells_under_shift_stand_by_the_line_that_plain_clip_follows(frames: StudyFrames) -> None:
    data = drawn(shift(frames.results, metric=METRIC, draws=cells_of(frames.results)))
    points = data.frame[data.frame["mark"] == "point"]
    # The made-up shift takes half of every accuracy.
    np.testing.assert_allclose(points["y"], points["x"] / 2)
    line = data.frame[data.frame["mark"] == "reference"]
    x, y = (np.log(line[axis] / (100 - line[axis])) for axis in ("x", "y"))
    np.testing.assert_allclose(np.diff(y) / np.diff(x), np.diff(y)[0] / np.diff(x)[0])
    assert set(points["series"]) >= {"ViT-X", "SLIP", "FLIP (50 %)"}


def test_a_ratio_beyond_what_clip_was_measured_to_is_drawn_as_a_bound(frames: StudyFrames) -> None:
    draws = cells_of(frames.results)
    table = equivalences(draws, tuple(laws(draws, along="compute")), along="compute")
    data = drawn(equivalence(draws, table, along="compute"))
    bounds = data.frame[data.frame["mark"] == "bound"]
    assert len(bounds)
    assert bounds["text"].str.contains("at most|at least").all()
    measured = data.frame[data.frame["mark"].isin(["point", "bound"])]
    assert np.isfinite(measured[["x", "y"]].to_numpy(float)).all()
    assert (measured["low"] <= measured["y"] + 1e-9).all()
    assert (measured["y"] <= measured["high"] + 1e-9).all()
