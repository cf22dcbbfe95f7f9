"""Figures draw exactly their data frame, and the CSV holds the same frame."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.charts.figure_data import FigureData, Missing
from analysis.drawing.draw import draw
from analysis.drawing.places import dodged
from analysis.drawing.save import helpers, save, save_all
from analysis.report.analyse import Analysis, analyse
from analysis.report.figures import report_figures
from tests.analysis.synthetic import study

pytestmark = pytest.mark.slow

NAMES = [
    "hero", "error-compute-architecture", "error-compute-strategy", "error-data", "quality", "isoflop",
    "matters", "error-epochs", "equivalence-compute", "shift", "forecasts", "training-loss", "midway", "plan",
]  # fmt: skip


def figures_of(frames: StudyFrames) -> tuple[FigureData | Missing, ...]:
    return report_figures(analyse(frames))


def supported(figures: Iterable[FigureData | Missing]) -> dict[str, FigureData]:
    """Return the figures that the data support, by name."""
    return {figure.name: figure for figure in figures if isinstance(figure, FigureData)}


@pytest.fixture(scope="module")
def drawn(analysed: Analysis) -> dict[str, FigureData]:
    return supported(report_figures(analysed))


def test_a_full_study_supports_every_figure(drawn: dict[str, FigureData]) -> None:
    assert list(drawn) == NAMES
    assert all(data.finding for data in drawn.values())
    assert set(drawn["training-loss"].frame["series"]) <= set(drawn["training-loss"].order)
    assert set(drawn["midway"].frame["series"]) == set(drawn["midway"].families)
    apart = {*drawn["shift"].frame["series"]} - {*drawn["shift"].order}
    assert apart == {"", "FLIP (50 %)", "SLIP", "CLIP + crop and flip"}


def test_error_during_training_ends_at_the_result(drawn: dict[str, FigureData], frames: StudyFrames) -> None:
    lines = drawn["midway"].frame
    ends = frames.results.set_index("trial")

    for trial, line in lines.groupby("line"):
        top1, flops = (float(ends[name][str(trial)]) for name in ("held-out/top1", "train_flops"))
        assert line["x"].tolist() == pytest.approx([flops / 4, flops / 2, flops])
        assert line["y"].tolist() == pytest.approx([100 * (1 - top1 / over) for over in (4, 2, 1)])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plan"])
def test_what_is_drawn_is_what_the_csv_holds(name: str, drawn: dict[str, FigureData], tmp_path: Path) -> None:
    save(drawn[name], tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".svg", ".pdf", ".csv", ".txt"}
    assert b"/FontFile2" in (tmp_path / f"{name}.pdf").read_bytes()
    assert drawn[name].caption in (tmp_path / f"{name}.txt").read_text(encoding="utf-8")
    written = pd.read_csv(tmp_path / f"{name}.csv")
    np.testing.assert_allclose(written[["x", "y"]], drawn[name].frame[["x", "y"]], rtol=1e-5)
    held = dodged(drawn[name])[["x", "y"]].to_numpy()
    lines = [line for axes in draw(drawn[name]).axes for line in axes.get_lines()]
    seen = np.concatenate([np.column_stack(line.get_data()).astype(float) for line in lines])
    assert {tuple(point) for point in seen.round(9)} == {tuple(point) for point in held.round(9)}


def test_one_seed_draws_hollow_stars_without_intervals_and_no_frontier() -> None:
    drawn = supported(figures_of(study(seeds=1)))
    assert not {"law", "extrapolation", "best"} & {*drawn["hero"].frame["mark"]}
    data = drawn["error-compute-architecture"]
    marks = data.frame.groupby("mark")
    assert "best" not in marks.groups
    assert "law" not in marks.groups, "three levels don't show the noise of single runs"
    assert marks.get_group("point")[["low", "high"]].isna().all(axis=None)
    assert data.finding.startswith("No budget has a clear winner")


def test_what_is_not_supported_is_missing_with_a_reason(frames: StudyFrames) -> None:
    alone = frames.results.query("strategy == 'clip' and architecture == 'ViT-X' and quality == 'all'")
    cut = replace(frames, results=alone, curves=pd.DataFrame())
    figures = figures_of(cut)
    missing = {figure.title: figure.reason for figure in figures if isinstance(figure, Missing)}
    assert set(supported(figures)) == {
        "hero", "error-compute-architecture", "forecasts", "midway", "plan"
    }  # fmt: skip
    assert len(missing) == 15
    assert all(missing.values())
    assert (
        missing["Error against data size and repetition"]
        == "no two finished trials differ only in the number of pairs"
    )
    assert "a profile needs three" in missing["IsoFLOP profiles: error against model size"]
    assert "text_to_image_r1" in missing["Retrieval"]


def test_the_plan_is_drawn_only_if_the_run_differed_from_it(frames: StudyFrames, analysed: Analysis) -> None:
    whole = replace(analysed, study=replace(frames, left_out=frames.left_out[:0]))
    names = set(supported(report_figures(whole)))
    assert "plan" not in names


def test_the_same_data_give_the_same_files_in_any_process(
    drawn: dict[str, FigureData], tmp_path: Path
) -> None:
    names = ["hero", "plan", "quality", "error-data"]
    texts = []
    for count in (0, 1):
        folder = tmp_path / str(count)
        folder.mkdir()
        with helpers(count) as pool:
            texts.append(save_all([drawn[name] for name in names], folder, pool))
    assert list(texts[0]) == names
    assert texts[0] == texts[1]
    alone, together = (sorted((tmp_path / count).iterdir()) for count in "01")
    assert [path.name for path in alone] == [path.name for path in together]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(alone, together, strict=True))
