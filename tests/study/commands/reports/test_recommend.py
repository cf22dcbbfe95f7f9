"""``recommend`` from the paper's figures and from a study's results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from analysis.cells.table import records
from analysis.report.answer_frames import FRAMES, RECOMMENDATION
from runners.results import RESULT_COLUMNS, to_frame
from study.declare import shipped_studies
from study.declare.load import load_declaration
from study.state.book import Book
from study.state.study import find_study
from tests.analysis.synthetic import study
from tests.study.conftest import Run

pytestmark = pytest.mark.slow

PRIOR = "recommend --prior paper-one-epoch --pairs"
SMALL = "recommend small-full --why --flops"


@pytest.mark.parametrize(
    ("flops", "architecture"), [("5e18", "ViT-Ti/16"), ("4e19", "ViT-B/32"), ("1e21", "ViT-L/16")]
)
def test_the_papers_frontier_is_named(flops: str, architecture: str, run: Run) -> None:
    first, *_, last = run(f"{PRIOR} 3.4B --flops {flops}").splitlines()
    assert f": {architecture}, CLIP" in first
    assert "figure 8b, digitised, as a prior, for a pool of 3,400,000,000 pairs" in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{PRIOR} 3.4B --flops 1e12", "all its budgets are above 1 TFLOP"),
        ("recommend small-full --flops 1e16 --pairs 32768", "budgets end more than 30 times from this one"),
        (f"{PRIOR} 0 --flops 1e18", "study: pairs must be at least 1; found 0"),
        (f"{PRIOR} 3.4B --flops '1e20 FLIP'", "--flops: '1e20 FLIP': unknown unit of compute 'FLIP'"),
        (f"{PRIOR} abc --flops 1e18", "study: --pairs: 'abc' is not a number"),
        (f"{PRIOR} 20% --flops 1e18", "study: --pairs 20%: a table has no pool to take"),
        (f"{PRIOR} 3.4B --error 30", "below 100 %, such as 30%; found 3000.0 %"),
        (
            f"{PRIOR} 3.4B --error 3%",
            "no compute reaches error 3.0 % with 3,400,000,000 pairs: the lowest is",
        ),
        ("recommend small --pairs 1k --flops 1e12 --at-most 9k", "can be deployed: the nearest is mini-"),
        (
            "recommend small --pairs 1k --flops 1e12 --at-most small",
            "study: at most: 'small' is not a number",
        ),
        ("recommend small --pairs 1k --flops 1e12 --images -1", "study: --images: '-1' is negative"),
        (f"{PRIOR} 3.4B --flops 1e20 --images 1M", "can be deployed: what "),
        ("recommend --pairs 20% --flops 1e20", "give either a study or --prior MAP"),
        ("recommend --prior papre-one-epoch --pairs 1M --flops 1e20", "did you mean 'paper-"),
        ("recommend demo --results nowhere --pairs 1M --flops 1e20", "has no results; run"),
    ],
)
def test_impossible_recommendations_give_the_reason(words: str, message: str, run: Run) -> None:
    assert message in run(words, code=2)


def test_recommendations_use_a_studys_own_results(tmp_path: Path, run: Run) -> None:
    frames = study(levels=tuple(np.geomspace(2e11, 1e13, 5)))
    results = frames.results.assign(
        precision="fp32", trunk="", attempt=1, paid_flops=frames.results["train_flops"], evaluation_version=1
    )
    demo = find_study(load_declaration(shipped_studies()["demo"]), results=str(tmp_path), pools=None)
    demo.folder.mkdir()
    demo.write_table("results.parquet", to_frame(records(results), RESULT_COLUMNS))
    demo.write_table("plan.parquet", frames.plan)
    demo.write_table("left-out.parquet", frames.left_out)
    Book().write(demo)
    words = f"recommend demo --results {tmp_path} --why --flops"
    said = run(f"{words} 30TFLOP --pairs 8192")
    assert said.startswith("30 TFLOP: ")
    assert "\n  3 × from its own runs\n" in said
    # The same by the share of the pool, which has 8,192 pairs.
    assert run(f"{words} 30TFLOP --pairs 100%") == said

    # What the plan has and was not run takes part by its draws.
    ended = results[results["architecture"] != "ViT-M"]
    demo.write_table("results.parquet", to_frame(records(ended), RESULT_COLUMNS))
    lines = run(f"{words} 10TFLOP --pairs 8192").splitlines()
    assert any("ViT-M, CLIP, 3,276 pairs, top 40 %" in line and "; never run" in line for line in lines)


def test_an_error_takes_the_least_compute_in_words_and_for_programs(run: Run) -> None:
    words = "recommend small --pairs 32768 --error 55%"
    takes, leader, *_ = run(words).splitlines()
    assert re.fullmatch(r"error 55\.0 % takes \S+ TFLOP \[.*\] of training", takes)
    content = json.loads(run(f"{words} --json"))
    assert list(content) == [*RECOMMENDATION.columns]
    assert [*content["candidates"][0]] == [*FRAMES["recommend"].columns]
    least = content["least_compute"]
    assert least["low"] < least["flops"] == content["flops"] < least["high"]
    assert content["leader"] == content["candidates"][0]["name"] in leader
    assert content["error"] == content["candidates"][0]["error"] == pytest.approx(0.55, rel=1e-3)
    assert json.loads(run("recommend small --pairs 32768 --flops 1e12 --json"))["least_compute"] is None


def test_what_a_model_serves_counts_with_its_training(run: Run) -> None:
    words = "recommend small --pairs 32768 --error 60%"
    never = json.loads(run(f"{words} --images 0 --json"))
    assert never == json.loads(run(f"{words} --json"))
    served = json.loads(run(f"{words} --images 1M --texts 100 --json"))
    leader = served["candidates"][0]
    assert served["flops"] == pytest.approx(leader["flops"] + leader["serving_flops"], rel=1e-3)
    assert served["flops"] > never["flops"]
    takes, _, cost, *_ = run(f"{words} --images 1M --texts 100").splitlines()
    assert takes.endswith(" of training and serving")
    assert re.fullmatch(r"  training takes \S+ \wFLOP, serving \S+ TFLOP", cost)
    small = json.loads(run(f"{words.replace('60', '70')} --at-most '10 MFLOP' --json"))
    assert {row["architecture"] for row in small["candidates"]} < {
        row["architecture"] for row in never["candidates"]
    }


def test_a_level_is_reached_with_tolerance(run: Run) -> None:
    at, below = (run(f"{SMALL} {flops} --pairs 32768").splitlines() for flops in ("5.4e12", "5.39e12"))
    assert at[0].startswith("5.4 TFLOP: mini-ViT-XS-8, FLIP (50 %), 13,108 pairs, top 40 %: error 52.")
    assert at[0].endswith(", tie of 2")
    assert (at[0].partition(": ")[2], at[1]) == (below[0].partition(": ")[2], "  measured here")
    assert at[4:] == below[4:]
    assert sum(line.endswith("measured here") for line in at) == 1 + 1


def test_a_pool_larger_than_any_measured_is_reported(run: Run) -> None:
    (about_data,) = re.findall(r"^  data: (.+)$", run(f"{SMALL} 5.4e12 --pairs 10M"), re.MULTILINE)
    assert "305 times as large as the largest measured (32,768 pairs)" in about_data
    assert "\n  data: " not in run(f"{SMALL} 5.4e12 --pairs 32768")


def test_a_small_pool_is_advised_fewer_pairs_of_what_was_run_with_more(run: Run) -> None:
    lines = run(f"{SMALL} 5.4e12 --pairs 4096").splitlines()
    assert lines[1] == "  by the law from 13,108 pairs, 8 × from its own runs"
    assert lines[2].endswith(" of the draws, 8 × from its own runs")
    assert lines[3] == "  next: to confirm, run mini-ConvNeXt, CLIP, 1,639 pairs, top 40 % at 5.4 TFLOP"
    assert "  not read (10 configurations): needs a pool of 32,768 pairs" in lines
