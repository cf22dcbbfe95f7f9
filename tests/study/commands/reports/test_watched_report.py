"""``report --watch``, a page that follows a run, and the options that go with one study."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from budgets.declaration.data_sections import DeclaredPool
from runners.results import RESULT_COLUMNS, to_frame, write_table
from study.cli import main
from study.show import study_report
from tests.root import ROOT
from tests.study.conftest import Run
from tests.study.tiny_study import rewrite, shipped_copy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

OLD = '<p class="so-far">Not finished: 3 of 156 trials have a result'


def test_a_watched_page_follows_the_results_and_reloads_itself_until_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = shipped_copy("small-full", tmp_path, "curves.parquet")
    folder, whole = study.folder, study.read_table("results.parquet")
    pages: list[str] = []

    def show(rows: pd.DataFrame) -> None:
        study.write_table("results.parquet", rows)

    # The run: three trials have a result, then six; at the third look it has ended.
    show(whole.iloc[:3])
    looks = iter(["host 1", "host 1", None])

    def sleep(_: float) -> None:
        pages.append((folder / "report" / "report.html").read_text(encoding="utf-8"))
        if len(pages) == 1:
            show(whole.iloc[:6])

    monkeypatch.setattr(study_report, "active_run", lambda _: next(looks))
    monkeypatch.setattr("study.show.study_report.time.sleep", sleep)

    assert main(["report", "small-full", "--results", str(tmp_path), "--watch"]) == 0

    assert len(pages) == 2
    assert OLD in pages[0]
    assert OLD.replace("3 of", "6 of") in pages[1]
    assert all('<meta http-equiv="refresh" content="30">' in page for page in pages)
    last = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in last
    assert capsys.readouterr().out.splitlines()[-1].endswith("report.html; no run is active")


def test_before_the_first_result_a_report_names_no_version_of_the_evaluation(
    tmp_path: Path, run: Run
) -> None:
    study = shipped_copy("small", tmp_path)
    study.write_table("results.parquet", to_frame([], RESULT_COLUMNS))

    said = run(f"report small --results {tmp_path}")

    assert "no trial has finished" in said
    assert "differ by rounding" not in (study.folder / "report" / "report.html").read_text(encoding="utf-8")


def test_a_report_does_not_show_the_password_of_a_pools_url(tmp_path: Path, run: Run) -> None:
    study, url = shipped_copy("small", tmp_path), "ftp://me:secret@host/pool"
    rewrite(replace(study, declaration=replace(study.declaration, pool=DeclaredPool(path=url))))
    (tmp_path / "of-url.yaml").write_bytes((study.folder / "study.yaml").read_bytes())

    run(f"report {tmp_path / 'of-url.yaml'} --results {tmp_path}")

    page = (study.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("ftp://me@host/pool") == 2, "in the declaration, and as the pool"
    assert "secret" not in page


def test_watching_without_a_study_that_runs_here_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--paper", "--watch"]) == 2
    assert "--watch takes a study that runs here" in capsys.readouterr().err


def test_two_studies_are_compared_in_a_folder_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("small-full", "again"):
        shutil.copytree(
            ROOT / "results" / "small-full", tmp_path / name, ignore=shutil.ignore_patterns("report")
        )
    text = (tmp_path / "small-full" / "study.yaml").read_text(encoding="utf-8")
    declaration = tmp_path / "again.yaml"
    declaration.write_text(text.replace("study: small-full", "study: again"), encoding="utf-8")
    spent = tmp_path / "again" / "spent.parquet"
    write_table(spent, pd.read_parquet(spent), source="study again")
    assert main(["report", "small-full", str(declaration), "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines[:4]] == ["same"] * 4
    assert "0 of 52 cells differ by more than the noise" in lines[4]
    assert (tmp_path / "comparisons" / "small-full-vs-again" / "comparison.html").exists()
    assert main(["report", "small-full", "small-full", "--results", str(tmp_path)]) == 2
    assert "not with itself" in capsys.readouterr().err
    for name in ("..", ".", "a/b"):
        words = ["report", "small-full", str(declaration), "--results", str(tmp_path), "--name", name]
        assert main(words) == 2
        assert f"--name {name}: not the name of a folder" in capsys.readouterr().err
    assert (tmp_path / "again" / "results.parquet").exists()


def test_a_report_without_a_study_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "no study given: name a declaration, or use --paper" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("small --target far", "study: --target: 'far' is not a number"),
        ("small --target 1e12", "--target 1 TFLOP is not beyond the study's largest trial, 5.4"),
        ("--paper --target 3e18", "or use --paper alone"),
        ("small small-full --target 3e18", "--watch, --paper and --target take one study"),
        ("small --watch --target 3e18", "without --paper and --target"),
    ],
)
def test_a_target_goes_with_one_study(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words.split()]) == 2
    assert said in capsys.readouterr().err
