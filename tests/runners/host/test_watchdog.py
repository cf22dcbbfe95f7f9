"""Trials that hang or don't leave are ended, and the reason names the rank and where each stood."""

import json
import os
import pickle
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from budgets.cost.strategy import Batch, Strategy
from runners.host.faults import ProcessEnded
from runners.host.process import FreshProcess
from runners.host.watchdog import Phase, RankStatus, hanging, position
from runners.strategies.clip import Clip
from runners.training import ranks
from runners.training.ranks import rank, run_ranks
from runners.trials.trial import run_trial, take_part
from runners.trials.trial_files import Outcome, kept_steps
from runners.trials.trial_job import TrialJob
from tests.fresh import in_fresh_process
from tests.runners.scheduling import jobs
from tests.runners.tiny import RESULT_FILES, tiny_job, tiny_trial
from tests.waiting import wait_for

T = TypeVar("T")


def standing(rank: int, phase: Phase, step: int, *, late: bool = True, **known: object) -> RankStatus:
    seen = RankStatus(
        rank=rank, host="a", phase=phase, step=step, meets=False, age_s=9.0 if late else 1.0, limit_s=5.0
    )
    return replace(seen, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("standings", "late"),
    [
        # Rank 1 waits for rank 0, which still evaluates, or which still waits for its data.
        ([standing(0, Phase.EVALUATION, 7, late=False), standing(1, Phase.STEP, 8)], []),
        ([standing(0, Phase.DATA, 7), standing(1, Phase.STEP, 8)], [0]),
        # Both are late, but one came to the step only now.
        ([standing(0, Phase.STEP, 8), standing(1, Phase.STEP, 8, late=False)], []),
        # Of ranks at the same place, one does not answer, or one does not wait for the others.
        ([standing(0, Phase.STEP, 8), standing(1, Phase.STEP, 8, silent="stopped")], [1]),
        ([standing(0, Phase.SET_UP, 0, meets=True), standing(1, Phase.SET_UP, 0)], [1]),
        ([standing(0, Phase.STEP, 8, meets=True), standing(1, Phase.STEP, 8, meets=True)], [0, 1]),
        ([standing(0, Phase.SET_UP, 0, limit_s=0.0), standing(1, Phase.STEP, 8)], []),
        ([], []),
    ],
)  # fmt: skip
def test_the_rank_that_the_others_wait_for_hangs(standings: list[RankStatus], late: list[int]) -> None:
    assert [each.rank for each in hanging(standings)] == late


@pytest.mark.parametrize("how", ["stopped", "waits"])
def test_a_process_that_hangs_is_a_crash_with_its_stacks(tmp_path: Path, how: str) -> None:
    began = time.monotonic()

    end = FreshProcess(pickle.dumps(partial(jobs.hang, tmp_path, how))).wait()

    assert time.monotonic() - began < 60
    assert (end.how, end.lost_connection) == ("crashed", False)
    assert "in its set-up for" in end.reason
    assert ("stopped by a signal" in end.reason) == (how == "stopped")
    stacks = tmp_path / "stacks-0.txt"
    assert stacks.exists() == (how == "waits")
    assert how == "stopped" or ("in hang" in stacks.read_text() and f"{stacks}" in end.reason)


@pytest.fixture
def job(pool: Path, tmp_path: Path) -> TrialJob:
    return tiny_job(tiny_trial(), pool, tmp_path / "trial", ranks=2, checkpoint_steps=5)


def stopping_in_step(folder: Path, run: Callable[[], T], *, node: bool = False) -> T:
    """Run ranks, of which rank 1 stops in step 18, perhaps with its node; these are forked from here."""
    views = Strategy.views

    def stop(self: Strategy, batch: Batch, generator: torch.Generator) -> object:
        if rank() == 1 and position._record.step == 18:  # noqa: SLF001
            (folder / "stopped").write_text(f"{os.getpid()}")
            if node:
                os.kill(os.getppid(), signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
        return views(self, batch, generator)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Clip, "views", stop)
        return run()


def test_a_trial_one_of_whose_ranks_stops_crashes_and_continues_to_the_same_row(job: TrialJob) -> None:
    quiet = run_trial(replace(job, folder=job.folder.with_name("quiet")))
    run = partial(run_trial, replace(job, hang_s=5.0))
    with pytest.raises(ProcessEnded) as raised:
        in_fresh_process(partial(stopping_in_step, job.folder, run))

    reason = str(raised.value)
    assert raised.value.fault == "crashed"
    assert time.time() - (job.folder / "stopped").stat().st_mtime < 60
    assert reason.startswith(f"rank 1 of 2: hung on {socket.gethostname()} in step 18 for ")
    assert re.search(
        r"stopped by a signal \(limit: \d+ s\); rank 0 in step 18; stacks of all threads: ", reason
    )
    assert "backward" in (job.folder / "stacks-0.txt").read_text()
    assert kept_steps(job.folder) == 15
    assert json.dumps(run_trial(job).row) == json.dumps(quiet.row)
    assert {path.name for path in job.folder.iterdir()} == RESULT_FILES | {"stopped"}


def _run_and_tell(job: TrialJob) -> Outcome:
    """Run a trial, and ask it to leave once one of its ranks has stopped."""

    def tell() -> None:
        while not (job.folder / "stopped").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=tell).start()
    return run_trial(job)


def test_a_trial_that_can_not_leave_ends_after_the_grace_with_its_checkpoint(job: TrialJob) -> None:
    run = partial(stopping_in_step, job.folder, partial(_run_and_tell, job))
    with pytest.raises(
        ProcessEnded, match=r"asked to leave, and ended after \d s in which it did not"
    ) as raised:
        in_fresh_process(run, {"runners.host.watchdog.GRACE_S": 2.0})
    assert raised.value.fault == "left"
    assert kept_steps(job.folder) == 15


def _node(job: TrialJob, address: str, node: int) -> Outcome | None:
    os.environ.update(dict.fromkeys(ranks.INTERFACES, "lo"))
    vars(ranks).update(_SILENT_S=6.0, _TELL_S=0.5)
    part = partial(take_part, job)
    run = partial(run_ranks, part, count=1, gpus=False, node=node, nodes=2, address=address)
    return stopping_in_step(job.folder, run, node=True)


def test_a_node_that_no_longer_answers_is_named_by_the_others(job: TrialJob) -> None:
    job = replace(job, ranks=1, hang_s=8.0)
    job.folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    nodes = [FreshProcess(pickle.dumps(partial(_node, job, address, node))) for node in (0, 1)]

    end = nodes[0].wait()
    nodes[1].kill()
    nodes[1].wait()

    assert end.how == "crashed"
    assert end.lost_connection
    assert end.reason.startswith("rank 0 of 2: waits for rank 1, which hung on ")
    (told,) = re.findall(r" in step (\d+) for \d+ s, its node is silent \(", end.reason)
    assert int(told) <= 18, "where it stood when it last told"
    stopped = Path(f"/proc/{(job.folder / 'stopped').read_text()}/cmdline")
    wait_for(lambda: not (stopped.exists() and stopped.read_bytes()))
