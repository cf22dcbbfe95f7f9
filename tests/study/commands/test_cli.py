"""Mistakes of new users give one clear error and exit code 2; correct input is shown."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from study.cli import main
from tests.study.conftest import write_declaration


@pytest.mark.parametrize(
    ("right", "wrong", "line", "message"),
    [
        ("batch_size:", "batch_sise:", 12,
         "unknown key 'training.batch_sise'; did you mean 'training.batch_"),
        ("10 TFLOP", "10 TFLIP", 5, "unknown unit of compute 'TFLIP'; did you mean 'TFLOP'?"),
        ("[mini-ViT-XXS-8]", "[mini-ViT-XSS]", 8,
         "architecture 'mini-ViT-XSS'; did you mean 'mini-ViT-XS-8'"),
        ("[clip]", "[clipp]", 9, "unknown strategy 'clipp'; did you mean 'clip'?"),
        ("top50", "best50", 10, "unknown quality 'best50'"),
        ("[0]", "[-1]", 6, "'-1' is negative"),
        ("metric: held-out/top1", "metric: top1", 4, "'top1' is not <evaluation set>/<metric>"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named_with_its_line(
    pool: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    right: str,
    wrong: str,
    line: int,
    message: str,
) -> None:
    declaration = write_declaration(tmp_path, pool)
    text = declaration.read_text()
    assert right in text
    declaration.write_text(text.replace(right, wrong))

    code = main(["plan", str(declaration)])

    error = capsys.readouterr().err
    assert code == 2
    assert f"{declaration}:{line}: " in error
    assert message in error


def test_two_mistakes_are_reported_at_once(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool, architectures="mini-ViT-XXL", strategies="flop")

    assert main(["plan", str(declaration)]) == 2

    assert capsys.readouterr().err.count(str(declaration)) == 2


def test_a_budget_that_is_too_small_says_by_how_much(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool)
    declaration.write_text(declaration.read_text().replace("study: 10 TFLOP", "study: 1 GFLOP"))

    assert main(["plan", str(declaration)]) == 2

    error = capsys.readouterr().err
    assert "the study budget is 1 GFLOP" in error
    assert "1.90" in error  # the trial costs 2.904 GFLOP


def test_a_missing_pool_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declaration = write_declaration(tmp_path, tmp_path / "nowhere")

    assert main(["plan", str(declaration)]) == 2

    assert f"no such pool: {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_a_metric_without_its_evaluation_set_lists_the_available_metrics(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool)
    declaration.write_text(declaration.read_text().replace("held-out/top1", "imagenet/top1"))

    assert main(["plan", str(declaration)]) == 2

    error = capsys.readouterr().err
    assert "unknown metric 'imagenet/top1'" in error
    assert "allowed: held-out/mean_per_class, held-out/top1, held-out/top5, retrieval/image_to" in error


def test_a_study_that_does_not_exist_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "dem"]) == 2

    assert "unknown study 'dem'; did you mean 'demo'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_study_that_was_not_run_is_an_error(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, str(write_declaration(tmp_path, pool)), "--results", str(tmp_path)]) == 2

    assert "run `python -m study run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_half_finished_study_is_reported_with_what_is_missing(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(
        tmp_path, pool, architectures="mini-ViT-XXS-8, mini-ConvNeXt", seeds="0, 1"
    )
    where = ["--results", str(tmp_path)]
    assert main(["run", str(declaration), *where, "--backend", "local", "--only", "mini-ViT-XXS-8"]) == 0
    capsys.readouterr()

    assert main(["report", str(declaration), *where]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 of 4 trials finished")
    assert "1 of 2 planned configurations finished" in lines[1]
    assert lines[2] == "no result yet: 2 trials at 3 GFLOP; see tables/missing.md"
    missing = (tmp_path / "tiny" / "report" / "tables" / "missing.md").read_text()
    assert "| 3 GFLOP | mini-ConvNeXt, CLIP, 512 pairs, top 50 % | 0, 1 | not run yet |" in missing


@pytest.mark.slow
def test_a_run_study_is_shown_and_reported(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(
        tmp_path,
        pool,
        levels="2 GFLOP, 3 GFLOP, 4 GFLOP",
        architectures="mini-ViT-XXS-8, mini-ConvNeXt",
        seeds="0, 1",
    )
    assert main(["run", str(declaration), "--results", str(tmp_path), "--backend", "local"]) == 0
    capsys.readouterr()

    assert main(["status", str(declaration), "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines() if line.lstrip().startswith("all")] == [
        ["all", "12", "0", "0", "0"]
    ]
    assert "of the study budget of 10 TFLOP" in shown
    assert "slots busy" in shown

    assert main(["report", str(declaration), "--results", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "12 of 12 trials finished" in output
    report = tmp_path / "tiny" / "report"
    page = (report / "report.html").read_text()
    best = pd.read_csv(report / "tables" / "best.csv")
    assert len(best) == 3
    assert "mini-ConvNeXt" in page
    spent = re.search(r"(\S+ \S+) spent, \d+% of the study budget", shown)
    assert spent is not None
    assert f"{spent[1]} of training, " in page, "the page and status agree to the digit"
    environment = json.loads((tmp_path / "tiny" / "environment.json").read_text())
    assert environment["torch"] in page
