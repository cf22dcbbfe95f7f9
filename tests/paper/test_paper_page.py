"""``report --paper``: figures of the paper's digitised tables, alone and beside a study's."""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from analysis.charts.figure_data import FigureData
from analysis.report.paper import ACCURACIES, PANELS, READERS, PaperFigure, paper_figures, write_paper_page
from runners.data.build.table_file import read_any_table
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map
from tests.root import ROOT

pytestmark = pytest.mark.slow

SMALL = ROOT / "results" / "small" / "report" / "figures"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return read_any_table(PAPER_FIGURES)


@pytest.fixture(scope="module")
def figures(table: pd.DataFrame) -> tuple[PaperFigure, ...]:
    return paper_figures(table, {name: load_column_map(find_column_map(name)) for name in READERS})


@pytest.fixture(scope="module")
def drawn(figures: tuple[PaperFigure, ...]) -> Mapping[str, FigureData]:
    found = {figure.data.name: figure.data for figure in figures if isinstance(figure.data, FigureData)}
    assert len(found) == len(figures) == 19
    return found


def test_every_panel_is_drawn_or_listed_as_not_drawn(
    table: pd.DataFrame, figures: tuple[PaperFigure, ...]
) -> None:
    digitised = table[table["source"] == "digitised"]
    held = set(digitised["figure"].astype(str) + digitised["panel"])
    assert {panel for figure in figures for panel in figure.panels} == held == set(PANELS)
    template = (ROOT / "analysis" / "report" / "templates" / "paper.html.j2").read_text(encoding="utf-8")
    listed = {panel for line in re.findall(r"<li>(.+?): ", template) for panel in line.split(", ")}
    assert not listed & held
    numbers = {int(re.match(r"\d+", panel)[0]) for panel in held | listed}  # type: ignore[index]
    assert numbers == set(range(1, 28)), "the paper has 27 figures"


def test_every_reading_is_a_point(table: pd.DataFrame, figures: tuple[PaperFigure, ...]) -> None:
    for figure in figures:
        # What follows from readings, data worth and accuracy on two sets, has other values than they.
        if not isinstance(figure.data, FigureData) or figure.data.name.endswith(
            ("shift", "equivalence-data")
        ):
            continue
        read = [
            100 - y if panel in ACCURACIES else y
            for panel in figure.panels
            for y in table[
                (table["figure"].astype(str) + table["panel"] == panel) & (table["source"] == "digitised")
            ]["y"]
        ]
        marks = figure.data.frame[figure.data.frame["mark"].eq("point")]
        assert sorted(marks["y"].round(6)) == sorted(round(y, 6) for y in read), figure.data.title


def test_quality_is_drawn_in_both_regimes(drawn: Mapping[str, FigureData]) -> None:
    frame = drawn["figure-5a-5b-quality"].frame
    points = frame[frame["mark"] == "point"].set_index(["panel", "series"])["y"]
    assert points["equal samples", "top 40 %"] == pytest.approx(34.36, abs=0.005)
    assert points["one epoch"].idxmin() == "top 60 %"
    assert drawn["figure-6a-6b-6c-6d-quality"].frame["panel"].nunique() == 4


def test_a_doubtful_reading_says_why(drawn: Mapping[str, FigureData]) -> None:
    assert "treat regime as unclear" in drawn["figure-14a-error-data-architecture"].caption
    assert "mean over 6 variants" in drawn["figure-9a-9b-shift"].caption


def test_the_page_lists_drawn_and_undrawn_figures_and_those_of_a_study(
    tmp_path: Path, figures: tuple[PaperFigure, ...]
) -> None:
    few = [figure for figure in figures if figure.kind in ("quality", "error-data-architecture")]

    page = write_paper_page(tmp_path / "paper", few, study="small", theirs=SMALL).read_text("utf-8")

    assert page.count("<h3>The paper</h3>") == page.count("<h3>small</h3>") == 2
    assert page.count("<svg") == 3
    assert "small does not support this figure" in page
    assert "16a, 16b: training strategies in one epoch" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r"https?://(?!www\.w3\.org)", page)
    for link in re.findall(r'href="(figures/[^"]+)"', page):
        assert (tmp_path / "paper" / link).exists(), link
