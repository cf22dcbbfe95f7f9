"""Every command reports the same state of a trial, at whatever moment a driver died."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from runners.results import write_table
from runners.store.files import write_json
from runners.trials.trial_files import Outcome, write_failure, write_outcome
from study.show.progress import Progress
from study.state.trial_states import Stage, begun, trial_states
from study.storage.lock import only_run
from tests.progress import progress
from tests.study.conftest import Run
from tests.study.events import write_events
from tests.study.tiny_study import TinyStudy

EVENTS = (
    {"event": "study-started", "slots": 1},
    {"event": "trial-started", "trial": "crashed-run"},
    {"event": "study-started", "slots": 1},
    {"event": "trial-started", "trial": "runs"},
    {"event": "trial-started", "trial": "unbooked"},
    {"event": "trial-left-out", "trial": "left out", "reason": "not started; the budget has no room for it"},
)


def unbook(tiny: TinyStudy, trial: str) -> None:
    """Restore a study's files to the moment between a trial's result and the driver's booking."""
    path, book = tiny.folder / "events.jsonl", tiny.book()
    events = tiny.events()
    began = min(number for number, event in enumerate(events) if event.get("trial") == trial)
    kept = [event for number, event in enumerate(events) if number <= began or event.get("trial") != trial]
    write_events(path, (event for event in kept if event["event"] != "study-ended"))
    del book.trials[trial]
    book.write(tiny.study)
    results = tiny.table()
    tiny.study.write_table("results.parquet", results[results["trial"] != trial])


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_unbooked_result_is_finished_for_every_command(done: TinyStudy) -> None:
    before, book, plan = done.tables(), done.book(), done.plan
    unbook(done, plan.trials[1].trial_id)
    assert done.book() == book

    assert done.says("run --dry-run").startswith("2 trials: 2 finished, 0 to run")
    (level,) = done.status()["levels"]
    assert level == {"name": "3 GFLOP", "done": 2, "running": 0, "failed": 0, "waiting": 0, "left_out": 0}
    assert "no trial is waiting" in done.says("status")
    assert "lacks 1 trial" in done.says("report")
    missing = (done.folder / "report" / "tables" / "missing.md").read_text()
    assert r"| 1 | finished; the next \`run\` adds it to the results |" in missing
    with Progress("held-out/top1", Console(file=io.StringIO(), force_terminal=True)) as progress:
        progress.begin(done.folder, plan, spent_flops=0)
        assert progress._levels()[0].done == 2  # noqa: SLF001 - what the bars are drawn of

    done.run()
    assert done.tables() == before
    assert sum(done.settled().values()) == sum(trial.train_flops for trial in plan.trials)


def test_every_stage_is_recognised(tmp_path: Path) -> None:
    trials = tmp_path / "trials"
    for name in ("unbooked", "diverged", "failed", "runs", "crashed-run", "kept"):
        (trials / name).mkdir(parents=True)
    for name, row in (
        ("unbooked", {"status": "finished", "reason": ""}),
        ("diverged", {"status": "diverged", "reason": "the loss is not finite"}),
    ):
        (trials / name / "curve.parquet").touch()
        known = {"trial": name, "samples_seen": 9}
        write_outcome(trials / name, Outcome(row=row | known, timing={}))
    write_failure(trials / "failed", "TypeError: no")
    for name in ("runs", "crashed-run"):
        write_json(trials / name / "progress.json", progress(10))
    for step in (20, 30):
        (trials / "kept" / f"checkpoint-{step:010d}-0.pt").touch()
    write_events(tmp_path / "events.jsonl", EVENTS)
    names = ("unbooked", "diverged", "failed", "runs", "crashed-run", "kept", "left out", "new")

    with only_run(tmp_path):
        states = trial_states(tmp_path, names)

    assert {name: state.stage for name, state in states.items()} == {
        "unbooked": Stage.FINISHED,
        "diverged": Stage.DIVERGED,
        "failed": Stage.FAILED,
        "runs": Stage.RUNNING,
        "crashed-run": Stage.INTERRUPTED,
        "kept": Stage.INTERRUPTED,
        "left out": Stage.LEFT_OUT,
        "new": Stage.WAITING,
    }
    assert states["kept"].kept_steps == 30
    assert states["failed"].reason == "TypeError: no"
    assert "not finite" in states["diverged"].reason
    assert "no room" in states["left out"].reason
    assert trial_states(tmp_path, ["runs"])["runs"].stage is Stage.INTERRUPTED, "no run is active"
    assert trial_states(tmp_path, ["new"], running={"new"})["new"].stage is Stage.RUNNING


@pytest.mark.parametrize(("made", "stage"), [((), Stage.FINISHED), (("trials",), Stage.WAITING)])
def test_a_study_without_trials_folders_is_read_from_its_tables_and_a_deleted_folder_is_run_again(
    tmp_path: Path, made: tuple[str, ...], stage: Stage
) -> None:
    rows = pd.DataFrame([{"trial": "a", "status": "finished", "reason": ""}])
    write_table(tmp_path / "results.parquet", rows)
    for name in made:
        (tmp_path / name).mkdir()

    found = trial_states(tmp_path, ["a", "b"])

    assert found["a"].stage is stage
    assert found["a"].outcome is None
    assert found["b"].stage is Stage.WAITING


def test_a_published_study_is_done_and_its_dry_run_reports_missing_folders(run: Run) -> None:
    said = run("run small-full --dry-run")
    assert said.startswith("156 trials: 156 to run\n156 of them have a row in results/small-full/results.")
    levels = json.loads(run("status small-full --json"))["levels"]
    assert sum(level["done"] for level in levels) == 156


def leave_trial(folder: Path, *, kept: int) -> None:
    """Leave the files of a trial that has seen 500 samples, with a checkpoint at some of them."""
    folder.mkdir(parents=True)
    write_json(folder / "progress.json", progress(500))
    if kept:
        (folder / f"checkpoint-{kept // 10:010d}-0.pt").touch()


def test_an_interrupted_trial_continues_from_its_checkpoint_or_starts_anew(tmp_path: Path) -> None:
    leave_trial(tmp_path / "trials" / "a", kept=400)
    leave_trial(tmp_path / "trials" / "b", kept=0)
    assert begun(tmp_path, dict.fromkeys(["a", "b", "never"], 100)) == {
        "a": "interrupted; continues from its checkpoint at 40 % of its samples",
        "b": "interrupted before its first checkpoint; starts from scratch",
    }
    with only_run(tmp_path):
        assert begun(tmp_path, {"a": 100}) == {"a": "running; 50 % of its samples seen"}
