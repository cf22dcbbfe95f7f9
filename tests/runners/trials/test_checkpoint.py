"""Damaged checkpoints are rejected; computed FLOPs are counted whenever the process dies."""

import hashlib
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from budgets.cost.strategy import find_strategy
from budgets.declaration.recipe import Recipe
from runners.host.faults import fault_of, patiently
from runners.store.files import write_json
from runners.training.learner import make_learner
from runners.trials import checkpoint, trial_files
from runners.trials.checkpoint import (
    CheckpointWriter,
    load_checkpoint,
    save_checkpoint,
    save_hashed,
    write_checkpoint,
)
from runners.trials.meter import FlopCount, Meter, meter_text, read_meter
from runners.trials.trial_files import checkpoints, drop_damaged, kept_steps
from tests.root import ROOT


class State:
    """A state to save that depends on a seed."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        model = nn.Linear(5, 3)
        model.register_buffer("logit_scale", torch.zeros(()))  # it says where the model is
        self.learner = make_learner(model, find_strategy("clip"), recipe=Recipe(), lr_peak=1e-3, steps=40)
        self.modules, self.losses = self.learner.modules, self.learner.losses
        self.losses.copy_(torch.rand(40))
        model(torch.rand(2, 5)).sum().backward()
        self.learner.optimizer.step()

    def save(self, folder: Path, step: int) -> None:
        save_checkpoint(folder, self.learner, step=step)

    def load(self, folder: Path) -> int:
        return load_checkpoint(folder, self.learner)

    def same(self, other: "State", step: int) -> bool:
        return torch.equal(self.losses[:step], other.losses[:step]) and all(
            torch.equal(value, other.modules.state_dict()[name])
            for name, value in self.modules.state_dict().items()
        )


def test_last_two_checkpoints_are_kept_and_named_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(trial_files, "file_digest", lambda _path: pytest.fail("reads the file again"))
        for step in (7, 9, 11, 101):
            State(step).save(tmp_path, step)

    for path in checkpoints(tmp_path):
        assert path.stem.split("-")[2] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert [path.name.split("-")[1] for path in checkpoints(tmp_path)] == ["0000000101", "0000000011"]
    assert len(list(tmp_path.iterdir())) == 2
    assert kept_steps(tmp_path) == 101


def test_damaged_newest_checkpoint_falls_back_to_the_previous_one(tmp_path: Path) -> None:
    first, second = State(1), State(2)
    first.save(tmp_path, 10)
    second.save(tmp_path, 20)
    newest = checkpoints(tmp_path)[0]
    whole, draw = newest.read_bytes(), random.Random(0)
    flipped = []
    for place in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(30))]:
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        flipped.append(bytes(content))

    for damaged in (b"", whole[:-1], whole + b"\0", *flipped):
        newest.write_bytes(damaged)
        found = State(3)

        assert found.load(tmp_path) == 10
        assert found.same(first, 10)
        assert kept_steps(tmp_path) == 10

    newest.write_bytes(whole)
    assert drop_damaged(tmp_path) == []
    found = State(3)
    assert found.load(tmp_path) == 20
    assert found.same(second, 20)

    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    assert len(drop_damaged(tmp_path)) == 2
    assert State(3).load(tmp_path) == 0, "the trial starts at its first step"


def writer(folder: Path, state: State, *, seconds: float = 1e9, steps: int = 0) -> CheckpointWriter:
    return CheckpointWriter(
        folder, state.learner, seconds=seconds, steps=steps, first_step=0, background=True
    )


def test_background_checkpoint_holds_the_state_of_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, state, before = threading.Event(), State(1), State(1)

    def later(folder: Path, content: Mapping[str, Any]) -> None:
        go.wait(30)
        write_checkpoint(folder, content)

    monkeypatch.setattr(checkpoint, "write_checkpoint", later)
    checkpoints_of = writer(tmp_path, state, steps=5)

    assert checkpoints_of.is_due(5)
    checkpoints_of.write(5)
    for parameter in state.modules.parameters():  # training continues while the file is being written
        parameter.data.zero_()
    state.losses.zero_()
    assert not checkpoints_of.is_due(9), "a checkpoint of step 5 is being written"
    assert (checkpoints_of.step, kept_steps(tmp_path)) == (0, 0)
    go.set()
    checkpoints_of.settle()

    assert (checkpoints_of.step, kept_steps(tmp_path)) == (5, 5)
    found = State(3)
    assert found.load(tmp_path) == 5
    assert found.same(before, 5)


def test_background_checkpoint_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    checkpoints_of = writer(folder, State(1), seconds=0.05)
    checkpoints_of.write(5)
    checkpoints_of.settle()
    assert checkpoints_of.step == 0

    folder.mkdir()
    time.sleep(0.06)
    assert checkpoints_of.is_due(6)
    checkpoints_of.write(6)
    checkpoints_of.settle()
    assert (checkpoints_of.step, kept_steps(folder)) == (6, 6)


def test_checkpoints_hold_up_training_for_two_percent_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]

    def copy(state: dict[str, Any]) -> dict[str, Any]:
        clock[0] += 3.0  # seconds that the copy of a large state takes
        return state

    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoint, "_copied", copy)
    monkeypatch.setattr(checkpoint, "write_checkpoint", lambda *_: None)
    checkpoints_of = writer(tmp_path, State(1), seconds=30)
    begun, steps = [], range(1, 2000)
    for step in steps:
        clock[0] += 0.5
        if checkpoints_of.is_due(step):
            begun.append(clock[0])
            checkpoints_of.write(step)
            checkpoints_of.settle()

    assert begun[0] == 130
    assert [later - earlier for earlier, later in itertools.pairwise(begun)] == [153.0] * 6
    assert 3 * len(begun) / (clock[0] - 100) < 0.021


def test_progress_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    write_json(tmp_path / "progress.json", {"samples_seen": 3}, sync=False)
    assert json.loads((tmp_path / "progress.json").read_text()) == {"samples_seen": 3}
    assert not synced
    write_json(tmp_path / "result.json", {"row": 3})
    assert len(synced) == 2, "the file and its folder"
    assert len(list(tmp_path.iterdir())) == 2


def test_flop_count_is_exact_after_any_end_and_continues(tmp_path: Path) -> None:
    counting = (
        "import os, sys, signal; from pathlib import Path; from runners.trials.meter import Meter\n"
        "meter = Meter(Path(sys.argv[1]))\n"
        "for _ in range(1234): meter.add(train_flops=7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert read_meter(tmp_path) is None
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", counting, tmp_path], cwd=ROOT, check=False)
        assert ended.returncode == -signal.SIGKILL
    with Meter(tmp_path) as meter:
        meter.add(evaluation_flops=3)

    assert read_meter(tmp_path) == FlopCount(train_flops=2 * 1234 * 7, evaluation_flops=3)
    for damaged in (b"", b"\0" * 62, b"garbage"):
        (tmp_path / "meter").write_bytes(damaged)
        assert read_meter(tmp_path) is None


def test_count_read_in_the_middle_of_a_write_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = meter_text(FlopCount(train_flops=699)), meter_text(FlopCount(train_flops=706))
    assert read_meter(tmp_path) is None
    (tmp_path / "meter").write_bytes(new)
    reads = iter([new[:29] + old[29:], new])
    monkeypatch.setattr(Path, "read_bytes", lambda _: next(reads))

    assert read_meter(tmp_path) == FlopCount(train_flops=706)


def test_a_file_over_the_limit_says_which_file_needs_how_much_and_is_not_retried(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        content = {"a": [torch.zeros(1_000_000)]}
        with pytest.raises(OSError, match=r"/weights.pt: .* 4\.0 MB.*File too large") as error:
            patiently(lambda: save_hashed(content, tmp_path / "weights.pt"), patience_s=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert fault_of(error.value) == "failed"
    assert save_hashed({"a": torch.zeros(10)}, tmp_path / "weights.pt")
