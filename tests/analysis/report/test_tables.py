"""Tables have the same content in Markdown, LaTeX and CSV, and their sums are right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.answers.cost import by_level, run_hours, run_time, score_costs, totals, trial_hours
from analysis.cells.study_frames import StudyFrames
from analysis.report.table_files import latex, markdown, save
from analysis.report.tables import Table, column, number, probability_text
from tests.analysis.synthetic import paid

ODD = Table(
    name="odd",
    title="100 % & more",
    note="a_b | c",
    frame=pd.DataFrame({"α": ["x|y", "5 %"], "n": ["1", "2"]}),
)


def test_special_characters_are_escaped_in_latex() -> None:
    text = latex(ODD)
    assert r"\caption{100\,\% \& more: a\_b $|$ c}" in text
    assert r"$\alpha$ & n \\" in text
    assert r"5\,\% & 2 \\" in text
    assert text.count(r"\toprule") == 2, "of the first page and of those that follow"


def test_what_markdown_takes_for_markup_is_escaped() -> None:
    odd = replace(ODD, note="R* of data, R* of size", frame=pd.DataFrame({"<b>": ["x|y", "a_b_c", "`d`"]}))
    assert markdown(odd).splitlines() == [
        "### 100 % & more", "", r"R\* of data, R\* of size", "", r"| \<b\> |", "| --- |",
        r"| x\|y |", r"| a\_b\_c |", r"| \`d\` |",
    ]  # fmt: skip


def test_an_empty_table_says_so() -> None:
    assert "(nothing)" in markdown(Table(name="e", title="t", note="n", frame=pd.DataFrame()))


def test_the_csv_holds_the_texts(tmp_path: Path) -> None:
    save(ODD, tmp_path)
    assert pd.read_csv(tmp_path / "odd.csv", dtype=str).equals(ODD.frame.astype("str"))


def test_levels_sum_to_the_book(frames: StudyFrames) -> None:
    levels = by_level(frames.plan, frames.spent, frames.events)
    cost = totals(levels, frames.events, budget_flops=4e14, price_per_hour=2.0)
    assert levels["spent"].sum() == cost.spent_flops == frames.spent["spent_flops"].sum()
    assert levels["evaluation"].sum() == cost.evaluation_flops == frames.spent["evaluation_flops"].sum()
    assert levels["hours"].sum() == pytest.approx(cost.device_hours) == pytest.approx(99 * 5 / 3600)
    assert cost.price == 2 * cost.device_hours
    assert levels["level"].tolist() == ["200 GFLOP", "900 GFLOP", "3.6 TFLOP", "quality scorer"]
    assert levels["trials"].sum() == 99


def test_what_a_tuning_and_earlier_declarations_paid_is_planned_in_the_levels_and_in_all(
    frames: StudyFrames,
) -> None:
    others = pd.DataFrame([paid("tuned", 7e12), paid("removed", 3e12), paid("removed-2", wasted=1e11)])
    spent = pd.concat([frames.spent, others], ignore_index=True)
    tuning = pd.DataFrame([
        {"time": -9.0, "event": "tuning-started", "slots": 1},
        {"time": -9.0, "event": "trial-started", "trial": "tuned", "slot": 0},
        {"time": -1.0, "event": "trial-finished", "trial": "tuned", "slot": 0, "wall_s": 8.0},
    ])  # fmt: skip
    events = pd.concat([tuning, frames.events], ignore_index=True)

    levels = by_level(frames.plan, spent, events)
    cost = totals(levels, events)

    assert levels["planned"].sum() == cost.planned_flops == cost.spent_flops
    of = levels.set_index("level")[["trials", "planned", "wasted"]]
    assert list(of.loc["tuning"]) == [1, 7e12, 0]
    assert list(of.loc["earlier declarations"]) == [2, 3.1e12, 1e11]


def test_time_is_read_from_the_events(frames: StudyFrames) -> None:
    time = run_time(frames.events)
    assert (time.slots, time.busy_s, time.wall_s) == (2, 99 * 5.0, 10.0 + 3 * 99)


def test_slots_count_for_the_time_that_they_existed() -> None:
    events = pd.DataFrame([
        {"time": 0.0, "event": "tuning-started", "slots": 1},
        {"time": 0.0, "event": "trial-started", "trial": "t", "slot": 0},
        {"time": 10.0, "event": "trial-finished", "trial": "t", "slot": 0, "wall_s": 10.0},
        {"time": 10.0, "event": "tuning-ended"},
        {"time": 500.0, "event": "node-left-out", "node": "n"},
        {"time": 1000.0, "event": "study-started", "slots": 1},
        {"time": 1000.0, "event": "trial-started", "trial": "a", "slot": 0},
        {"time": 1010.0, "event": "slots-changed", "slots": 4},
        {"time": 1010.0, "event": "trial-started", "trial": "b", "slot": 1},
        {"time": 1020.0, "event": "trial-retried", "trial": "b", "slot": 1, "wall_s": 10.0},
        {"time": 1020.0, "event": "slots-changed", "slots": 2},
        {"time": 1040.0, "event": "trial-left-out", "trial": "c"},
    ])  # fmt: skip

    time = run_time(events)

    assert time.wall_s == 10 + 40
    assert time.slot_s == 10 + (10 * 1 + 10 * 4 + 20 * 2)
    assert time.busy_s == 10 + (40 + 10), "what still runs counts up to the last event"
    assert time.busy == 60 / 100
    assert time.slots == 4
    assert run_time(events, now=1050.0).busy == pytest.approx(70 / 120), "in the midst of it"


def test_each_attempt_has_its_own_devices_and_one_without_an_end_counts_to_the_last_event() -> None:
    events = pd.DataFrame([
        {"time": 0.0, "event": "study-started", "slots": 1},
        {"time": 0.0, "event": "trial-started", "trial": "a", "devices": 8},
        {"time": 3600.0, "event": "trial-left", "trial": "a", "wall_s": 3600.0},
        {"time": 3600.0, "event": "trial-started", "trial": "b", "devices": 2},
        {"time": 5400.0, "event": "slots-changed", "slots": 1},
        {"time": 8900.0, "event": "node-left-out", "node": "n"},
        {"time": 9000.0, "event": "study-started", "slots": 1},
        {"time": 9000.0, "event": "trial-started", "trial": "a", "devices": 1},
        {"time": 12600.0, "event": "trial-retried", "trial": "a", "wall_s": 3600.0},
        {"time": 12636.0, "event": "trial-finished", "trial": "c", "wall_s": 36.0},
    ])  # fmt: skip
    assert trial_hours(events) == pytest.approx({"a": 8 + 1, "b": 2 * 0.5, "c": 0.01})


def test_a_printed_table_has_signs_powers_and_numbers_on_the_right() -> None:
    numbers = {"Ahead by": ["-0.6", "12.1"], "r²": ["7.1e-06", "–"], "Interval": ["[1.0, 2.0]", "–"]}
    frame = pd.DataFrame({"Model": ["mini-ViT-S-8", "ViT-X"], **numbers})
    text = latex(replace(ODD, note="E·x^-α", frame=frame))
    assert [text.count(rf"\ragged{side}") for side in ("right", "left")] == [2, 2]
    assert r"\mbox{mini-ViT-S-8} & $-$0.6 & $7.1\cdot10^{-6}$ & \mbox{[1.0, 2.0]} \\" in text
    assert r"E$\cdot$x$^{-\alpha}$" in text
    assert r"\caption[]{100\,\% \& more, continued}" in text


def test_a_column_that_says_nothing_goes_and_one_that_is_alike_in_all_rows_into_the_note() -> None:
    rows = pd.DataFrame({
        "x": [1.0, 1.0], "level": ["a", "b"], "along": "compute", "none": [None, None], "nan": np.nan
    })  # fmt: skip
    columns = [column("X", "x", number(".1f")), *(column(name, name) for name in map(str, rows.columns[1:]))]
    table = Table.of("t", "T", "note.", rows, columns)
    assert table.shown.to_dict("list") == {"X": ["1.0", "1.0"], "level": ["a", "b"]}
    assert table.frame["along"].tolist() == ["compute"] * 2, "the CSV has all columns"
    assert table.note == "note. In all rows: along compute"
    one = Table.of("t", "T", "", rows.iloc[:1], columns)
    assert one.shown.to_dict("records") == [{"X": "1.0", "level": "a", "along": "compute"}]
    assert one.note == ""
    assert Table.of("t", "T", "note", rows.iloc[:0], columns).frame.empty


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.004, "<.01"), (0.005, "0.01"), (0.545, "0.55"), (0.9949, "0.99"), (0.995, ">.99"), (np.nan, "–")],
)
def test_a_share_near_0_or_1_is_a_bound(probability: float, text: str) -> None:
    assert probability_text(probability) == text


def test_a_winner_has_the_costs_of_its_quality_and_of_its_strategys_columns() -> None:
    what = {"pool": "web", "pairs": 8, "train_flops": 5, "scoring_flops": 1}
    scores = pd.DataFrame([
        {"quality": quality, "score": score, "model": score, **what}
        for quality, score in (("top40", "mine"), ("all by other", "other"), ("reinforced", "teacher"))
    ])  # fmt: skip

    assert [cost.score for cost in score_costs(scores, "top40", "reinforced")] == ["mine", "teacher"]
    assert [cost.score for cost in score_costs(scores, "top40", "clip")] == ["mine"]
    assert len(score_costs(scores)) == 3


def test_a_branch_takes_as_long_as_a_run_of_its_own_which_trains_the_trunk_too() -> None:
    results = pd.DataFrame({
        "trial": ["long", "short", "middle", "alone", "failed"], "trunk": ["t", "t", "t", "", "t"],
        "train_flops": [900.0, 100.0, 300.0, 900.0, 0.0], "paid_flops": [660.0, 100.0, 220.0, 900.0, 99.0],
    })  # fmt: skip
    took = {"short": 1.0, "middle": 4.4, "long": 6.6, "alone": 9.0}
    events = pd.DataFrame([
        {"time": 1.0, "event": "study-started"},
        *({"event": "trial-finished", "trial": name, "wall_s": 3600 * hours, "time": 2.0}
          for name, hours in took.items()),
    ])  # fmt: skip
    # The middle one leaves the trunk of the short one at 80, the long one that of the middle one at 240.
    assert run_hours(results, events) == pytest.approx(
        {"short": 1.0, "middle": 0.8 + 4.4, "long": 0.8 + 160 * 4.4 / 220 + 6.6, "alone": 9.0}
    )
    assert run_hours(results.drop(columns="trunk"), events) == took

    # The trunk is trained by trials of its own to 80 and 95; branches only cool down.
    trunks = results.assign(
        phase=["trunk", "", "trunk", "", ""], train_flops=[95.0, 100.0, 80.0, 118.0, 0.0],
        paid_flops=[15.0, 20.0, 80.0, 23.0, 9.0], trunk=["t", "t", "t", "t", "t"],
    )  # fmt: skip
    took = {"middle": 8.0, "long": 1.5, "short": 4.0, "alone": 5.0}
    assert run_hours(trunks, events.assign(wall_s=3600 * events["trial"].map(took))) == pytest.approx(
        {"middle": 8.0, "long": 8.0 + 1.5, "short": 8.0 + 4.0, "alone": 8.0 + 1.5 + 5.0}
    )
