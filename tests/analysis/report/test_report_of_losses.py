"""The report of a study by a loss shows losses, with no percent sign and no points."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.charts.figure_data import FigureData
from analysis.labels import count_text
from analysis.report.analyse import Analysis, analyse
from analysis.report.figures import report_figures
from analysis.report.page import open_questions, render
from analysis.report.report_tables import report_tables
from analysis.report.summary import summary_lines

pytestmark = pytest.mark.slow

SCALE = 3.0  # nats per unit of error


@pytest.fixture(scope="module")
def by_loss(frames: StudyFrames) -> StudyFrames:
    """The simulated study, its errors turned into losses."""
    names = [name for name in frames.results if "/" in str(name)]
    results, midway = (
        table.drop(columns=names, errors="ignore").assign(
            **{"text/loss": SCALE * (1 - table["held-out/top1"])}
        )
        for table in (frames.results, frames.midway)
    )
    return replace(frames, metric="text/loss", results=results, midway=midway)


@pytest.fixture(scope="module")
def found(by_loss: StudyFrames) -> Analysis:
    return analyse(by_loss)


def test_every_table_of_a_loss_shows_the_measured_losses(found: Analysis) -> None:
    tables = {table.name: table for table in report_tables(found)}

    trials = tables["trials"].frame
    assert trials["Loss"].tolist() == [f"{loss:.4g}" for loss in found.trials.frame["error"]]
    assert tables["best"].frame["Loss"].tolist() == [f"{loss:.4g}" for loss in found.best["error"]]
    (floor,) = found.parameters.loc[found.parameters["parameter"] == "E", "value"]
    assert tables["laws"].frame["Value"].iloc[0] == f"{floor:.4g}"
    gaps = [f"{gap:.4g}" for gap in found.contrasts["gap"]]
    assert tables["contrasts"].frame["Ahead by"].tolist() == gaps
    for table in tables.values():
        shares = {"Strategy", "Configuration", "Quality", "Fixed", "Runner-up", "Best fraction", "Compared"}
        numbers = table.frame.drop(columns=shares, errors="ignore")
        said = " ".join([*numbers.columns, *numbers.astype(str).to_numpy().ravel()])
        assert " points" not in said, table.name
        assert "(%)" not in said, table.name


def test_every_figure_of_a_loss_is_drawn_in_losses(found: Analysis) -> None:
    figures = [each for each in report_figures(found) if isinstance(each, FigureData)]
    figures = [each for each in figures if each.name != "matters"]  # shares of variance, in percent
    losses = found.trials.frame["error"]
    drawn = {figure.name: figure for figure in figures}
    assert {"error-compute-architecture", "hero", "forecasts", "midway"} <= set(drawn)
    for figure in figures:
        said = f"{figure.title} {figure.x_label} {figure.y_label} {figure.caption} {figure.alt}"
        assert "(%)" not in said, figure.name
        assert not re.search(r"(?<!top )(?<![\d.(])[\d.]+ %", figure.alt), figure.name
        assert not re.search("(^error|excess error)", figure.title, re.IGNORECASE), figure.name
        assert " points" not in said.replace("end points", ""), figure.name
    for name in ("error-compute-architecture", "hero", "forecasts", "midway"):
        points = drawn[name].frame.loc[drawn[name].frame["mark"].isin(["point", "line"]), "y"]
        assert points.between(0.5 * losses.min(), SCALE).all(), name
    best = drawn["error-compute-architecture"].frame.query("mark == 'best'")
    assert set(np.round(best["y"], 9)) <= set(np.round(found.draws.cells["error"], 9))


def test_answers_by_a_loss_name_losses(found: Analysis) -> None:
    lines = summary_lines(found)
    row = found.best.iloc[-1]
    answer = next(line for line in lines if line.startswith(f"{row['at']}: {row['architecture']}"))
    assert f"{count_text(row['subset_size'])} pairs" in answer
    assert f": loss {row['error']:.4g} [{row['low']:.4g}, {row['high']:.4g}], " in answer
    said = " ".join([*lines, *open_questions(found, report_figures(found))])
    assert " points" not in said.replace("their points", "")


def test_the_page_of_a_loss_names_losses(found: Analysis) -> None:
    tables = {table.name: table for table in report_tables(found)}
    page = render(found, declaration_text="", figures=(), svgs={}, tables=tables, provenance={})
    assert f"loss {found.best['error'].iloc[-1]:.4g}" in html.unescape(page)
    assert "A winner's loss is biased low" in html.unescape(page)
