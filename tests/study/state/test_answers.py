"""The answers of an adaptive study are kept beside its results, and made again when these change."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.answers.answer_text import answer_line
from analysis.answers.best import best_at_budgets
from analysis.belief.cell_draws import cell_draws
from analysis.cells.table import records, tidy
from analysis.error_unit import PERCENT
from analysis.labels import configuration_text
from runners.results import read_table
from study.state import design
from study.state.study import Study
from tests.study.tiny_study import shipped_copy

KEPT = "answers.json"


@pytest.fixture
def small(tmp_path: Path) -> Study:
    """Return a copy of the shipped adaptive study, without its answers."""
    return shipped_copy("small", tmp_path, KEPT)


@pytest.fixture
def grid(small: Study) -> pd.DataFrame:
    return read_table(small.folder / "plan.parquet")


def test_the_answers_are_those_of_the_report_to_the_digit(small: Study, grid: pd.DataFrame) -> None:
    trials = tidy(read_table(small.folder / "results.parquet"), metric=small.declaration.metric)
    draws = cell_draws(trials, grid, confidence=small.declaration.design.confidence)
    answers = design.answers(small, grid)
    for row, answer in zip(records(best_at_budgets(draws)), answers, strict=True):
        assert (answer["flops"], answer["probability"]) == (row["flops"], row["probability"])
        line = answer_line(row["at"], configuration_text(row), row, PERCENT, tied=len(row["leaders"]))
        assert design.question_lines([answer], PERCENT) == [line]


def test_what_was_read_once_is_not_weighed_again(
    small: Study, grid: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = design.answers(small, grid)
    monkeypatch.setattr(design, "answers_to", lambda *_: pytest.fail("weighed again"))
    assert design.answers(small, grid) == json.loads(json.dumps(first))


@pytest.mark.parametrize("text", ["", "{", '{"digest": "of other results", "answers": []}'])
def test_a_damaged_file_or_one_of_other_results_is_made_anew(
    small: Study, grid: pd.DataFrame, text: str
) -> None:
    (small.folder / KEPT).write_text(text, encoding="utf-8")
    assert len(design.answers(small, grid)) == 4
    assert len(json.loads((small.folder / KEPT).read_text(encoding="utf-8"))["answers"]) == 4
