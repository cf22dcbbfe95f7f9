"""Studies opened in Python: documented frames, figures to restyle, and the example notebook."""

import doctest
import json
import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from analysis.labels import strategy_text
from analysis.report.answer_frames import FRAMES
from budgets.quantity import format_share
from docs.build.notebook import NOTEBOOK, run
from runners.results import PHASE, TRUNK, read_table
from study import Study
from tests.root import ROOT
from tests.study.tiny_study import shipped_copy

pytestmark = pytest.mark.slow

mpl.use("agg")

NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def small() -> Study:
    return Study("small", results=ROOT / "results")


@pytest.fixture(scope="module")
def full() -> Study:
    return Study("small-full", results=ROOT / "results")


def test_every_frame_has_exactly_its_documented_columns(small: Study) -> None:
    asked = {
        "best": small.best().frame, "recommend": small.recommend(flops="10 TFLOP", pairs=32768).frame
    }  # fmt: skip
    for name, documented in FRAMES.items():
        frame = asked[name] if name in asked else getattr(small, name)
        assert list(frame.columns) == list(documented.columns), name
        assert len(frame), name
        # A column that a frame does not have would be filled with NaN.
        filled = frame.notna().any()
        assert set(filled[~filled].index) <= {"exponent", "low", "high"}, name


def test_the_best_are_those_of_the_report(full: Study) -> None:
    best = full.best().frame
    assert best["architecture"].tolist() == ["mini-ConvNeXt"] * 3 + ["mini-ViT-XS-8"]
    assert best["verdict"].tolist() == ["clear"] * 3 + ["tie"]
    assert best["error"].tolist() == pytest.approx([0.698, 0.595, 0.559, 0.519], abs=0.01)
    assert full.tables["best"]["Error (%)"].tolist() == [f"{100 * error:.1f}" for error in best["error"]]


def test_the_adaptive_study_finds_the_best_of_the_full_grid_for_less(small: Study, full: Study) -> None:
    frontier = small.analysis.best.to_dict("records")
    assert [row["budget"] for row in frontier] == full.best().frame["budget"].tolist()
    keys = ["architecture", "strategy", "quality"]
    for row, leader in zip(frontier, full.best().frame.to_dict("records"), strict=True):
        named = f"{leader['architecture']}, {strategy_text(leader['strategy'])}, "
        if row["verdict"] == "tie":
            assert named in row["tied"]
        else:
            assert (row["verdict"], *(row[key] for key in keys)) == ("clear", *(leader[key] for key in keys))

    spent, whole = (each.results["paid_flops"].sum() for each in (small, full))
    assert spent <= 0.4 * whole


def test_the_page_on_python_shows_what_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").symlink_to(ROOT / "results")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```pycon\n(.*?)```", page, re.DOTALL))
    shown = doctest.DocTestParser().get_doctest(blocks, {}, "docs/python.md", "docs/python.md", 0)
    differs: list[str] = []
    runner: Any = doctest.DocTestRunner()
    ran = runner.run(shown, out=differs.append)
    assert ran.attempted > 15
    assert not ran.failed, "".join(differs)


def test_what_the_pages_say_of_the_shipped_studies_is_what_they_hold(small: Study) -> None:
    pages = {
        name: " ".join((ROOT / name).read_text(encoding="utf-8").split())
        for name in ("README.md", "CHANGELOG.md", "docs/report.md")
    }
    results = {
        name: read_table(ROOT / "results" / name / "results.parquet") for name in ("small", "small-trunk")
    }
    spent = {name: rows["paid_flops"].sum() for name, rows in results.items()}
    runs, grid = map(len, results.values())
    states = (results["small"][PHASE] == TRUNK).sum()
    share = format_share(spent["small"] / spent["small-trunk"])
    chosen = f"chose {runs} of {grid} trials, {states} of them states of trunks, and spent {share} of what"
    assert chosen in pages["README.md"]
    assert f"`small` needs {share} of the compute of its whole grid" in pages["CHANGELOG.md"]
    told = re.findall(r"[\d.]+ [GT]FLOP: mini-.*?, (?:clear|tie|undecided)", pages["docs/report.md"])
    assert told
    assert {*told} <= {*str(small.best()).splitlines()}


def test_an_answer_is_asked_by_the_budget_and_shown_as_the_reports_table(small: Study) -> None:
    (line,) = small.best(5.4e12).lines
    assert line == small.best("5.4TFLOP").lines[0] == small.best("5400 GFLOP").lines[0]
    assert line == str(small.best()).splitlines()[-1]
    html = small.best("5.4 TFLOP")._repr_html_()
    assert html.count("<tr") == 2
    assert "<td>[49.3, 53.4]</td>" in html
    advice = small.recommend(flops=5.4e12, pairs="32,768")
    assert advice.lines == small.recommend(flops="5.4 TFLOP", pairs=32768).lines
    assert advice.table.frame["Configuration"][0] in advice._repr_html_()
    assert "<td>5.4 TFLOP</td>" in small._repr_html_()
    ahead = small.forecast(flops=2e13).frame.iloc[0]
    assert ahead["low"] < ahead["error"] < advice.frame["error"].iloc[0]
    mistakes: Any = (
        (lambda: small.best("5 TFLOP"), "unknown budget '5 TFLOP'; did you mean '5.4 TFLOP'"),
        (lambda: small.recommend(flops="5 TFLIP", pairs=9), "flops: '5 TFLIP': unknown unit of compute"),
        (lambda: small.forecast(flops=0), "flops must be at least 1; found 0"),
    )
    for ask, said in mistakes:
        with pytest.raises(ValueError, match=re.escape(said)):
            ask()


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
    other.write_table("results.parquet", other.read_table("results.parquet").query("level_flops > 2e11"))
    text = Path("shared/results/small/study.yaml").read_text(encoding="utf-8")
    Path("mine.yaml").write_text(f"storage: {tmp_path}/shared\n{text}", encoding="utf-8")

    of_file, of_name = Study("mine.yaml"), Study("small")

    assert len(of_file.results) == len(Study("small", results="shared/results").results)
    assert len(of_name.results) == len(Study("mine.yaml", results="results").results)
    assert len(of_file.results) > len(of_name.results)


def test_a_study_that_is_not_found_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Study\('smal', results='\S+'\): .*did you mean 'small'"):
        Study("smal", results=tmp_path)
    declaration = tmp_path / "mine.yaml"
    shutil.copy(ROOT / "results" / "small" / "study.yaml", declaration)
    with pytest.raises(ValueError, match=r"mine.yaml', results='\S+'\): \S+/small has no results"):
        Study(str(declaration), results=tmp_path)
    with pytest.raises(ValueError, match=r"^Study\('none.yaml', results=None\): "):
        Study("none.yaml")


def test_the_example_notebook_gives_the_outputs_that_it_stores_and_writes_its_files(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "small", tmp_path / "results" / "small")
    stored, fresh = (json.loads(NOTEBOOK.read_text(encoding="utf-8")) for _ in range(2))

    names = run(fresh, tmp_path)

    for old, new in zip(texts(stored), texts(fresh), strict=True):
        assert NUMBER.sub("#", old) == NUMBER.sub("#", new)
        assert [float(each) for each in NUMBER.findall(old)] == pytest.approx(
            [float(each) for each in NUMBER.findall(new)], rel=0.1, abs=0.1
        )
    written = {path.name: path.read_bytes() for path in (tmp_path / "paper-figures").iterdir()}
    assert set(written) == {"best.tex", "figure-1.pdf", "figure-2.pdf"}
    cells = names["best"].to_numpy().ravel()
    table = written["best.tex"].decode().replace("\\%", "%")
    assert all(cell in table for cell in cells)
    for number, figure in enumerate((names["figure"], names["own"]), start=1):
        side = b"/MediaBox [ 0 0 %d" % (72 * figure.get_figwidth())
        assert side in written[f"figure-{number}.pdf"]
        require_legible(figure)


def texts(notebook: dict[str, Any]) -> list[str]:
    """Return what the cells print and show as text; addresses and sizes of figures are not compared."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    return [output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs]


def require_legible(figure: Figure) -> None:
    """Nothing of the figure is clipped, and no label of an axis's ticks overlaps another."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 <= box.y0
    assert box.x1 <= width
    assert box.y1 <= height
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        low, high = axis.get_view_interval()
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        labels = [tick.label1 for tick in ticks if low <= tick.get_loc() <= high and tick.label1.get_text()]
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
