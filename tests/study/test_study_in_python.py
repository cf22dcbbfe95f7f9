"""Studies opened in Python: documented frames, figures to restyle, and the example notebook."""

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.labels import strategy_text
from analysis.report.answer_frames import FRAMES
from study import Study
from tests.root import ROOT
from tests.study.tiny_study import shipped_copy

pytestmark = pytest.mark.slow

mpl.use("agg")


@pytest.fixture(scope="module")
def small() -> Study:
    return Study.open("small", results=ROOT / "results")


@pytest.fixture(scope="module")
def full() -> Study:
    return Study.open("small-full", results=ROOT / "results")


def test_every_frame_has_exactly_its_documented_columns(small: Study) -> None:
    for name, (_, columns) in FRAMES.items():
        frame = getattr(small, name)
        assert list(frame.columns) == list(columns), name
        assert len(frame), name
        # A column that a frame does not have would be filled with NaN.
        filled = frame.notna().any()
        assert set(filled[~filled].index) <= {"exponent", "low", "high"}, name


def test_the_best_are_those_of_the_report(full: Study) -> None:
    assert full.best["architecture"].tolist() == ["mini-ConvNeXt"] * 3 + ["mini-ViT-XS-8"]
    assert full.best["verdict"].tolist() == ["clear"] * 3 + ["tie"]
    assert full.best["error"].tolist() == pytest.approx([0.698, 0.595, 0.559, 0.519], abs=0.01)
    assert full.tables["best"]["Error (%)"].tolist() == [f"{100 * error:.1f}" for error in full.best["error"]]


def test_the_adaptive_study_finds_the_best_of_the_full_grid_for_less(small: Study, full: Study) -> None:
    frontier = small.analysis.best.to_dict("records")
    assert [row["budget"] for row in frontier] == full.best["budget"].tolist()
    keys = ["architecture", "strategy", "quality"]
    for row, leader in zip(frontier, full.best.to_dict("records"), strict=True):
        named = f"{leader['architecture']}, {strategy_text(leader['strategy'])}, "
        if row["verdict"] == "tie":
            assert named in row["tied"]
        else:
            assert (row["verdict"], *(row[key] for key in keys)) == ("clear", *(leader[key] for key in keys))

    spent, whole = (each.results["paid_flops"].sum() for each in (small, full))
    assert spent <= 0.4 * whole


def test_a_figure_is_a_matplotlib_figure_of_the_listed_marks(small: Study) -> None:
    figure = small.figure("isoflop")
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xscale() == "log"
    assert set(small.figure_data("isoflop")["mark"]) >= {"point"}
    with pytest.raises(ValueError, match=r"unknown figure 'isoflops'.*isoflop"):
        small.figure("isoflops")


def test_a_file_opens_the_study_in_its_storage_and_a_name_that_in_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results" / "small", "shared/results/small")
    other = shipped_copy("small", Path("results"))
    other.write_table("results.parquet", other.read_table("results.parquet").iloc[1:])
    text = Path("shared/results/small/study.yaml").read_text(encoding="utf-8")
    Path("mine.yaml").write_text(f"storage: {tmp_path}/shared\n{text}", encoding="utf-8")

    of_file, of_name = Study.open("mine.yaml"), Study.open("small")

    assert len(of_file.results) == len(Study.open("small", results="shared/results").results)
    assert len(of_name.results) == len(Study.open("mine.yaml", results="results").results)
    assert len(of_file.results) > len(of_name.results)


def test_a_study_that_is_not_found_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Study.open\('smal', results='\S+'\): .*did you mean 'small'"):
        Study.open("smal", results=tmp_path)
    declaration = tmp_path / "mine.yaml"
    shutil.copy(ROOT / "results" / "small" / "study.yaml", declaration)
    with pytest.raises(ValueError, match=r"mine.yaml', results='\S+'\): \S+/small has no results"):
        Study.open(str(declaration), results=tmp_path)
    with pytest.raises(ValueError, match=r"^Study.open\('none.yaml', results=None\): "):
        Study.open("none.yaml")


def test_the_example_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "results" / "small", tmp_path / "results" / "small")
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "figures-for-a-paper.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)  # noqa: S102 (our own notebook)
    assert {path.name for path in Path("paper-figures").iterdir()} == {
        "best.tex", "figure-1.pdf", "figure-2.pdf",
    }  # fmt: skip
    assert isinstance(names["laws"], pd.DataFrame)
    assert len(names["laws"]) >= 5
