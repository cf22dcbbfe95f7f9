"""Effective robustness: none from accuracy alone, found where simulated, undecided with one seed."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.robustness import robustness
from tests.analysis.synthetic import study


def made_up(*, gain: float, seeds: int = 3) -> pd.DataFrame:
    """Return a study with accuracy under shift on a logit line over plain accuracy, plus a gain for SLIP."""
    results = study(seeds=seeds).results
    plain = results["held-out/top1"].clip(0.01, 0.99).to_numpy(np.float64)
    line = 1 / (1 + np.exp(1.0 - 0.9 * np.log(plain / (1 - plain))))
    noise = np.random.default_rng(0).normal(0, 0.003, len(results))
    shifted = line + gain * (results["strategy"] == "slip").to_numpy(float) + noise
    return results.assign(**{"style/top1": shifted})


def test_the_line_through_plain_clip_predicts_the_others_and_a_gain_above_it_is_found() -> None:
    found = robustness(made_up(gain=0.03), metric="held-out/top1")
    assert found["slope"].iloc[0] == pytest.approx(0.9, abs=0.03)
    assert found["r2"].iloc[0] > 0.99
    slip = found["value"] == "slip"
    assert found.loc[slip, "low"].item() < 0.03 < found.loc[slip, "high"].item()
    assert found.loc[slip, "verdict"].item() == "above"
    others = found[~slip]
    assert others["points"].abs().max() < 0.004
    assert (others["verdict"] == "on").mean() >= 0.8


def test_one_seed_leaves_robustness_undecided() -> None:
    found = robustness(made_up(gain=0.03, seeds=1), metric="held-out/top1")
    assert set(found["verdict"]) == {"undecided"}


def test_means_over_six_and_over_five_variants_are_separate_rows() -> None:
    results = made_up(gain=0.0).drop(columns=["style/top1", "style/count"])
    names = (
        "imagenet-a",
        "imagenet-r",
        "imagenet_sketch",
        "imagenetv2",
        "objectnet",
        "imagenet-real",
        "flowers",
    )
    plain = results["held-out/top1"]
    results = results.assign(**{f"{name}/top1": plain * (0.3 + 0.1 * n) for n, name in enumerate(names)})
    found = robustness(results, metric="held-out/top1")
    assert set(found["shifted"]) == {*names, "variants-6", "variants-5"} - {"flowers"}
    fewer = robustness(results.drop(columns="imagenet-real/top1"), metric="held-out/top1")
    assert "variants-5" in set(fewer["shifted"])
    assert "variants-6" not in set(fewer["shifted"])


def test_without_shifted_sets_or_with_another_metric_the_table_is_empty() -> None:
    results = made_up(gain=0.0)
    results["held-out/top5"] = results["held-out/top1"]
    assert robustness(results, metric="held-out/top5").empty
    assert robustness(results.drop(columns="style/top1"), metric="held-out/top1").empty
    assert robustness(results.iloc[:0], metric="held-out/top1").empty


def test_intervals_are_not_narrower_than_the_counting_of_few_shifted_images() -> None:
    results = made_up(gain=0.0)
    widths = [
        (found["high"] - found["low"]).mean()
        for images in (50, 200, 50_000)
        if len(found := robustness(results.assign(**{"style/count": float(images)}), metric="held-out/top1"))
    ]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.15)
    assert widths[1] > 3 * widths[2]


def test_runs_that_agree_exactly_leave_robustness_undecided() -> None:
    results = made_up(gain=0.03)
    cell = ["subset_size", "quality", "architecture", "strategy", "level_flops"]
    for name in ("held-out/top1", "style/top1"):
        results[name] = results.groupby(cell)[name].transform("first")
    assert set(robustness(results, metric="held-out/top1")["verdict"]) == {"undecided"}
