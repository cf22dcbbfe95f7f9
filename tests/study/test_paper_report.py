"""``report --paper``: the paper's digitised tables, drawn as a study is, and beside one."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from study.cli import main
from study.load import find_declaration, load_declaration
from study.reporting import report_paper
from study.study import Study
from tests.study.shown import ROOT

FIGURES = {
    "error-compute-architecture",
    "error-data",
    "error-data-architecture",
    "quality",
    "equivalence-data",
}


def test_the_paper_is_drawn_from_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--paper", "--results", str(tmp_path)]) == 0

    folder = tmp_path / "paper-figures"
    assert capsys.readouterr().out == f"the paper's figures: {folder / 'paper.html'}\n"
    assert {path.stem for path in (folder / "figures").glob("*.pdf")} == FIGURES
    quality = pd.read_csv(folder / "figures" / "quality.csv")
    points = quality[quality["mark"] == "point"].set_index("label")["y"]
    assert points["top 40 %"] == pytest.approx(34.36, abs=0.005)  # figure 5b
    assert list(quality.loc[quality["mark"].str.startswith("best"), "label"]) == ["top 40 %"]
    compute = pd.read_csv(folder / "figures" / "error-compute-architecture.csv")
    assert len(compute[compute["mark"] == "point"]) == 55  # figure 8b: five models, eleven sizes
    assert not set(compute["mark"]) & {"best"}, "nothing is clear where no seeds were run"


def test_a_study_that_is_reported_stands_beside_it(tmp_path: Path) -> None:
    figures = tmp_path / "small" / "report" / "figures"
    shutil.copytree(ROOT / "results" / "small" / "report" / "figures", figures)
    small = Study(
        declaration=load_declaration(find_declaration("small")), folder=tmp_path / "small", pools=tmp_path
    )

    (said,) = report_paper(tmp_path, small)

    assert said.endswith("small/report/paper/paper.html")

    page = (tmp_path / "small" / "report" / "paper" / "paper.html").read_text(encoding="utf-8")

    assert page.count("<h3>The paper</h3>") == page.count("<h3>small</h3>") == len(FIGURES)
    assert page.count("<svg") == 2 * len(FIGURES) - page.count("The study does not support this figure.")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "http" not in re.sub(r"https?://www\.w3\.org\S*", "", page)


def test_a_report_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 2
    assert "which study? Give a declaration, or --paper" in capsys.readouterr().err
