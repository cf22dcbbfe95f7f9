"""A study that evaluates its trunks: answers from trunk states alone, and the map to cooled errors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.answers.best import best_at_budgets
from analysis.answers.outliers import outlier_lines, outliers
from analysis.answers.recommendation import recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.belief.cell_draws import stream, study_draws
from analysis.cells.study_frames import StudyFrames
from analysis.design.questions import Ask, answers_to
from analysis.error_unit import PERCENT
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


def test_study_without_a_cooled_run_says_what_is_lacking(frames: StudyFrames) -> None:
    found = analyse(replace(frames, results=frames.results.head(0)))
    assert "no cooled run has finished, so there is nothing to compare yet" in summary_lines(found)
    assert found.parameters.empty
    assert " 0 degrees of freedom" not in found.draws.explanation
    (trials,) = (table for table in report_tables(found) if table.name == "trials")
    assert len(trials.frame) == found.progress.finished == len(found.trials.trunks)
    with pytest.raises(ValueError, match="the map from trunk to cooled error is not learned"):
        recommend(found.draws, flops=1e12, pairs=4096)


def test_trunk_state_that_stands_out_is_named(frames: StudyFrames) -> None:
    states = frames.trunks["results"]
    first = (states["trial"] == states["trial"].iloc[0]).to_numpy(bool)
    odd = states.assign(**{METRIC + AVERAGE: states[METRIC + AVERAGE] + 0.4 * first})
    moved = replace(frames, trunks={**frames.trunks, "results": odd})
    found = outliers(study_draws(moved).families, moved.trials)
    assert found["trial"].tolist() == [states["trial"].iloc[0]]
    assert ", trunk): " in outlier_lines(found, PERCENT)[0]


def test_without_enough_cooled_runs_trunk_states_decide_nothing(frames: StudyFrames) -> None:
    two = replace(frames, results=frames.results.iloc[[0, -1]])
    best, answers = best_at_budgets(study_draws(two)), answers_to(two.trials, two.grid, Ask())
    assert not best["by_trunk"].any()
    assert "clear" not in set(best["verdict"])
    said = "the map from trunk to cooled error is not learned (2 pairs)"
    assert best["reason"].str.endswith(said).all()
    assert {answer.unlearned for answer in answers} == {said}
    advice = recommend(study_draws(two), flops=LEVELS[-1], pairs=4096)
    assert f"  trunk states count for no run: {said}" in recommendation_lines(advice, source="made-up")
