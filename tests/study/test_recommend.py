"""`recommend` from the paper's readings and from a study that has results."""

from pathlib import Path

import numpy as np
import pytest

from analysis.table import records
from runners.results import RESULT_COLUMNS, to_frame, write_table
from study.cli import main
from tests.analysis.synthetic import study

PRIOR = ["recommend", "--prior", "paper-one-epoch", "--pairs", "3.4B", "--flops"]


@pytest.mark.parametrize(
    ("flops", "architecture"), [("5e18", "ViT-Ti/16"), ("4e19", "ViT-B/32"), ("1e21", "ViT-L/16")]
)
def test_the_papers_frontier_is_recommended(
    flops: str, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PRIOR, flops]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("figure 8b, digitised, as a prior:")
    assert lines[1].startswith(f"  train {architecture}, CLIP, ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*PRIOR, "1e12"], "measured budgets end more than 30 times from this one"),
        ([*PRIOR, "1e20 FLIP"], "unknown unit of compute 'FLIP'"),
        (["recommend", "--pairs", "1M", "--flops", "1e20"], "give either a study or --prior MAP"),
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
def test_what_cannot_be_recommended_is_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_studys_own_results_are_learnt_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = study(levels=tuple(np.geomspace(2e11, 1e13, 5))).results.assign(precision="fp32")
    (tmp_path / "demo").mkdir()
    write_table(tmp_path / "demo" / "results.parquet", to_frame(records(results), RESULT_COLUMNS))
    words = ["recommend", "demo", "--results", str(tmp_path), "--flops", "30 TFLOP", "--pairs", "8192"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  train ConvNeXt-C, CLIP, 3,276 pairs, top 40 %"
    assert lines[2].endswith("], 3 times beyond the measured budgets")
    assert any(line.startswith("  runner-up: ") for line in lines)
