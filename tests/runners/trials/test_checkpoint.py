"""Damaged checkpoints are rejected; computed FLOPs are counted whenever the process dies."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from runners.strategies.clip import Clip
from runners.training.learner import Learner
from runners.trials.checkpoint import load_checkpoint, save_checkpoint
from runners.trials.meter import FlopCount, Meter, read_count
from runners.trials.trial_files import checkpoints, drop_damaged, kept_steps

ROOT = Path(__file__).resolve().parents[3]


class State:
    """A state to save that depends on a seed."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.modules = nn.ModuleDict({"model": nn.Linear(5, 3)})
        optimizer = torch.optim.AdamW(self.modules.parameters())
        self.losses = torch.rand(40)
        self.modules["model"](torch.rand(2, 5)).sum().backward()
        optimizer.step()
        self.learner = Learner(
            model=self.modules["model"],
            strategy=Clip(),
            modules=self.modules,
            optimizer=optimizer,
            scaler=None,
            across=None,
            average=None,
            losses=self.losses,
        )

    def save(self, folder: Path, step: int) -> None:
        save_checkpoint(folder, self.learner, step=step)

    def load(self, folder: Path) -> int:
        return load_checkpoint(folder, self.learner)

    def same(self, other: "State", step: int) -> bool:
        return torch.equal(self.losses[:step], other.losses[:step]) and all(
            torch.equal(value, other.modules.state_dict()[name])
            for name, value in self.modules.state_dict().items()
        )


def test_last_two_checkpoints_are_kept_without_partial_files(tmp_path: Path) -> None:
    for step in (7, 9, 11, 101):
        State(step).save(tmp_path, step)

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


def test_with_both_checkpoints_damaged_a_trial_starts_at_its_first_step(tmp_path: Path) -> None:
    for step in (10, 20):
        State(step).save(tmp_path, step)
    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])

    assert len(drop_damaged(tmp_path)) == 2
    assert State(3).load(tmp_path) == 0


def test_flop_count_is_exact_after_any_end_and_continues(tmp_path: Path) -> None:
    counting = (
        "import os, sys, signal; from pathlib import Path; from runners.trials.meter import Meter\n"
        "meter = Meter(Path(sys.argv[1]))\n"
        "for _ in range(1234): meter.add(train_flops=7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert read_count(tmp_path) is None
    for _ in range(2):
        ended = subprocess.run([sys.executable, "-c", counting, tmp_path], cwd=ROOT, check=False)
        assert ended.returncode == -signal.SIGKILL
    with Meter(tmp_path) as meter:
        meter.add(evaluation_flops=3)

    assert read_count(tmp_path) == FlopCount(train_flops=2 * 1234 * 7, evaluation_flops=3)
    os.truncate(tmp_path / "meter", 0)
    assert read_count(tmp_path) is None
