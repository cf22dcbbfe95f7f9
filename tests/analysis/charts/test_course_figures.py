"""Figures of the plan and of a design show the course of a run."""

import numpy as np
import pandas as pd

from analysis.answers.cost import by_level
from analysis.cells.study_frames import StudyFrames
from analysis.charts.run_figures import design_course, plan_grid
from analysis.drawing.draw import draw
from tests.analysis.synthetic import figure_of


def test_the_plan_shows_what_finished_failed_waits_and_was_left_out(frames: StudyFrames) -> None:
    results = frames.results.iloc[:30].copy()
    results.loc[results.index[:3], "status"] = "failed"
    data = figure_of(plan_grid(frames.plan, frames.left_out, results))
    cells = data.frame.set_index("text")["series"]
    trial = frames.plan.iloc[0]
    assert set(data.frame["series"]) == {"finished", "not run", "without a result", "left out"}
    where = f"{trial['architecture']}, CLIP, 3,276 pairs, top 40 %, 200 GFLOP"
    assert cells[f"{where}: 0 of 3 finished, 3 without a result"] == "without a result"
    assert data.frame["low"].sum() == 27
    assert "27 trials of 99 finished" in data.finding
    assert "3/3" in [text.get_text() for text in draw(data).axes[0].texts]


def test_a_plan_of_many_configurations_is_shown_by_architecture_and_strategy(frames: StudyFrames) -> None:
    plan = frames.plan
    copies = [
        plan.assign(subset_size=plan["subset_size"] + place, trial=plan["trial"] + str(place))
        for place in range(5)
    ]
    data = figure_of(plan_grid(pd.concat(copies), frames.left_out, pd.DataFrame()))
    assert set(data.frame["label"]) >= {"ViT-X, SLIP", "ConvNeXt-C, CLIP"}
    assert len(data.frame["label"].unique()) == 8
    assert data.frame["high"].sum() == 5 * 99


def test_trials_of_equal_samples_are_one_level_whatever_their_whole_batches(frames: StudyFrames) -> None:
    flip = frames.plan["strategy"] == "flip-50"
    plan = frames.plan.assign(
        regime="equal-samples", level_flops=np.nan, batch_size=np.where(flip, 128, 64),
        samples_seen=np.where(flip, 10_496.0, 10_560.0),
    )  # fmt: skip
    grid = figure_of(plan_grid(plan, frames.left_out.head(0), frames.results))
    assert set(grid.frame["line"]) == {"10,560 samples"}
    levels = by_level(plan, frames.spent, frames.events)
    assert levels["level"].tolist() == ["10,560 samples", "quality scorer"]


def test_course_of_a_design_shows_who_led_and_who_was_dropped_at_what_cost() -> None:
    def answer(flops: float, tied: dict[str, float], dropped: list[str], verdict: str) -> dict[str, object]:
        return {
            "kind": "best", "flops": flops, "leader": next(iter(tied)), "tied": [*tied], "verdict": verdict,
            "chances": [*tied.values()], "dropped": dropped,
        }  # fmt: skip

    early = [answer(1e9, {"A": 0.6, "B": 0.3, "C": 0.1}, ["D"], "tie"), answer(2e9, {"B": 0.95}, [], "clear")]
    late = [answer(1e9, {"A": 0.97}, ["D", "C"], "clear"), answer(2e9, {"B": 0.8, "A": 0.2}, ["D"], "tie")]
    fixed = {"event": "design", "grid_flops": 8e9}
    events = pd.DataFrame([
        {"event": "trial-chosen"},
        fixed | {"spent_flops": 1e9, "answers": early, "stop": ""},
        fixed | {"spent_flops": 4e9, "answers": late, "stop": "every question is answered"},
    ])  # fmt: skip

    (data,) = design_course(events)

    def marks(panel: str, mark: str) -> list[tuple[object, ...]]:
        rows = data.frame[(data.frame["panel"] == panel) & (data.frame["mark"] == mark)]
        return list(rows[["series", "x", "y", "text"]].itertuples(index=False, name=None))

    first, second, later = "best at 1 GFLOP", "best at 2 GFLOP", "best at 1 GFLOP, 4 GFLOP spent"
    assert marks(first, "best") == [("A", 50.0, 97.0, f"A: best with probability 97 %; {later}")]
    assert [name for name, *_ in marks(second, "best, not clear")] == ["B"]
    assert [name for name, *_ in marks(first, "other")] == ["C"]  # it never led
    assert marks(first, "dropped") == [
        ("", 12.5, 0.0, "dropped: D; best at 1 GFLOP, 1 GFLOP spent"),
        ("", 50.0, 0.0, f"dropped: C; {later}"),
    ]
    assert "dropped: best at 1 GFLOP: 2; best at 2 GFLOP: 1." in data.finding
    legend = draw(data).legends[0].get_texts()
    assert [text.get_text() for text in legend][:4] == ["A", "B", "C", "dropped"]
    assert design_course(events.iloc[:1]) == ()
