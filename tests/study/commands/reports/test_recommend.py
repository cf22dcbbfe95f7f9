"""``recommend`` from the paper's figures and from a study's results."""

from pathlib import Path

import numpy as np
import pytest

from analysis.cells.table import records
from runners.results import RESULT_COLUMNS, to_frame
from study.cli import main
from study.declare.load import find_declaration, load_declaration
from study.state.book import Book
from study.state.study import find_study
from tests.analysis.synthetic import study

pytestmark = pytest.mark.slow

PRIOR = ["recommend", "--prior", "paper-one-epoch", "--pairs", "3.4B", "--flops"]


@pytest.mark.parametrize(
    ("flops", "architecture"), [("5e18", "ViT-Ti/16"), ("4e19", "ViT-B/32"), ("1e21", "ViT-L/16")]
)
def test_the_papers_frontier_is_named(
    flops: str, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PRIOR, flops]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f": {architecture}, CLIP" in lines[0]
    assert "figure 8b, digitised, as a prior, for a pool of 3,400,000,000 pairs" in lines[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*PRIOR, "1e12"], "all its budgets are above 1 TFLOP"),
        (
            ["recommend", "small-full", "--flops", "1e16", "--pairs", "32768"],
            "measured budgets end more than 30 times from this one",
        ),
        ([*PRIOR[:-3], "--pairs", "0", "--flops", "1e18"], "study: pairs must be at least 1; found 0"),
        ([*PRIOR, "1e20 FLIP"], "study: --flops: '1e20 FLIP': unknown unit of compute 'FLIP'"),
        ([*PRIOR[:-3], "--pairs", "abc", "--flops", "1e18"], "study: --pairs: 'abc' is not a number"),
        (
            [*PRIOR[:-3], "--pairs", "20%", "--flops", "1e18"],
            "study: --pairs 20%: a table has no pool to take",
        ),
        (["recommend", "--pairs", "20%", "--flops", "1e20"], "give either a study or --prior MAP"),
        (
            ["recommend", "--prior", "papre-one-epoch", "--pairs", "1M", "--flops", "1e20"],
            "did you mean 'paper-",
        ),
        (
            ["recommend", "demo", "--results", "nowhere", "--pairs", "1M", "--flops", "1e20"],
            "has no results; run",
        ),
    ],
)
def test_impossible_recommendations_give_the_reason(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_recommendations_use_a_studys_own_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = study(levels=tuple(np.geomspace(2e11, 1e13, 5)))
    results = frames.results.assign(
        precision="fp32", trunk="", attempt=1, paid_flops=frames.results["train_flops"], evaluation_version=1
    )
    demo = find_study(load_declaration(find_declaration("demo")), results=str(tmp_path), pools=None)
    demo.folder.mkdir()
    demo.write_table("results.parquet", to_frame(records(results), RESULT_COLUMNS))
    demo.write_table("plan.parquet", frames.plan)
    demo.write_table("left-out.parquet", frames.left_out)
    Book().write(demo)
    words = [
        "recommend",
        "demo",
        "--results",
        str(tmp_path),
        "--flops",
        "30 TFLOP",
        "--pairs",
        "8192",
        "--why",
    ]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("30 TFLOP: ")
    assert "  3 times beyond the measured budgets" in lines
    # The same by the share of the pool, which has 8,192 pairs.
    assert main([*words[:-2], "100%", "--why"]) == 0
    assert capsys.readouterr().out.splitlines() == lines

    # What the plan has and was not run takes part by its draws.
    ended = results[results["architecture"] != "ViT-M"]
    demo.write_table("results.parquet", to_frame(records(ended), RESULT_COLUMNS))
    assert main([*words[:-4], "10 TFLOP", *words[-3:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("ViT-M, CLIP, 3,276 pairs, top 40 %" in line and "; never run" in line for line in lines)


SMALL = ["recommend", "small-full", "--why", "--flops"]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main([*SMALL, *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_level_is_reached_with_tolerance(capsys: pytest.CaptureFixture[str]) -> None:
    at, below = (said(capsys, flops, "--pairs", "32768") for flops in ("5.4e12", "5.39e12"))
    assert at[0].startswith("5.4 TFLOP: mini-ViT-XS-8, FLIP (50 %), 13,108 pairs, top 40 %: error 52.")
    assert at[0].endswith(", tie of 2")
    assert (at[0].partition(": ")[2], at[1]) == (below[0].partition(": ")[2], "  measured here")
    assert at[4:] == below[4:]
    assert sum(line.endswith("measured here") for line in at) == 1 + 3


def test_a_pool_larger_than_any_measured_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "5.4e12", "--pairs", "10M")
    about_data = [line for line in lines if line.startswith("  data: ")]
    assert len(about_data) == 1
    assert "305 times as large as the largest measured (32,768 pairs)" in about_data[0]
    assert not any(line.startswith("  data: ") for line in said(capsys, "5.4e12", "--pairs", "32768"))


def test_a_small_pool_is_advised_fewer_pairs_of_what_was_run_with_more(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = said(capsys, "5.4e12", "--pairs", "4096")
    assert lines[1] == "  by the law from 13,108 pairs, within the measured budgets"
    assert lines[2].endswith(" of the draws, but it was not run here")
    assert lines[3] == "  to decide: run mini-ConvNeXt, CLIP, 1,639 pairs, top 40 % at 5.4 TFLOP"
    assert "  not read (10 configurations): needs a pool of 32,768 pairs" in lines
