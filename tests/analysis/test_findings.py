"""A paper's claims get the verdicts that its own digitised figures give, and a study's its own."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.claims.all import CLAIMS
from analysis.findings import Finding, findings, judge
from analysis.statement_frame import COLUMNS, from_figures, from_study
from analysis.table import records
from tests.analysis.synthetic import StudyFrames, trial_row

FOLDER = Path("results/paper")
CLAIMED = pd.read_csv(FOLDER / "claims.csv").fillna({"points_supporting": 0, "points_tested": 0})
BY_NAME = {claim.name: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def paper() -> dict[str, Finding]:
    figures = pd.read_csv(FOLDER / "figures.csv")
    return {found.claim.name: found for found in findings(from_figures(figures), by_counts=True)}


@pytest.mark.parametrize("name", [name for name in CLAIMED["id"] if name.startswith("C")])
def test_the_digitised_figures_give_the_verdict_that_was_counted_by_hand(
    name: str, paper: dict[str, Finding]
) -> None:
    row, found = records(CLAIMED[CLAIMED["id"] == name])[0], paper[name]
    supporting, tested = int(row["points_supporting"]), int(row["points_tested"])
    assert (found.supporting, found.tested) == (supporting, tested)
    word = str(row["verdict"])
    if word.startswith("not testable"):
        assert found.verdict == "not testable"
    elif supporting == tested:
        assert word.startswith("supported")
        assert found.verdict == "supported"
    else:
        assert found.verdict == ("contradicted" if 2 * supporting < tested else "supported in part")
    if tested:
        assert found.low <= found.effect <= found.high


def test_the_shipped_readings_are_those_of_the_source() -> None:
    source = Path("../shared/paper/figures.csv")
    if not source.exists():
        pytest.skip(f"{source} is not there")
    shipped, given = pd.read_csv(FOLDER / "figures.csv"), pd.read_csv(source)
    pd.testing.assert_frame_equal(shipped, given[shipped.columns])


def equal_samples(gain: float, *, seeds: int = 3, noise: float = 0.004) -> pd.DataFrame:
    """CLIP, augmented CLIP and SLIP at equal samples on four sizes of up to 400M pairs."""
    generator = np.random.default_rng(3)
    rows = []
    for size in (50e6, 100e6, 200e6, 400e6):
        for strategy, shift in (("clip", 0.0), ("clip-crop-flip", -gain), ("slip", 0.01)):
            for seed in range(seeds):
                error = 0.8 * (size / 50e6) ** -0.3 + shift + noise * float(generator.standard_normal())
                row = trial_row((int(size), "all", "ViT-X", strategy), 2e11, seed, error)
                name = f"{strategy}-{size:g}-{seed}"
                rows.append(row | {"trial": name, "regime": "equal-samples", "samples_seen": 10**9})
    return pd.DataFrame(rows)


def test_half_of_the_data_is_enough_where_augmentation_gains_that_much() -> None:
    frame = from_study(equal_samples(0.2), metric="held-out/top1")
    found = judge(BY_NAME["C38"], frame)
    assert (found.verdict, found.supporting, found.tested) == ("supported", 3, 3)
    assert found.low < found.effect < found.high
    assert judge(BY_NAME["C44"], frame).verdict == "supported"


def test_the_same_claim_is_contradicted_where_augmentation_gains_nothing() -> None:
    found = judge(BY_NAME["C38"], from_study(equal_samples(0.0), metric="held-out/top1"))
    assert (found.verdict, found.supporting) == ("contradicted", 0)
    assert found.high < 0


def test_an_effect_within_the_noise_is_undecided() -> None:
    frame = from_study(equal_samples(0.002, noise=0.03), metric="held-out/top1")
    assert judge(BY_NAME["C44"], frame).verdict == "undecided"


def test_one_seed_leaves_every_claim_undecided_or_not_testable() -> None:
    found = findings(from_study(equal_samples(0.2, seeds=1), metric="held-out/top1"))
    assert {one.verdict for one in found} == {"undecided", "not testable"}
    assert all("not measured" in one.reason for one in found if one.tested)


def test_other_evaluation_sets_are_averaged_as_the_variants(frames: StudyFrames) -> None:
    frame = from_study(frames.results, metric="held-out/top1")
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["metric"]) == {"zero-shot", "variants"}
    variants = frame[(frame["metric"] == "variants") & (frame["group"] == "vits")]
    style = 100 * (1 - frames.results.loc[frames.results["strategy"] == "clip", "style/top1"])
    assert style.min() - 1 < variants["error"].min()
    assert variants["error"].max() < style.max() + 1


def test_no_results_test_nothing() -> None:
    assert {one.verdict for one in findings(from_study(pd.DataFrame(), metric="held-out/top1"))} == {
        "not testable"
    }
