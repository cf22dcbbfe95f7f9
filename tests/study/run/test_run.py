"""A study from YAML to rows with real models and shards, on Ray or, where equal, without it."""

import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from runners.results import CURVE_COLUMNS, RESULT_COLUMNS
from runners.trials.trial_files import kept_steps
from study.run.run_context import no_room_advice
from tests.holding import hold
from tests.study.tiny_study import TinyStudy, ended, in_session, read_json
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def test_every_strategy_learns_on_a_vit_and_on_a_cnn(tiny: TinyStudy) -> None:
    strategies = "clip, clip-crop-flip, flip-50, slip"
    tiny.declare(levels="15 GFLOP", architectures="mini-ViT-XXS-8, mini-ConvNeXt", strategies=strategies)

    output = tiny.run()

    results = tiny.table()
    trained = set(zip(results["architecture"], results["strategy"], strict=True))
    assert trained == {
        (architecture, strategy)
        for architecture in ("mini-ViT-XXS-8", "mini-ConvNeXt")
        for strategy in ("clip", "clip-crop-flip", "flip-50", "slip")
        if (architecture, strategy) != ("mini-ConvNeXt", "flip-50")
    }
    left_out = tiny.table("left-out")
    assert left_out["strategy"].tolist() == ["flip-50"]
    assert "patch dropout" in left_out["reason"].item()

    assert set(results["status"]) == {"finished"}
    assert set(RESULT_COLUMNS) < set(results.columns)
    assert results.notna().all(axis=None)
    assert (results["samples_seen"] == results["steps"] * results["batch_size"]).all()
    assert (results["held-out/count"] == 200).all()

    curves = tiny.table("curves")
    assert list(curves.columns) == list(CURVE_COLUMNS)
    for trial, curve in curves.groupby("trial"):
        tenth = max(1, len(curve) // 10)
        assert curve["loss"].tail(tenth).mean() < 0.95 * curve["loss"].head(tenth).mean(), trial
        assert curve["samples_seen"].iloc[-1] == results.set_index("trial")["samples_seen"][trial]

    assert tiny.settled() == {"spent": tiny.planned_flops(), "wasted": 0}
    assert "[7/7]" in output


@pytest.mark.ray
def test_the_same_declaration_gives_the_same_rows_with_a_ray_of_this_machine_and_without(
    tiny: TinyStudy,
) -> None:
    tiny.declare(architectures="mini-ViT-XXS-8, mini-ConvNeXt", strategies="clip, slip")

    process = tiny.start(alone=True)
    output = ended(process)
    wait_for(lambda: not in_session(process.pid))  # the Ray that it started has ended
    with_ray = tiny.tables()
    tiny.folder.rename(tiny.place / "with")
    tiny.run()

    assert "Ray on this machine: " in output
    assert tiny.tables() == with_ray


@pytest.mark.ray
def test_a_ray_of_this_machine_that_dies_is_started_anew_once(tiny: TinyStudy) -> None:
    tiny.declare(levels="600 GFLOP")

    def kept() -> int:
        return max(map(kept_steps, tiny.trials()), default=0)

    with tiny.start(alone=True) as process:
        wait_for(kept)
        kill_part("raylet", process.pid)
        wait_for(lambda: tiny.event_names().count("study-started") == 2)
        first = kept()
        wait_for(lambda: kept() > first)
        kill_part("gcs_server", process.pid, asked_s=1.6)
        output = ended(process, code=5)

    once, twice = output.splitlines()[-2:]
    died = "study: the Ray on this machine has died: "
    assert once.startswith(f"{died}its raylet has ended. ")
    assert once.endswith("Ray is started once more")
    assert twice.startswith(f"{died}no answer from 127.0.0.1:")
    assert kept() > first
    assert "trial-failed" not in tiny.event_names()
    wait_for(lambda: not in_session(process.pid), seconds=60)


def kill_part(of_ray: str, driver: int, *, asked_s: float = 0) -> bool:
    """Kill a part of the Ray that a driver has started, after seconds in which it does not answer.

    Returns whether it was there.
    """
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = path.read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == driver and f"/{of_ray}\0" in (path.parent / "cmdline").read_text():
                os.kill(int(path.parent.name), signal.SIGSTOP)
                time.sleep(asked_s)
                os.kill(int(path.parent.name), signal.SIGKILL)
                return True
    return False


@pytest.mark.ray
@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(("how", "after_s"), [("SIGTERM", 0.0), ("SIGHUP", 1.5), ("SIGUSR1", 4.0)])
def test_a_signal_at_any_moment_of_the_start_stops_a_run(tiny: TinyStudy, how: str, after_s: float) -> None:
    tiny.declare(levels="600 GFLOP")
    with tiny.start(alone=True) as process:
        wait_for(lambda: _holds(process.pid, signal.Signals[how]))
        time.sleep(after_s)
        process.send_signal(signal.Signals[how])
        output = ended(process, code=4)

    assert f"stopped by {how}" in output
    wait_for(lambda: not in_session(process.pid), seconds=60)


def _holds(pid: int, number: signal.Signals) -> bool:
    """Return whether a process blocks or handles a signal: it has come to its first line."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


@pytest.mark.ray
def test_a_ray_that_dies_while_it_starts_is_started_anew_once(tiny: TinyStudy) -> None:
    with tiny.start(alone=True) as process:
        wait_for(lambda: kill_part("raylet", process.pid))
        wait_for(lambda: b"STARTED_ANEW" in Path(f"/proc/{process.pid}/environ").read_bytes())
        wait_for(lambda: kill_part("gcs_server", process.pid))
        output = ended(process, code=5)

    first, second = output.splitlines()[-2:]
    died = "study: the Ray on this machine has died: one of its processes ended while it started."
    assert first.startswith(died)
    assert first.endswith("Ray is started once more")
    assert second.startswith(died)
    # Agents of a raylet that was killed notice it a minute later.
    wait_for(lambda: not in_session(process.pid), seconds=180)


@pytest.mark.ray
def test_a_signal_to_the_process_group_keeps_every_checkpoint_and_leaves_no_process(tiny: TinyStudy) -> None:
    tiny.declare(levels="600 GFLOP", seeds="0, 1")
    with tiny.start(alone=True) as process:
        wait_for(tiny.at_work)
        os.killpg(process.pid, signal.SIGTERM)  # as `timeout`, a terminal and Slurm send it
        output = ended(process, code=4)

    assert "stopped by SIGTERM" in output
    begun = tiny.trials("progress.json")
    assert begun
    for progress in begun:
        assert kept_steps(progress.parent) == read_json(progress)["samples_seen"] // 16
    wait_for(lambda: not in_session(process.pid))


def test_work_lost_to_a_crash_is_booked_and_the_budget_never_exceeded(tiny: TinyStudy) -> None:
    # Room for the trial and no more: what a crash loses can't be done again.
    changes = {"study_flops": "15 GFLOP", "resources": "checkpoint: 1 h, retries: 5"}
    tiny.declare(levels="15 GFLOP", **changes)
    hold(tiny.folder, step=100)
    with tiny.start("--backend", "local") as process:
        wait_for(lambda: any(read_json(path)["samples_seen"] for path in tiny.trials("progress.json")))
        os.kill(read_json(tiny.trials("progress.json")[0])["pid"], signal.SIGKILL)
        output = ended(process, code=3)

    assert "1 of 1 trials" in output
    assert "mini-ViT-XXS-8 clip on 512 pairs (top50) at 15 GFLOP, seed 0" in output
    book = tiny.settled()
    assert book["spent"] == 0 < book["wasted"] <= 15e9
    names = ["trial-set-back", "trial-left-out"]
    assert [each for each in tiny.event_names() if "back" in each or "out" in each] == names
    assert tiny.table().empty


@pytest.mark.usefixtures("undrawn")
def test_a_study_that_is_run_in_parts_is_shown_and_reported_with_what_is_missing(tiny: TinyStudy) -> None:
    levels, both = "2 GFLOP, 3 GFLOP, 4 GFLOP", "mini-ViT-XXS-8, mini-ConvNeXt"
    tiny.declare(levels=levels, architectures=both, seeds="0, 1")
    report = tiny.folder / "report"
    tiny.run("--only mini-ViT-XXS-8")
    said = tiny.says("report --why")
    assert said.startswith("6 of 12 trials")
    assert "  best of 2 configurations, 1 of them run here" in said
    assert "| mini-ConvNeXt, CLIP, 512 pairs, top 50 % |" in (report / "tables" / "missing.md").read_text()

    tiny.run()
    shown = tiny.says("status")
    rows = [line.split() for line in shown.splitlines()]
    assert ["all", "12", "0", "0", "0"] in rows
    assert "12 of 12 trials" in tiny.says("report")
    page = (report / "report.html").read_text()
    assert len(pd.read_csv(report / "tables" / "best.csv")) == 3
    assert "mini-ConvNeXt" in page
    spent = re.search(r"(\S+ \S+) spent, \d+ % of the study budget of 10 TFLOP", shown)
    assert spent is not None
    assert f"{spent[1]} of training, " in page, "the page and status agree to the digit"
    assert read_json(tiny.folder / "environment.json")["torch"] in page


@pytest.mark.parametrize(("wait_s", "way_out"), [(None, "--address"), (0, "wait: (now 0 s)")])
def test_a_trial_that_fits_on_no_node_names_the_way_out(wait_s: float | None, way_out: str) -> None:
    assert way_out in no_room_advice(wait_s)
