"""The report of a finished, a half-finished and an unstarted study."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.cells.study_frames import StudyFrames
from analysis.report.analyse import Analysis
from analysis.report.first_screen import first_screen
from analysis.report.page import GLOSSARY, with_terms
from analysis.report.table_files import latex
from analysis.report.tables import Table
from tests.analysis.report.conftest import Written, write

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hostile report")]


class Elements(HTMLParser):
    """Parser that collects tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, page: str) -> None:
        """Parse a page."""
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def written(hostile: Written) -> tuple[Written, Elements]:
    return hostile, Elements(hostile.page.read_text(encoding="utf-8"))


def test_the_folder_holds_page_figures_and_tables(written: tuple[Written, Elements]) -> None:
    folder = written[0].page.parent
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html", "tables"]
    assert len(list((folder / "figures").glob("*.pdf"))) == 14
    assert {path.stem for path in (folder / "tables").iterdir()} == {
        "best", "matters", "contrasts", "comparisons", "laws", "isoflop", "holdout", "cost",
        "trials", "left-out", "missing", "pareto", "quality-trade", "robustness", "exponents",
    }  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["report"]


def test_the_files_that_the_page_names_are_there(written: tuple[Written, Elements]) -> None:
    summary, page = written
    named = re.findall(r"((?:figures|tables)/[\w-]+)\.\w+((?:, \.\w+)+)", page.text)
    assert len(named) > 25
    for stem, more in named:
        assert all((summary.page.parent / f"{stem}{suffix}").exists() for suffix in more.split(", ")[1:])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="texlive-latex-recommended is not installed")
def test_the_tables_compile_in_latex(written: tuple[Written, Elements], tmp_path: Path) -> None:
    odd = Table(
        name="odd", title="100 % & more", note="a_b | c # $x$ {y} ~ ^ \\", frame=pd.DataFrame({
            "α ± β": ["<×0.5", ">.99", "p ≤ 5 %"], "→": ["[1 … 2]", "“R²” – ∞", "名 é"],
        }),
    )  # fmt: skip
    tables = [*sorted((written[0].page.parent / "tables").glob("*.tex")), tmp_path / "odd.tex"]
    tables[-1].write_text(latex(odd), encoding="utf-8")
    lines = [r"\documentclass{article}", r"\usepackage{array,booktabs,longtable}", r"\begin{document}"]
    lines += [rf"\input{{{path}}}\clearpage" for path in tables]
    (tmp_path / "all.tex").write_text("\n".join([*lines, r"\end{document}"]), encoding="utf-8")
    command = [str(shutil.which("pdflatex")), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout[-2000:]
    assert ended.stdout.count("Overfull \\hbox") <= 1, "the hostile reason alone is one long word"
    assert "Missing character" not in (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")


def test_ids_are_unique_and_every_reference_leads_to_one(written: tuple[Written, Elements]) -> None:
    ids = [str(attributes["id"]) for _, attributes in written[1].tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert ("term-epochs" in ids, "term-trunk" in ids) == (True, False), "the terms that the page uses"
    for tag, attributes in written[1].tags:
        assert tag != "a" or str(attributes["href"]).startswith("#"), "the page can be mailed alone"
        links = re.findall(r"^#(.+)", attributes.get("href") or "")
        for value in attributes.values():
            links += re.findall(r"url\(#(.+?)\)", value or "")
        assert set(links) <= set(ids)


def test_every_drawing_has_an_alternative_text(written: tuple[Written, Elements]) -> None:
    images = [attributes for _, attributes in written[1].tags if attributes.get("role") in ("img", "group")]
    assert len(images) >= 7
    assert all(attributes["aria-label"] for attributes in images)


@pytest.mark.usefixtures("undrawn")
def test_no_line_breaks_before_a_percent_sign_and_the_declaration_stays_as_it_is(
    tmp_path: Path, frames: StudyFrames
) -> None:
    few = replace(frames, results=frames.results.iloc[:3])
    page = write(tmp_path / "report", few, text="share: 5 %\n").page.read_text(encoding="utf-8")
    assert "share: 5 %\n" in page
    answers = page[page.index('id="answers"') : page.index('id="figures"')]
    assert "top 40\u00a0%" in answers
    assert " %" not in answers


def test_the_summary_answers_for_each_budget(written: tuple[Written, Elements]) -> None:
    lines = written[0].lines
    assert lines[0] == "98 of 99 trials finished, 1 failed or diverged; 156 TFLOP spent"
    assert sum(not line.startswith("  ") for line in lines) == 5
    assert lines[-1] == "failed or diverged: 1 trial at 200 GFLOP; see tables/missing.md"
    leader = "200 GFLOP: ConvNeXt-C, CLIP, 3,276 pairs, top 40 %: "
    assert re.fullmatch(leader + r"error \d\d\.\d % \[.+\], clear", lines[1])
    assert lines[2].startswith("  ahead by ")
    assert lines[3] == (
        "  best of 11 configurations; not run: ConvNeXt-C, CLIP, 1,638 pairs, top 20 %; ConvNeXt-C, FLIP "
        "(50 %), 3,276 pairs, top 40 % (patch dropout needs a ViT; ConvNeXt-C has none); ConvNeXt-C, FLIP "
        "(50 %), 1,638 pairs, top 20 %; learning rates were not tuned for each"
    )


def test_the_cost_agrees_with_the_book(written: tuple[Written, Elements], frames: StudyFrames) -> None:
    gone = frames.spent[["spent_flops", "wasted_flops"]].to_numpy().sum()
    assert gone == pytest.approx(156.04e12, rel=1e-3)
    text = written[1].text
    assert "156 TFLOP of training, of a study budget of 400 TFLOP" in text
    assert "8 min, evaluation and lost attempts included" in text


def test_trials_show_their_settings_with_the_error_first(written: tuple[Written, Elements]) -> None:
    trials = pd.read_csv(written[0].page.parent / "tables" / "trials.csv", dtype=str)
    assert trials.columns[0] == "Error (%)"
    note = (written[0].page.parent / "tables" / "trials.md").read_text(encoding="utf-8")
    assert "In all rows: Learning rate 0.001; Batch 64" in note


@pytest.mark.usefixtures("undrawn")
def test_a_half_finished_study_says_what_is_missing(tmp_path: Path, frames: StudyFrames) -> None:
    half = replace(frames, results=frames.results.iloc[:30], spent=frames.spent.iloc[:31])
    summary = write(tmp_path / "report", half)
    assert summary.lines[0].startswith("30 of 99 trials finished; ")
    text = Elements(summary.page.read_text(encoding="utf-8")).text
    assert "69 not run yet" in text
    assert "21 of the 33 trials planned here without a result" in text
    missing = (summary.page.parent / "tables" / "missing.md").read_text(encoding="utf-8")
    assert "69 planned trials without a result. In all rows: Seeds 0, 1, 2; Reason not run yet" in missing
    assert missing.count("\n| ") == 2 + 69 / 3
    assert summary.lines[-1] == (
        "no result yet: 21 trials at 200 GFLOP, 24 trials at 900 GFLOP, 24 trials at 3.6 TFLOP; "
        "see tables/missing.md"
    )


@pytest.mark.usefixtures("undrawn")
def test_a_study_without_a_finished_trial_has_a_report(tmp_path: Path, frames: StudyFrames) -> None:
    none = pd.DataFrame()
    summary = write(
        tmp_path / "report",
        replace(frames, results=none, curves=none, spent=frames.spent[:0], events=none, left_out=none),
    )
    levels = ("200 GFLOP", "900 GFLOP", "3.6 TFLOP")
    assert summary.lines == (
        "0 of 99 trials finished; 0 FLOP spent",
        "no trial has finished, so there is nothing to compare yet",
        f"no result yet: {', '.join(f'33 trials at {each}' for each in levels)}; see tables/missing.md",
    )
    assert "No trial has finished, so there is nothing" in summary.page.read_text(encoding="utf-8")


def test_a_report_that_is_written_again_replaces_no_equal_file_and_removes_others(
    tmp_path: Path, frames: StudyFrames
) -> None:
    few, folder = replace(frames, results=frames.results.iloc[:9]), tmp_path / "report"
    write(folder, few)
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len(first) > 30
    (folder / "left over").touch()
    write(folder, few)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == first


def test_a_term_is_explained_where_a_text_first_uses_it() -> None:
    used = set[str]()
    assert with_terms("2 ties & an <interval>: [1, 2], a Tie of 5 %, points-like", used=used) == (
        f'2 <a class="term" href="#term-tie" title="{GLOSSARY["tie"]}">ties</a> &amp; an &lt;'
        f'<a class="term" href="#term-interval" title="{GLOSSARY["interval"]}">interval</a>&gt;: '
        "[1,\u00a02], a Tie of 5\u00a0%, points-like"
    )
    assert used == {"tie", "interval"}


def test_levels_of_trunks_and_rates_that_were_not_tuned_are_told_with_the_answer(
    frames: StudyFrames, analysed: Analysis
) -> None:
    trials = replace(analysed.trials, frame=analysed.trials.frame.assign(trunk="t"))
    whole = replace(analysed, study=replace(frames, left_out=pd.DataFrame()))
    assert first_screen(whole).caveats == ("Learning rates were not tuned.",)
    assert first_screen(replace(whole, trials=trials)).caveats[1:] == (
        "Levels are branches of a trunk, not runs of their own.",
    )


def test_a_refused_study_leaves_the_previous_report_unchanged(tmp_path: Path, frames: StudyFrames) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.html").write_text("before")
    with pytest.raises(ValueError, match="no column 'seed'"):
        write(folder, replace(frames, results=frames.results.drop(columns="seed")))
    assert (folder / "report.html").read_text() == "before"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.usefixtures("undrawn")
def test_outside_of_fixed_compute_budgets_are_the_compute_of_the_best_trials(
    tmp_path: Path, frames: StudyFrames
) -> None:
    equal = frames.results.assign(regime="equal-samples", level_flops=np.nan, samples_seen=65_536)
    equal = equal.drop_duplicates(["subset_size", "quality", "architecture", "strategy", "seed"])
    plan = equal[list(frames.plan.columns.drop(["predicted_s", "paid_flops"]))].assign(
        paid_flops=equal["train_flops"]
    )
    summary = write(tmp_path / "report", replace(frames, results=equal, plan=plan))
    assert summary.lines[1].startswith("199 GFLOP: ConvNeXt-C, ")
    assert not any("samples" in line for line in summary.lines)
