"""A study that evaluates its trunks: answers from trunk states alone, and the map to cooled errors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.answers.best import best_at_budgets
from analysis.belief.cell_draws import stream, study_draws
from analysis.cells.study_frames import StudyFrames
from analysis.design.questions import Ask, answers_to
from analysis.report.analyse import Analysis, analyse
from analysis.report.figures import report_figures
from analysis.report.first_screen import first_screen
from analysis.report.report_tables import report_tables
from analysis.report.summary import summary_lines
from runners.results import AVERAGE
from tests.analysis.charts.test_figures import supported
from tests.analysis.made_up.trunk_states import TrueMap, with_trunk_states
from tests.analysis.synthetic import LEVELS, METRIC, frames_around, study, true_error

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frames() -> StudyFrames:
    """Return a study with all trunk states, of which the weight average is .01 better than the weights."""

    def truth(row: Mapping[str, Any]) -> float:
        names = ("level_flops", "subset_size", "quality", "architecture", "strategy")
        return true_error(*(row[name] for name in names))

    results = with_trunk_states(study(seeds=2).results, truth, TrueMap(), stream("trunks"))
    average = np.where(results["phase"] == "trunk", results[METRIC] + 0.01, np.nan)
    return frames_around(results.assign(**{METRIC + AVERAGE: average}))


@pytest.fixture(scope="module")
def found(frames: StudyFrames) -> Analysis:
    """Return the analysis of the study of which the runs of the largest level are not cooled down."""
    return analyse(replace(frames, results=frames.results[frames.results["level_flops"] < LEVELS[-1]]))


def test_leader_that_is_known_by_its_trunk_alone_says_so_everywhere(found: Analysis) -> None:
    assert found.best["by_trunk"].tolist() == [False, False, True]
    *_, line = (line for line in summary_lines(found) if line.startswith("3.6 TFLOP: "))
    assert "] by its trunk, " in line
    screen = first_screen(found)
    assert "by its trunk" in screen.rows[-1].sure
    assert "Where no branch was cooled down, the trunk state counts as a run." in screen.caveats
    answers = answers_to(found.trials, found.study.grid, Ask())
    assert [answer.by_trunk for answer in answers] == [False, False, True]
    assert found.progress.finished == len(found.trials.frame) + len(found.trials.trunks)


def test_map_is_drawn_with_a_point_and_listed_with_a_row_for_each_pair(found: Analysis) -> None:
    pairs = len(found.trials.frame)
    figure = supported(report_figures(found))["trunk-map"]
    assert (figure.frame["mark"] == "point").sum() == pairs
    assert figure.finding.startswith("A cooldown gains ")
    assert " points by the weight average, " in figure.finding
    (table,) = (table for table in report_tables(found) if table.name == "trunk-map")
    assert len(table.frame) == pairs


def test_without_enough_cooled_runs_trunk_states_decide_nothing(frames: StudyFrames) -> None:
    two = replace(frames, results=frames.results.iloc[[0, -1]])
    best, answers = best_at_budgets(study_draws(two)), answers_to(two.trials, two.grid, Ask())
    assert not best["by_trunk"].any()
    assert "clear" not in set(best["verdict"])
    said = "the map from trunk to cooled error is not learned (2 pairs)"
    assert best["reason"].str.endswith(said).all()
    assert {answer.unlearned for answer in answers} == {said}
