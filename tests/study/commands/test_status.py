"""``status``: counts, running trials, FLOPs spent, and the forecast of the remaining time."""

import io
import json
import math
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from budgets.planning.plan import Plan
from budgets.planning.price import PendingTrial, Range, forecast, work_s
from budgets.quantity import format_flops, format_seconds_range
from runners.results import plan_row, write_table
from runners.store.files import write_json
from runners.trials.trial_files import Outcome, write_failure, write_outcome
from study.run.run_tuning import write_tuning
from study.show.progress import Progress
from study.show.status_view import show_status, status_json
from study.show.study_report import report_study
from study.show.terminal import PlainConsole
from study.show.view import sparkline
from study.state.events import add_event
from study.state.plan_study import plan_study, plan_tables, planned_row
from study.state.running import cell_of, left_of, speed_of, trial_words
from study.state.study import Study
from study.state.trial_states import Stage, TrialState
from study.state.tuning_table import with_values
from study.storage.lock import only_run
from tests.progress import progress
from tests.study.conftest import Run
from tests.study.tiny_study import TRUNK, TinyStudy, read_json

TUNING = "tuning: {share: 10%, fields: {lr_peak: [1e-3, 2e-3]}, levels: [5 GFLOP, 20 GFLOP]}\n"
KIND = ("mini-ViT-XXS-8", "clip")


@pytest.fixture
def study(tiny: TinyStudy) -> Study:
    """Return a study of four trials: one done, one failed, one running and one waiting."""
    tiny.declare(levels="5 GFLOP, 20 GFLOP", seeds="0, 1")
    study, plan = tiny.study, tiny.plan
    study.folder.mkdir()
    write_table(study.folder / "plan.parquet", plan_tables(plan)[0])
    done, failed, runs, _ = plan.trials
    add_event(study, "study-started", slots=2)
    for slot, trial in enumerate((done, failed, runs)):
        add_event(study, "trial-started", trial=trial.trial_id, slot=slot)
    add_event(study, "trial-finished", trial=done.trial_id, slot=0, wall_s=2.0, samples_per_s=400.0)
    add_event(study, "trial-failed", trial=failed.trial_id, slot=1, wall_s=1.0, reason="ValueError: no image")
    row = plan_row(done) | {"status": "finished", "reason": ""}
    for trial in (done, failed, runs):
        study.trial_folder(trial.trial_id).mkdir(parents=True)
    (study.trial_folder(done.trial_id) / "curve.parquet").touch()
    write_outcome(study.trial_folder(done.trial_id), Outcome(row=row, timing={"samples_per_s": 400.0}))
    write_failure(study.trial_folder(failed.trial_id), "ValueError: no image")
    content = progress(
        runs.samples_seen // 2, samples_planned=runs.samples_seen, train_flops=runs.train_flops // 2
    )
    write_json(study.trial_folder(runs.trial_id) / "progress.json", content)
    return study


@pytest.fixture
def plan(study: Study) -> Plan:
    return plan_study(study)


@pytest.fixture
def tuned(tiny: TinyStudy, study: Study) -> Study:
    """Return that study, with a tuning in its declaration."""
    return declared(tiny, study, TUNING)


def declared(tiny: TinyStudy, study: Study, more: str) -> Study:
    """Return the study with further lines in its declaration."""
    tiny.edit(("limits:", f"{more}limits:"))
    return replace(study, declaration=tiny.study.declaration)


def shown(study: Study) -> str:
    text = io.StringIO()
    show_status(Console(file=text, width=160), study)
    return text.getvalue()


def status(study: Study) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(status_json(study))
    return content


def levels(study: Study) -> list[str]:
    return [level["name"] for level in status(study)["levels"]]


def terminal(text: io.StringIO) -> Console:
    return Console(file=text, width=160, force_terminal=True, color_system=None)


def test_status_of_a_running_study_has_levels_trials_flops_and_time_left(study: Study, plan: Plan) -> None:
    with only_run(study.folder):
        text, content = shown(study), status(study)

    lines = [line.split() for line in text.splitlines()]
    assert ["5", "GFLOP", "1", "0", "1", "0"] in lines
    assert ["20", "GFLOP", "0", "1", "0", "1"] in lines
    done, failed, runs, waits = plan.trials
    assert f"{runs.trial_id} 50 %, loss 1.250 █▅▁, 500 samples/s" in text
    assert f"failed {failed.trial_id} {failed.cell}, seed 1: ValueError: no image" in text
    spent, held = format_flops(done.train_flops), format_flops(runs.train_flops)
    assert f"{spent} spent, 0 % of the study budget of 10 TFLOP; {held} more reserved" in text
    assert "1 of 2 slots" in text
    assert "running: process" in text

    assert [level["name"] for level in content["levels"]] == ["5 GFLOP", "20 GFLOP"]
    assert content["spent_flops"] == done.train_flops
    assert content["running"][0]["flops_per_s"] == pytest.approx(500 * runs.train_flops_per_sample)
    # Trials of its kind ran at 400 and 500 samples a second; two are too few to trust that range.
    longest = waits.samples_seen
    assert content["left_s"] == pytest.approx(
        {"low": 1 + longest / 500 / 1.25, "high": 1 + longest / 400 * 1.25}
    )


def test_a_tuning_that_is_no_longer_declared_is_not_shown(study: Study, plan: Plan) -> None:
    left = plan_tables(plan)[0]
    write_table(study.folder / "tuning-plan.parquet", left.assign(trial=left["trial"].str[::-1]))
    assert levels(study) == ["5 GFLOP", "20 GFLOP"]


def test_a_design_that_is_no_longer_declared_is_not_shown(study: Study, tiny: TinyStudy) -> None:
    add_event(study, "design", spent_flops=1, grid_flops=2, answers=[], stop="every question is answered")
    assert status(study)["design"] == []
    adaptive = declared(tiny, study, "design: adaptive\n")
    assert "the design stopped: every question is answered" in status(adaptive)["design"]


def test_a_study_that_was_run_is_found_by_its_name(study: Study, plan: Plan, run: Run) -> None:
    study.write_declaration()
    study.write_table("plan.parquet", plan_tables(plan)[0])
    said = run(f"status {study.declaration.name} --json --results {study.folder.parent}")
    assert json.loads(said)["levels"] == status(study)["levels"]
    mistyped = run(f"status {study.declaration.name}x --results {study.folder.parent}", code=2)
    assert f"did you mean '{study.declaration.name}'?" in mistyped


@pytest.mark.parametrize("content", ['{"winners": ', "[1]"])
def test_a_damaged_file_of_winners_is_named(study: Study, content: str) -> None:
    (study.folder / "tuning.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"tuning\.json is damaged"):
        status_json(study)


def test_a_first_run_without_a_plan_is_preparing(study: Study) -> None:
    (study.folder / "plan.parquet").unlink()
    with pytest.raises(ValueError, match="`python -m study run"):
        status_json(study)
    with only_run(study.folder), pytest.raises(ValueError, match=r"preparing.* \(process"):
        status_json(study)


def test_a_damaged_progress_file_is_left_aside(study: Study, plan: Plan) -> None:
    path = study.trial_folder(plan.trials[2].trial_id) / "progress.json"
    whole = read_json(path)
    wrong = {"samples_planned": 0, "samples_seen": -1, "loss": math.inf, "losses": [math.nan]}
    needed = ("samples_planned", "train_flops", "loss", "losses", "curve")
    damaged = [whole | {key: value} for key, value in wrong.items()]
    damaged += [{key: value for key, value in whole.items() if key != lacking} for lacking in needed]
    with only_run(study.folder):
        for content in damaged:
            write_json(path, content)
            assert "1 trial just started" in shown(study), content


def test_interrupted_trials_count_as_waiting_without_an_active_run(study: Study, plan: Plan) -> None:
    (study.trial_folder(plan.trials[2].trial_id) / "checkpoint-0000000010-0.pt").touch()

    content = status(study)

    assert content["interrupted"] == 1
    assert "`run` continues with 2 trials, 1 of them from its checkpoint" in shown(study)
    assert content["run"] is None
    assert content["levels"][1] == {
        "name": "20 GFLOP", "done": 0, "running": 0, "failed": 0, "waiting": 2, "left_out": 0,
    }  # fmt: skip


def within(study: Study, study_flops: int) -> Study:
    """Return a study with another budget."""
    budget = replace(study.declaration.budget, study_flops=study_flops)
    return replace(study, declaration=replace(study.declaration, budget=budget))


def test_status_separates_trials_without_room_from_those_that_continue(study: Study, plan: Plan) -> None:
    done, _, begun, _ = plan.trials
    (study.trial_folder(begun.trial_id) / "checkpoint-0000000040-abc.pt").touch()

    text = shown(within(study, done.train_flops + begun.train_flops))
    assert "no room for 1 of 2" in text
    assert "with 1 trial, 1 of them from its checkpoint, about" in text
    text = shown(within(study, done.train_flops + 3 * begun.train_flops))
    assert "no room" not in text
    assert "with 2 trials, 1 of them from its checkpoint, about" in text


def test_a_trial_that_was_left_out_waits_again_once_the_study_budget_has_room(
    study: Study, plan: Plan
) -> None:
    done, *_, last = plan.trials
    add_event(study, "trial-left-out", trial=last.trial_id, reason="the budget has no room for it")

    def top_level(study_flops: int) -> tuple[int, int]:
        *_, level = status(within(study, study_flops))["levels"]
        return level["waiting"], level["left_out"]

    assert top_level(done.train_flops) == (1, 1)
    assert top_level(done.train_flops + 4 * last.train_flops) == (2, 0)


def test_trials_of_a_trunk_have_no_room_where_the_shorter_ones_have_none(tiny: TinyStudy) -> None:
    tiny.declare(levels="10 GFLOP, 14 GFLOP", training=TRUNK)
    study, plan = tiny.study, tiny.plan
    short, long = plan.trials
    (study.folder / "trials").mkdir(parents=True)
    write_table(study.folder / "plan.parquet", plan_tables(plan)[0])
    assert long.paid_flops < 9e9 < short.paid_flops

    assert "no room for 2 of 2" in shown(within(study, 9_000_000_000))


def test_the_live_view_counts_trials_that_the_run_has_left_out(study: Study, plan: Plan) -> None:
    text = io.StringIO()
    with Progress("held-out/top1", terminal(text)) as progress:
        progress.begin(study.folder, plan, spent_flops=0)
        progress.left_out(plan.trials[3], "the budget has no room for it")

    assert re.search(r"level +done +running +failed +waiting +left out\n", text.getvalue())
    assert re.search(r"20 GFLOP +0 +0 +0 +1 +1\n", text.getvalue())


def test_a_terminal_shows_bars_running_trials_failures_and_flops_spent(study: Study, plan: Plan) -> None:
    done, failed, runs, _ = plan.trials
    text = io.StringIO()
    with Progress("held-out/top1", terminal(text)) as progress:
        progress.begin(study.folder, plan, spent_flops=done.train_flops)
        progress.failed(failed, "ValueError: no image")
        progress.tick([runs.trial_id], slots=2)

    frame = text.getvalue()
    assert f"running {runs.trial_id} 50 %, loss 1.250 █▅▁, 500 samples/s, 3.49 GFLOP/s" in frame
    assert f"FAILED {failed.cell}, seed 1: ValueError: no image" in frame
    assert re.search(r"20 GFLOP +0 +1 +0 +1\n", frame), "rich draws a bar of no colour as blanks"
    spent = format_flops(done.train_flops + runs.train_flops // 2)
    assert f"{spent} spent, {format_flops(plan.train_flops)} planned" in frame
    assert "1 of 4 trials, about" in frame


def test_a_narrow_terminal_shows_whole_numbers_without_bars(study: Study) -> None:
    text = io.StringIO()
    show_status(Console(file=text, width=40, force_terminal=True, color_system=None), study)

    lines = [line.split() for line in text.getvalue().splitlines()]
    assert lines[0] == ["level", "done", "running", "failed", "waiting"]
    assert ["5", "GFLOP", "1", "0", "1", "0"] in lines


def test_a_narrow_live_view_cuts_running_trials_but_no_failure_and_no_sum(study: Study, plan: Plan) -> None:
    text = io.StringIO()
    reason = "ValueError: " + " ".join(["a long reason"] * 20)
    with Progress("held-out/top1", PlainConsole(file=text, force_terminal=True, width=60)) as progress:
        progress.begin(study.folder, plan, spent_flops=0)
        progress.failed(plan.trials[1], reason)
        text.truncate(text.seek(0))
        progress.tick([plan.trials[2].trial_id], slots=2)

    frame = re.sub(r"\x1b[^A-Za-z]*[A-Za-z]", "", text.getvalue())
    assert all(len(line) <= 60 for line in frame.splitlines())
    assert re.search(r"running .{51}…\n", frame)
    words = " ".join(frame.split())
    assert reason in words
    assert re.search(r"1 of 4 trials, about \S", words)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_watcher_waits_for_the_plan_and_ends_with_the_run(
    study: Study, plan: Plan, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    (study.folder / "plan.parquet").unlink()
    text, looks = io.StringIO(), 0
    monkeypatch.setenv("TERM", term)

    with ExitStack() as run:
        run.enter_context(only_run(study.folder))

        def sleep(_: float) -> None:
            nonlocal looks
            looks += 1
            if looks == 1:
                write_table(study.folder / "plan.parquet", plan_tables(plan)[0])
            else:
                run.close()

        monkeypatch.setattr(time, "sleep", sleep)
        show_status(PlainConsole(file=text, force_terminal=True, width=160), study, watch=True)

    shown = text.getvalue()
    assert shown.startswith("waiting: ")
    assert 0 < shown.index("running: process") < shown.index("no run is active")


def test_a_trial_of_tuning_and_grid_is_shown_with_the_grid(study: Study, plan: Plan, tuned: Study) -> None:
    write_table(study.folder / "tuning-plan.parquet", plan_tables(plan)[0])
    assert levels(tuned) == ["5 GFLOP", "20 GFLOP"]


def test_trials_of_a_tuning_are_distinguished_by_their_values(study: Study, plan: Plan, tuned: Study) -> None:
    (study.folder / "plan.parquet").unlink()
    values = {trial.trial_id: {"lr_peak": 1e-3 * at} for at, trial in enumerate(plan.trials, start=1)}
    write_table(study.folder / "tuning-plan.parquet", with_values(plan_tables(plan)[0], values))
    _, failed, runs, _ = plan.trials
    with only_run(study.folder):
        content = status(tuned)
    assert [each["what"] for each in content["failures"]] == [f"{failed.cell}, lr_peak 0.002, seed 1"]
    assert [each["what"] for each in content["running"]] == [f"{runs.cell}, lr_peak 0.003, seed 0"]


def test_the_trials_of_a_decided_tuning_are_done_even_without_their_folders(
    study: Study, plan: Plan, tuned: Study
) -> None:
    planned = plan_tables(plan)[0]
    tried = planned.assign(trial="tuned-" + planned["trial"])
    write_table(study.folder / "tuning-plan.parquet", tried)

    def shown_first(results: int) -> dict[str, object]:
        ended = ["finished", "diverged", *["finished"] * 2][:results]
        rows = tried.head(results)[["trial"]].assign(status=ended, reason="")
        write_table(study.folder / "tuning.parquet", rows)
        return dict(status(tuned)["levels"][0])

    nothing = {"name": "tuning", "done": 0, "running": 0, "failed": 0, "left_out": 0}
    assert shown_first(3) == nothing | {"waiting": 4}, "the next round runs them again"
    assert shown_first(4) == nothing | {"done": 4, "waiting": 0}


def test_before_its_grid_a_tuned_study_has_no_results(tuned: Study) -> None:
    (tuned.folder / "plan.parquet").rename(tuned.folder / "tuning-plan.parquet")
    with pytest.raises(ValueError, match="only of its tuning; "):
        list(report_study(tuned))
    with only_run(tuned.folder), pytest.raises(ValueError, match=r"tuning; .* \(process "):
        list(report_study(tuned))


def test_before_its_first_result_a_study_without_tuning_has_no_results_of_one(study: Study) -> None:
    with pytest.raises(ValueError, match="grid yet; `python "):
        study.require_run("results.parquet")


def test_a_quiet_run_prints_only_failures(study: Study, plan: Plan) -> None:
    text = io.StringIO()
    with Progress("held-out/top1", Console(file=text, width=160), quiet=True) as progress:
        progress.begin(study.folder, plan, spent_flops=0)
        progress.failed(plan.trials[0], "ValueError: no image")

    lines = text.getvalue().splitlines()
    assert [line for line in lines if not line.startswith("note: ")] == [
        f"FAILED {plan.trials[0].cell}, seed 0: ValueError: no image"
    ]


@pytest.mark.parametrize("live", [False, True])
def test_a_run_goes_on_in_silence_without_a_reader(
    study: Study,
    plan: Plan,
    live: bool,  # noqa: FBT001 - a parameter
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as file:
        console = PlainConsole(file=file, force_terminal=live, width=160)
        with Progress("held-out/top1", console) as progress:
            progress.begin(study.folder, plan, spent_flops=0)
            progress.tick([plan.trials[2].trial_id], slots=2)
        assert console.quiet


def test_the_forecast_ranges_over_the_measured_speeds_of_a_kind() -> None:
    row = {
        "architecture": KIND[0], "strategy": KIND[1], "samples_seen": 3_000, "batch_size": 10,
        "train_flops": 6_000, "paid_flops": 4_000, "train_flops_per_sample": 2, "predicted_s": 9.0,
    }  # fmt: skip
    rows = dict.fromkeys("abcd", row)
    # A trunk's shorter trial has seen 1,000 samples for each, and 1,000 of its own are in a checkpoint.
    states = dict.fromkeys(rows, TrialState(stage=Stage.INTERRUPTED, kept_steps=200))

    def ends(*speeds: float, of: Mapping[str, Mapping[str, object]] = rows, slots: int = 2) -> Range:
        left = left_of(of, states, (), start_s=1.0)
        found = forecast(left, [speed_of(row, speed) for speed in speeds], slots=slots)
        assert found is not None
        return found

    # 1,000 samples each at 100 to 250 a second, two after one another, each with a second of start-up.
    assert ends(100, 200, 250) == Range(low=2 * (4 + 1), high=2 * (10 + 1))
    assert ends(100).high == pytest.approx(2 * (10 * 1.25 + 1))
    # A rule gives another trial of the kind eight times the devices, so it is planned to be as much faster.
    wide = {"a": row | {"predicted_s": 9 / 8}}
    assert ends(100, 100, 100, of=wide).high == pytest.approx(1 + 10 / 8)
    # A kind that has not run takes the speed of the others, less surely; without any, the plan's holds.
    other = {"a": row | {"architecture": "another", "predicted_s": 4.5}}
    assert ends(100, of=other) == Range(low=1 + 5 / 1.5, high=1 + 5 * 1.5)
    assert ends(slots=4) == Range(low=1 + 4.5 / 2, high=1 + 4.5 * 2)
    done = dict.fromkeys(rows, TrialState(stage=Stage.FINISHED))
    assert forecast(left_of(rows, done, (), start_s=1.0), [speed_of(row, 100)], slots=2) is None


def test_plan_status_and_live_view_forecast_the_same_time_with_tuning_and_grid(tiny: TinyStudy) -> None:
    tuning = "tuning: {share: 50%, fields: {lr_peak: [1e-3, 2e-3]}, seeds: [1000], strategies: [clip]}\n"
    tiny.declare(levels="5 GFLOP, 20 GFLOP", strategies="clip, siglip", more=tuning)
    study, plan = tiny.study, tiny.plan
    assert plan.tuning is not None
    study.folder.mkdir()
    write_tuning(study, plan)
    (tuned,) = {trial.cell.combination for trial in plan.tuning.ready}
    whole = forecast([PendingTrial.of(trial, None) for trial in plan.all_trials])
    assert whole is not None
    words = format_seconds_range(whole.low, whole.high)

    assert f"about {words} of one slot" in " ".join(tiny.says("plan").split())
    add_event(study, "tuning-started", slots=1)
    assert status(study)["left_s"] == pytest.approx(asdict(whole), rel=1e-3)
    text = io.StringIO()
    with Progress("held-out/top1", terminal(text)) as progress:
        progress.show_trials(
            study.folder, plan, plan.tuning.ready, planned_flops=1, spent_flops=0, phase="tuning"
        )
        progress.tick((), slots=1)
    assert f"about {words} to go" in text.getvalue()

    # One trial of the tuning was half as fast as planned; the grid has a strategy that has not run.
    first, row = plan.tuning.ready[0], planned_row(plan.tuning.ready[0], None)
    planned = first.samples_seen / float(str(row["predicted_s"]))
    add_event(study, "trial-finished", trial=first.trial_id, slot=0, wall_s=2.0, samples_per_s=planned / 2)
    trials = plan.all_trials
    high = [1 + 2 * work_s(t, None).middle * (1.25 if t.cell.combination == tuned else 1.5) for t in trials]
    assert status(study)["left_s"]["high"] == pytest.approx(sum(high), rel=1e-3)


def test_a_sparkline_goes_from_the_lowest_to_the_highest_value() -> None:
    assert sparkline([3, 2.5, 1, 1]) == "█▆▁▁"
    assert sparkline([2, 2]) == "▁▁"
    assert sparkline([]) == ""


def test_trials_of_a_tuning_are_worded_beside_a_grid_with_trunks() -> None:
    parts = ["fixed-compute", 4096, "top40", "mini-ViT-XS-8", "clip", 2e11, 1, 1]
    names = ["regime", "subset_size", "quality", "architecture", "strategy", "level_flops", "seed", "attempt"]
    row = dict(zip(names, parts, strict=True))
    assert trial_words(row | {"phase": math.nan}).endswith("200 GFLOP, seed 1")
    assert trial_words(row | {"phase": "trunk"}).endswith("200 GFLOP, seed 1, trunk")
    assert trial_words(row | {"attempt": 2}).endswith("200 GFLOP, seed 1, attempt 2")
    assert cell_of(row | {"regime": "one-epoch", "level_flops": math.nan}).level == "one-epoch"
