"""``report --watch``, a page that follows a run, and the options that go with one study."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from budgets.declaration.data_sections import DeclaredPool
from runners.results import RESULT_COLUMNS, to_frame, write_table
from study.show import study_report
from tests.study.conftest import Run
from tests.study.tiny_study import rewrite, shipped_copy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

OLD = '<p class="so-far">Not finished: 3 of 156 trials have a result'


def test_a_watched_page_follows_the_results_and_reloads_itself_until_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
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

    said = run(f"report small-full --results {tmp_path} --watch")

    assert len(pages) == 2
    assert OLD in pages[0]
    assert OLD.replace("3 of", "6 of") in pages[1]
    assert all('<meta http-equiv="refresh" content="30">' in page for page in pages)
    last = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in last
    assert said.endswith("report.html; no run is active\n")


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


def test_two_studies_are_compared_in_a_folder_of_their_own(tmp_path: Path, run: Run) -> None:
    shipped_copy("small-full", tmp_path).folder.rename(tmp_path / "again")
    shipped_copy("small-full", tmp_path)
    text = (tmp_path / "small-full" / "study.yaml").read_text(encoding="utf-8")
    declaration, results = tmp_path / "again.yaml", f"--results {tmp_path}"
    declaration.write_text(text.replace("study: small-full", "study: again"), encoding="utf-8")
    spent = tmp_path / "again" / "spent.parquet"
    write_table(spent, pd.read_parquet(spent), source="study again")
    lines = run(f"report small-full {declaration} {results}").splitlines()
    assert [line.split(": ")[1] for line in lines[:4]] == ["same"] * 4
    assert "0 of 52 cells differ by more than the noise" in lines[4]
    assert (tmp_path / "comparisons" / "small-full-vs-again" / "comparison.html").exists()
    assert "not with itself" in run(f"report small-full small-full {results}", code=2)
    for name in ("..", ".", "a/b"):
        said = run(f"report small-full {declaration} {results} --name {name}", code=2)
        assert f"--name {name}: not the name of a folder" in said
    assert (tmp_path / "again" / "results.parquet").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no study given: name a declaration, or use --paper"),
        ("--paper --watch", "--watch takes a study that runs here"),
        ("small --target far", "study: --target: 'far' is not a number"),
        ("small --target 1e12", "--target 1 TFLOP is not beyond the study's largest trial, 5.4"),
        ("--paper --target 3e18", "or use --paper alone"),
        ("small small-full --target 3e18", "--watch, --paper and --target take one study"),
        ("small --watch --target 3e18", "without --paper and --target"),
    ],
)
def test_a_target_and_a_watched_page_go_with_one_study(words: str, said: str, run: Run) -> None:
    assert said in run(f"report {words}", code=2)
