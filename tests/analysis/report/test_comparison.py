"""Studies side by side: what changed in the answer, and each shared cell with its difference."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.report.analyse import Analysis, analyse
from analysis.report.comparison import compare, other_settings, write_comparison
from tests.analysis.synthetic import METRIC, trial_row


def shifted(frames: StudyFrames, points: float, *, seed: int = 3) -> StudyFrames:
    """Return a study whose plain ViT-X cells are better by some points, with seeds of its own."""
    noise = np.random.default_rng(seed).normal(0, 0.004, len(frames.results))
    gain = np.where(frames.results["architecture"] == "ViT-X", points / 100, 0.0)
    accuracy = frames.results[METRIC] + noise + gain
    return replace(frames, name="other", results=frames.results.assign(**{METRIC: accuracy}))


def test_equal_studies_differ_in_few_cells_and_not_in_the_answer(frames: StudyFrames) -> None:
    answers, cells, _ = compare([frames, shifted(frames, 0.0)])
    assert answers.frame["Budget"].tolist() == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP"]
    assert set(answers.frame["Change"]) <= {"same", "within the tie"}
    assert len(cells.frame) == 33
    assert (cells.frame["Verdict"] == "no difference seen").mean() > 0.7


def test_budgets_that_differ_by_rounding_are_the_same_and_cells_of_one_study_alone_are_counted(
    frames: StudyFrames,
) -> None:
    other = shifted(frames, 0.0)
    some = other.results[other.results["strategy"] != "slip"]
    near = some.assign(level_flops=some["level_flops"] * 1.002)
    answers, cells, _ = compare([frames, replace(other, results=near, plan=other.plan.iloc[:0])])
    assert len(cells.frame) == 30
    assert answers.frame["Budget"].tolist() == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP"]
    less = replace(other, name="less", results=near, plan=other.plan.iloc[:0])
    _, cells, _ = compare([frames, other, less])
    assert cells.note.endswith("; 3 cells of made-up without a counterpart in the comparison with less")


def test_a_shift_of_one_architecture_is_found_cell_by_cell_and_changes_the_answer(
    frames: StudyFrames,
) -> None:
    answers, cells, _ = compare([frames, shifted(frames, 25.0)])
    here = cells.frame["Configuration"].str.startswith("ViT-X")
    assert set(cells.frame.loc[here, "Verdict"]) == {"lower"}
    assert (cells.frame.loc[~here, "Verdict"] == "lower").mean() < 0.3
    apart = cells.frame.loc[here, "Difference (points)"].astype(float)
    assert abs(apart + 25).max() < 2.0
    assert "changed" in set(answers.frame["Change"])


def test_studies_of_one_seed_are_not_judged_by_the_counting_of_answers_alone(frames: StudyFrames) -> None:
    single = replace(frames, results=frames.results[frames.results["seed"] == 0])
    other = shifted(frames, 25.0)
    other = replace(other, results=other.results[other.results["seed"] == 0])
    _, cells, _ = compare([single, other])
    assert set(cells.frame["Verdict"]) == {"unknown noise"}
    assert set(cells.frame["Interval"]) == {"–"}
    assert cells.note.endswith("33 cells not judged: no noise is known in one of the studies")


def test_what_was_declared_otherwise_is_said(frames: StudyFrames) -> None:
    first = replace(frames, settings={"mixture half": "web (all)", "training.schedule": "cosine", "a": "1"})
    other = replace(first, name="other", settings={"mixture half": "web (top20)", "a": "1"})
    assert list(other_settings([first, other])) == [
        "declared otherwise in other than in made-up: mixture half web (top20) instead of web (all)"
    ]


def test_what_cannot_be_compared_is_refused_with_the_reason(frames: StudyFrames) -> None:
    other = replace(frames, name="other")
    with pytest.raises(ValueError, match=r"made-up measures held-out/top1, other measures style/top1"):
        compare([frames, replace(other, metric="style/top1")])
    far = frames.results.assign(level_flops=frames.results["level_flops"] * 100)
    for name in ("train_flops", "train_flops_per_sample"):
        far[name] *= 100
    with pytest.raises(ValueError, match=r"no configuration ran in both.*other has 20 TFLOP"):
        compare([frames, replace(other, results=far)])
    with pytest.raises(ValueError, match="not with itself"):
        compare([frames, frames])


def test_the_page_of_a_comparison_is_one_file_with_figure_and_tables(
    frames: StudyFrames, tmp_path: Path
) -> None:
    lines = write_comparison(tmp_path / "both", [frames, shifted(frames, 25.0)])
    assert len(lines) == 4
    assert lines[0].startswith("200 GFLOP: ")
    assert lines[-1].startswith("differences: the error of other minus that of made-up; ")
    page = (tmp_path / "both" / "comparison.html").read_text(encoding="utf-8")
    assert "made-up beside other" in page
    assert (page.count("<table"), page.count("<figure")) == (2, 1)
    links = re.findall('href="#([^"]+)"', page)
    assert set(links) <= set(re.findall(' id="([^"]+)"', page))
    assert {path.name for path in (tmp_path / "both" / "tables").iterdir()} == {
        f"{name}.{suffix}" for name in ("answers", "cells") for suffix in ("csv", "md", "tex")
    }


def test_a_study_with_a_second_regime_is_compared_at_the_shared_budgets(frames: StudyFrames) -> None:
    some = frames.results[frames.results["level_flops"] == frames.results["level_flops"].max()]
    more = some.assign(regime="equal-samples", trial=some["trial"] + "-more", level_flops=np.nan)
    two = replace(frames, name="two", results=pd.concat([frames.results, more], ignore_index=True))
    answers, _, _ = compare([frames, two])
    assert answers.frame["Budget"].tolist() == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP"]
    assert set(answers.frame["Change"]) == {"same"}


def test_an_undecided_leader_does_not_count_as_a_change() -> None:
    def of_seeds(name: str, seeds: int, small: float, large: float) -> StudyFrames:
        rows = [
            trial_row((8192, "all", architecture, "clip"), 2e11, seed, error + 0.001 * seed)
            for architecture, error in (("ViT-X", small), ("ViT-M", large))
            for seed in range(seeds)
        ]
        return StudyFrames(name=name, metric=METRIC, results=pd.DataFrame(rows))

    def changes(*studies: StudyFrames) -> list[str]:
        return compare(studies)[0].frame["Change"].tolist()

    one, other = of_seeds("one", 1, 0.3, 0.5), of_seeds("other", 1, 0.5, 0.3)
    sure, unlike = of_seeds("sure", 3, 0.3, 0.5), of_seeds("unlike", 3, 0.5, 0.3)
    assert changes(one, other) == ["undecided in both"]
    assert changes(sure, other) == ["undecided in other"]
    assert changes(other, sure) == ["undecided in other"]
    assert changes(sure, other, unlike, one) == ["other: undecided in other; unlike: changed; one: same"]


@pytest.mark.slow
def test_a_study_has_the_verdicts_of_its_own_report(frames: StudyFrames, analysed: Analysis) -> None:
    whole = analysed.best
    place = whole["verdict"].tolist().index("clear")
    level, leader = whole["budget"].iloc[place], whole["architecture"].iloc[place]
    other = (frames.results["level_flops"] == level) & (frames.results["architecture"] != leader)
    some = frames.results[~frames.results["trial"].isin(frames.results[other]["trial"].head(3))]
    half = replace(frames, name="half", results=some)

    answers, _, _ = compare([frames, half])

    said = answers.frame["half"].str.extract(r"\((\w+)\)$")[0].tolist()
    assert said == analyse(half).best["verdict"].tolist()
    assert said[place] == "clear", "a third of another's seeds is missing"
