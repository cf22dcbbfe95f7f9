"""A paper's claims get their verdicts from its digitised figures, or from a study's results."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import records
from analysis.claims.claim_frame import COLUMNS, from_figures, from_study
from analysis.claims.findings import CLAIMS, Finding, findings, judge
from tests.analysis.synthetic import trial_row

FOLDER = Path("results/paper")
CLAIMED = pd.read_csv(FOLDER / "claims.csv").fillna({"points_supporting": 0, "points_tested": 0})
BY_NAME = {claim.name + claim.part: claim for claim in CLAIMS}
# The file's verdicts have many words; a claim that it calls both has parts with a verdict each.
VERDICTS = {
    word: set(verdicts)
    for words, verdicts in (
        (("supported", "mostly supported", "supported at 10M only", "supported but for 50M",
          "supported from 50M up", "supported only past 16 epochs", "supported to 400M",
          "supported within 2 points, never equal", "supported, with care"), ["supported"]),
        (("contradicted", "not supported as written"), ["contradicted"]),
        (("mixed", "contradicted at small sizes", "variants supported, ImageNet not",
          "OOD supported, ImageNet contradicted"), ["supported", "contradicted"]),
        (("not testable here",), ["not testable"]),
    )
    for word in words
}  # fmt: skip


@pytest.fixture(scope="module")
def paper() -> dict[str, list[Finding]]:
    parts: dict[str, list[Finding]] = {}
    for found in findings(from_figures(pd.read_csv(FOLDER / "figures.csv")), by_counts=True):
        parts.setdefault(found.claim.name, []).append(found)
    return parts


@pytest.mark.parametrize("name", [name for name in CLAIMED["id"] if name.startswith("C")])
def test_the_digitised_figures_give_the_verdict_that_was_counted_by_hand(
    name: str, paper: dict[str, list[Finding]]
) -> None:
    row, parts = records(CLAIMED[CLAIMED["id"] == name])[0], paper[name]
    counted = int(row["points_supporting"]), int(row["points_tested"])
    assert (sum(part.supporting for part in parts), sum(part.tested for part in parts)) == counted
    assert {part.verdict for part in parts} == VERDICTS[str(row["verdict"])]
    for part in parts:
        assert not part.tested or part.low <= part.effect <= part.high


def test_comparisons_against_a_verdict_are_named(paper: dict[str, list[Finding]]) -> None:
    assert paper["C16"][0].reason == "3 of 5 comparisons in support; not at ViT-Ti/16; ViT-S/16"
    assert paper["C38"][0].reason == "4 of 5 comparisons in support; not at 50M pairs → 25M pairs"
    assert paper["C33"][0].reason == "1 of 3 comparisons in support; only at probe, 10M pairs"
    assert [(part.claim.part, part.verdict) for part in paper["C30"]] == [
        ("sets below 100M", "contradicted"), ("sets from 100M on", "supported"),
    ]  # fmt: skip


def equal_samples(gain: float, *, seeds: int = 3, noise: float = 0.004) -> pd.DataFrame:
    """Return CLIP, augmented CLIP and SLIP at equal samples on four sizes of up to 400M pairs."""
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
    assert judge(BY_NAME["C44ImageNet"], frame).verdict == "supported"


def test_the_same_claim_is_contradicted_where_augmentation_gains_nothing() -> None:
    found = judge(BY_NAME["C38"], from_study(equal_samples(0.0), metric="held-out/top1"))
    assert (found.verdict, found.supporting) == ("contradicted", 0)
    assert found.high < 0


def test_an_effect_within_the_noise_is_undecided() -> None:
    frame = from_study(equal_samples(0.002, noise=0.03), metric="held-out/top1")
    found = judge(BY_NAME["C44ImageNet"], frame)
    assert found.verdict == "undecided"
    assert f"of {found.tested} comparisons in support; " in found.reason
    assert f"of all {found.tested} outside the 90% noise" in found.reason


def test_one_seed_leaves_every_claim_undecided_or_not_testable() -> None:
    found = findings(from_study(equal_samples(0.2, seeds=1), metric="held-out/top1"))
    assert {one.verdict for one in found} == {"undecided", "not testable"}
    assert all("not measured" in one.reason for one in found if one.tested)


def test_other_evaluation_sets_are_averaged_as_the_variants(frames: StudyFrames) -> None:
    frame = from_study(frames.results, metric="held-out/top1")
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["metric"]) == {"zero-shot", "variants", "variant: style"}
    variants = frame[(frame["metric"] == "variants") & (frame["group"] == "vits")]
    style = 100 * (1 - frames.results.loc[frames.results["strategy"] == "clip", "style/top1"])
    assert style.min() - 1 < variants["error"].min()
    assert variants["error"].max() < style.max() + 1


def other_sets(turn: float) -> pd.DataFrame:
    """Return transformers of four sizes at six budgets; on two other sets larger is better by ``turn``."""
    generator = np.random.default_rng(4)
    rows = []
    for place, architecture in enumerate(("ViT-S-32", "ViT-M-32", "ViT-B-32", "ViT-L-14")):
        for budget in range(6):
            for seed in range(3):
                error = 0.8 - 0.05 * budget - 0.01 * place + 0.004 * float(generator.standard_normal())
                row = trial_row((4096, "all", "ViT-X", "clip"), 2e11 * 2**budget, seed, error)
                late = 1 - error - turn * place
                others = {"imagenet-a/top1": late**2, "imagenet-r/top1": 0.9 * late}
                sets = {f"{name.partition('/')[0]}/count": 50_000.0 for name in others} | others
                named = {"trial": f"{architecture}-{budget}-{seed}", "architecture": architecture}
                rows.append(row | sets | named | {"train_flops_per_sample": 1e9 * 3**place})
    return pd.DataFrame(rows).drop(columns=["style/top1", "style/count"])


@pytest.mark.slow
def test_accuracy_on_other_sets_is_judged_at_equal_accuracy_set_by_set() -> None:
    frame = from_study(other_sets(-0.02), metric="held-out/top1")
    found = judge(BY_NAME["C20"], frame)
    assert (found.verdict, found.supporting, found.tested) == ("supported", 2, 2)
    assert judge(BY_NAME["C19"], frame).tested == 2
    assert (
        judge(BY_NAME["C20"], from_study(other_sets(0.02), metric="held-out/top1")).verdict == "contradicted"
    )
    assert judge(BY_NAME["C19"], from_study(other_sets(0.0), metric="held-out/top1")).verdict == "supported"


def test_which_architecture_is_the_best_at_low_compute_is_judged_at_the_lowest_level() -> None:
    rows = [
        trial_row((4096, "all", "ViT-X", "clip"), level, seed, error + 0.001 * seed)
        | {"architecture": name, "trial": f"{name}-{level}-{seed}"}
        for name, errors in (("RN50", (0.6, 0.5)), ("ViT-B-32", (0.7, 0.3)), ("Swin-T", (0.8, 0.4)))
        for level, error in zip((2e11, 9e11), errors, strict=True)
        for seed in range(3)
    ]
    frame = from_study(pd.DataFrame(rows), metric="held-out/top1")
    assert judge(BY_NAME["C29"], frame).verdict == "supported"


def test_without_results_no_claim_is_testable() -> None:
    assert {one.verdict for one in findings(from_study(pd.DataFrame(), metric="held-out/top1"))} == {
        "not testable"
    }


def test_a_single_cell_at_the_largest_budget_does_not_hide_the_comparisons_below_it() -> None:
    rows = equal_samples(0.2)
    longest = rows.iloc[[-1]].assign(trial="longest", samples_seen=10 * 10**9)
    found = judge(BY_NAME["C38"], from_study(pd.concat([rows, longest]), metric="held-out/top1"))
    assert (found.verdict, found.tested) == ("supported", 3)


def test_mixtures_are_compared_with_themselves_alone() -> None:
    rows = [
        trial_row((size, f"mixture:{name}", "ViT-X", "clip"), level, seed, error + 0.002 * seed)
        for name, size, error in (("pure", 768, 0.4), ("web", 1280, 0.6), ("half", 1280, 0.5))
        for level in (2e11, 9e11)
        for seed in range(3)
    ]
    frame = from_study(pd.DataFrame(rows), metric="held-out/top1")

    assert [found.claim.name for found in findings(frame) if found.tested] == ["C04"], "epochs of one mixture"
    strategies = frame[(frame["group"] == "strategies") & (frame["metric"] == "zero-shot")]
    assert len(strategies) == 2, "one mixture at its two levels"


def test_augmentation_is_compared_within_a_regime() -> None:
    rows = equal_samples(0.2).assign(epochs=30.0)
    bought = rows[rows["strategy"] == "clip"].assign(regime="fixed-compute", samples_seen=4 * 10**9)
    bought["trial"] += " bought"
    bought["held-out/top1"] = 0.99  # of four times the samples
    found = judge(BY_NAME["C36"], from_study(pd.concat([rows, bought]), metric="held-out/top1"))
    assert (found.verdict, found.supporting, found.tested) == ("supported", 4, 4)


def test_epochs_that_lack_part_of_a_batch_are_whole() -> None:
    rows = [
        trial_row((25_000_000, "all", "ViT-X", "clip"), 2e11, seed, error + 0.001 * seed)
        | {
            "trial": f"{epochs}-{seed}",
            "regime": "equal-samples",
            "samples_seen": seen,
            "epochs": seen / 25e6,
        }
        for epochs, seen, error in ((16, 399_998_976, 0.5), (32, 799_997_952, 0.45))
        for seed in range(3)
    ]
    found = judge(BY_NAME["C02"], from_study(pd.DataFrame(rows), metric="held-out/top1"))
    assert (found.verdict, found.tested) == ("contradicted", 1)
    assert found.effect == pytest.approx(0.5 - 5.0)


@pytest.mark.parametrize("sizes", [(10**7, 10**8, 10**9), (10**8,)])
def test_each_half_of_a_claim_has_a_verdict_of_its_own(sizes: tuple[int, ...]) -> None:
    rows = [
        trial_row((size, "all", "ViT-X", "clip"), 2e11, seed, error - 1e-10 * size + 0.001 * seed)
        | {
            "trial": f"{name}-{size}-{seed}",
            "regime": "one-epoch",
            "architecture": name,
            "samples_seen": size,
        }
        for name, error in (("RN50", 0.4), ("ViT-B-32", 0.5))
        for size in sizes
        for seed in range(3)
    ]
    frame = from_study(pd.DataFrame(rows), metric="held-out/top1")
    verdicts = [judge(BY_NAME[f"C27{part}"], frame).verdict for part in ("few", "many")]
    assert verdicts == (["supported", "contradicted"] if len(sizes) > 1 else ["not testable"] * 2)
