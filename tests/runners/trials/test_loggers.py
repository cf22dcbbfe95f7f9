"""TensorBoard and Weights & Biases get a trial's curve during training, then its metrics."""

import sys
import time
from pathlib import Path

import pytest

from budgets.declaration.sections import LOGGERS
from runners.results import CURVE_COLUMNS, plan_row, to_frame, trial_curve, write_table
from runners.store.files import write_json
from runners.trials.loggers import Loggers
from tests.progress import progress
from tests.runners.tiny import tiny_trial

TRIAL = tiny_trial(steps=4)
NAME = TRIAL.trial_id
LOSSES = [2.5, 2.0, 1.75, 1.5]
CURVE = {16: 2.5, 32: 2.0, 48: 1.75, 64: 1.5}
ROW = {**plan_row(TRIAL), "status": "finished", "train_loss": 1.5, "held-out/top1": 0.25}


class Driver:
    """The loggers of one driver; any message is an error."""

    def __init__(self, folder: Path, name: str) -> None:
        self.said: list[str] = []
        self._folder, self._loggers = folder, Loggers((name,), folder, self.said.append)

    def see(self, steps: int) -> None:
        """Report the trial's progress to the loggers."""
        (self._folder / "trials" / NAME).mkdir(parents=True, exist_ok=True)
        path = self._folder / "trials" / NAME / "progress.json"
        write_json(path, progress(16 * steps, curve=LOSSES[:steps]))
        self._loggers._due = 0.0  # noqa: SLF001 - it looks every few seconds
        self._loggers.follow({NAME: TRIAL}, [NAME])

    def finish(self) -> None:
        curve = self._folder / "curve.parquet"
        write_table(curve, to_frame(trial_curve(TRIAL, LOSSES, steps=4), CURVE_COLUMNS))
        self._loggers.finish(ROW, curve)

    def leave(self) -> None:
        self._loggers.leave(NAME)


def scalars(folder: Path, name: str = NAME) -> dict[str, list[tuple[int, float]]]:
    """Return a trial's scalars in TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    events = EventAccumulator(str(folder / "tensorboard" / name))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def history(folder: Path) -> list[tuple[int, float]]:
    """Return the losses in the trial's only W&B run, after W&B's service has written them."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # noqa: PLC0415

    (path,) = (folder / "wandb" / NAME).rglob("*.wandb")
    assert path.name == f"run-{NAME}.wandb"
    deadline, said = time.monotonic() + 30, [Record()]
    while said[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < deadline, "it writes no end"
        said = [Record(), *map(Record.FromString, records(path.read_bytes()))]
    found = []
    for record in said:
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if "train/loss" in items:
            found.append((record.history.step.num, float(items["train/loss"])))
    return found


def records(content: bytes) -> list[bytes]:
    """Yield the records of LevelDB's log format, which W&B writes after a header of seven bytes."""
    found, part, at = [], b"", 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            found.append(part)
            part = b""
    return found


def test_tensorboard_logs_each_step_once_despite_kills_and_failures(tmp_path: Path) -> None:
    first = Driver(tmp_path, "tensorboard")
    first.see(0)
    assert not (tmp_path / "tensorboard").exists(), "nothing to show yet"
    first.see(3)
    assert scalars(tmp_path)["train/loss"] == list(CURVE.items())[:3]
    first.see(2)  # its worker was killed, and it went on from its checkpoint
    first.see(3)
    assert scalars(tmp_path)["train/loss"] == list(CURVE.items())[:3]

    second = Driver(tmp_path, "tensorboard")  # the first was killed as well
    second.see(2)
    second.leave()  # the trial failed: its log stays
    assert scalars(tmp_path)["train/loss"] == list(CURVE.items())[:2]
    third = Driver(tmp_path, "tensorboard")
    third.finish()
    third.finish()

    found = scalars(tmp_path)
    assert found["train/loss"] == list(CURVE.items())
    assert found["held-out/top1"] == [(64, 0.25)]
    assert first.said == second.said == third.said == []


@pytest.mark.slow
def test_wandb_logs_each_step_once_and_offline_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    first = Driver(tmp_path, "wandb")
    first.see(3)
    first.see(2)
    first.leave()
    assert history(tmp_path) == list(CURVE.items())[:3]

    second = Driver(tmp_path, "wandb")
    second.see(1)
    second.finish()
    assert history(tmp_path) == list(CURVE.items())
    (path,) = tmp_path.rglob("*.wandb")
    content = path.read_bytes()
    assert b"held-out/top1" in content

    third = Driver(tmp_path, "wandb")
    third.finish()
    assert [path.read_bytes() for path in tmp_path.rglob("*.wandb")] == [content], "once is enough"
    assert first.said == second.said == third.said == []


@pytest.mark.parametrize("name", LOGGERS)
def test_missing_logger_library_raises_before_any_compute(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ValueError, match=f"loggers: {name} .*`pip install"):
        Loggers((name,), tmp_path, print)


def test_failing_logger_is_reported_once_and_does_not_end_the_study(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    driver = Driver(tmp_path, "tensorboard")

    driver.see(1)
    driver.see(2)
    driver.finish()

    assert [message.partition(NAME)[0] for message in driver.said] == ["note: tensorboard: trial "] * 2
    assert ["when the trial ends" in message for message in driver.said] == [True, False]
    assert ["by the next run" in message for message in driver.said] == [False, True]
