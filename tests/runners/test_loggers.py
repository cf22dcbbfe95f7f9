"""What TensorBoard and Weights & Biases are given: a trial's whole curve and its metrics, once."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from budgets.declaration import LOGGERS
from runners.loggers import Loggers
from runners.results import CURVE_COLUMNS, to_frame, write_table

ROW: Mapping[str, object] = {
    "trial": "0123456789ab",
    "architecture": "mini-ViT-XXS-8",
    "strategy": "clip",
    "seed": 0,
    "samples_seen": 128,
    "held-out/top1": 0.25,
}
LOSSES = {64: 2.5, 128: 1.5}


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    path = tmp_path / "curve.parquet"
    rows = [
        {
            "trial": ROW["trial"],
            "step": samples // 64,
            "samples_seen": samples,
            "train_flops": 1e6 * samples,
            "loss": loss,
            "lr": 1e-3,
        }
        for samples, loss in LOSSES.items()
    ]
    write_table(path, to_frame(rows, CURVE_COLUMNS))
    return path


def told_of(names: tuple[str, ...], folder: Path, curve: Path, *, times: int = 1) -> list[str]:
    said: list[str] = []
    for _ in range(times):
        Loggers(names, folder, said.append).add(ROW, curve)
    return said


def test_tensorboard_has_each_step_once_however_often_a_trial_is_given(tmp_path: Path, curve: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415

    assert told_of(("tensorboard",), tmp_path, curve, times=2) == []

    events = EventAccumulator(str(tmp_path / "tensorboard" / str(ROW["trial"])))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("train/loss")} == LOSSES
    assert [(event.step, event.value) for event in events.Scalars("held-out/top1")] == [(128, 0.25)]


def test_wandb_keeps_a_trial_on_this_machine_until_it_is_told_otherwise(
    tmp_path: Path, curve: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))

    assert told_of(("wandb",), tmp_path, curve) == []
    (run,) = (tmp_path / "wandb" / str(ROW["trial"])).rglob("*.wandb")
    assert run.name == f"run-{ROW['trial']}.wandb"
    content = run.read_bytes()
    assert b"train/loss" in content
    assert b"held-out/top1" in content

    assert told_of(("wandb",), tmp_path, curve) == []
    assert [path.read_bytes() for path in tmp_path.rglob("*.wandb")] == [content], "once is enough"


@pytest.mark.parametrize("name", LOGGERS)
def test_a_library_that_is_missing_is_named_before_anything_is_spent(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ValueError, match=f"loggers: {name} needs the package of that name: `pip install"):
        Loggers((name,), tmp_path, print)


def test_a_logger_that_fails_is_told_of_and_ends_no_study(tmp_path: Path, curve: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be")

    (said,) = told_of(("tensorboard",), tmp_path, curve)

    assert "tensorboard: trial 0123456789ab is not logged, the next run does it" in said
