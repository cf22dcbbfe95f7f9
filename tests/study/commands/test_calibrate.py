"""``python -m study calibrate``: its measurements are used by plans, prices and runs."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from budgets.declaration.recipe import Recipe
from budgets.planning.resources import estimated_memory
from runners.host.faults import ProcessEnded
from runners.scheduling.local_backend import LocalBackend
from runners.store.files import write_json
from runners.trials.throughput import Throughput, read_calibration
from runners.trials.trial_job import TrialJob
from runners.trials.try_kind import TriedKind
from study.declare.load import load_declaration
from study.run import calibration, try_kinds
from study.run.calibration import require_named
from study.state.plan_study import device_throughput, measured_throughput, plan_study
from tests.runners.tiny import tiny_trial
from tests.study.tiny_study import TinyStudy
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

FOUND = Throughput(
    architecture="mini-ViT-XXS-8", strategy="clip", batch_size=16, precision="bf16", steps=10,
    samples_per_s=1000.0, memory_bytes=1, gpus=1,
)  # fmt: skip


def test_the_plan_uses_the_measured_speed_of_every_kind_of_trial(tiny: TinyStudy) -> None:
    tiny.declare(strategies="clip, flip-50", seeds="0, 1")

    tiny.says("calibrate --seconds 1")

    here = tiny.study
    found = read_calibration(here.calibration)
    assert found is not None
    assert [(each.strategy, each.batch_size) for each in found.kinds] == [("clip", 16), ("flip-50", 32)]
    # A process that has imported torch holds 200 MB and this small model hardly more.
    assert all(each.steps >= 10 and 2e8 < each.memory_bytes < 2e9 for each in found.kinds)
    assert not (tiny.folder / "trials").exists()

    plan = plan_study(here)
    assert measured_throughput(here, plan) == found.speeds
    assert "4 of 4 trials" in tiny.says("plan")
    # A price is that of a device: this was measured on a processor, or on another one.
    priced = load_declaration(Path("study/declare/declarations/paper.yaml")).cluster
    on_cluster = replace(here, declaration=replace(here.declaration, cluster=priced))
    assert device_throughput(on_cluster) == {}
    replace(found, device="h100-sxm").write(here.calibration)
    assert device_throughput(on_cluster) == found.speeds


def test_no_more_trials_run_at_once_than_the_one_with_most_cores_leaves_room_for(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = "rules: [{strategies: [flip-50], cpus: 3}]"
    tiny.declare(strategies="clip, flip-50", resources=rules)
    for cores, at_once in ((4, 1), (6, 2)):
        monkeypatch.setattr(calibration, "usable_cores", lambda cores=cores: cores)
        first = next(calibration.calibrate_study(tiny.study, device_name=None, seconds=1))
        assert first.startswith("2 kinds ")
        assert f", {at_once} at once, " in first


def test_a_kind_that_cannot_be_measured_is_named_and_the_others_are_kept(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.declare(strategies="clip, flip-50")
    monkeypatch.setattr(try_kinds, "try_kind", fail_for_flip)

    error = tiny.says("calibrate --seconds 1", code=2).splitlines()[-1]
    assert error.endswith(" mini-ViT-XXS-8 flip-50: RuntimeError: the device is full")
    found = read_calibration(tiny.study.calibration)
    assert found is not None
    assert [each.combination for each in found.kinds] == [("mini-ViT-XXS-8", "clip")]


def test_the_estimate_of_memory_is_that_of_the_unmasked_tail() -> None:
    def estimate(strategy: str, tail: float) -> int:
        trial = tiny_trial(strategy=strategy, recipe=Recipe(unmasked_tail=tail))
        return estimated_memory(replace(trial, batch_size=512))

    assert estimate("flip-50", 0.0) < estimate("flip-50", 0.01) == estimate("clip", 0.0)


def fail_for_flip(job: TrialJob, seconds: float) -> TriedKind:  # noqa: ARG001 - as the real one
    if job.trial.cell.strategy != "clip":
        raise RuntimeError("the device is full")
    return TriedKind(speed=FOUND)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("samples_per_s", 0.0, "a number above 0"),
        ("samples_per_s", float("nan"), "a number above 0"),
        ("samples_per_s", "fast", "a number above 0"),
        ("memory_bytes", -1, "a number, 0 or more"),
        ("architecture", ["mini-ViT-XXS-8"], "a text"),
    ],
)
def test_a_measurement_that_no_forecast_can_use_is_named(
    tmp_path: Path, field: str, value: object, allowed: str
) -> None:
    file, kind = tmp_path / "throughput.json", asdict(FOUND) | {field: value}
    write_json(file, {"machine": "here", "device": None, "side_by_side": 1, "kinds": [kind]})
    damage = re.escape(f"{file} is damaged (kinds[0].{field} is {value!r}, and must be {allowed}); delete it")
    with pytest.raises(ValueError, match=f"^{damage}"):
        read_calibration(file)


def test_a_damaged_measurement_ends_plan_and_calibrate(tiny: TinyStudy) -> None:
    file = tiny.study.calibration
    file.parent.mkdir()
    file.write_text("{}", encoding="utf-8")
    for command in ("plan", "calibrate"):
        assert str(file) in tiny.says(command, code=2)

    file.unlink()
    tiny.says("plan")


def test_a_device_without_gpus_of_a_trial_is_refused(tiny: TinyStudy) -> None:
    refused = tiny.says("calibrate --device h100", code=2)
    assert refused.startswith("study: --device h100 ")
    assert "resources.gpus is 0" in refused


def test_the_declared_device_must_fit_the_gpus_name() -> None:
    assert require_named("h100-sxm", "NVIDIA H100 80GB HBM3") == "h100-sxm"
    assert require_named("v100-sxm-32gb", "Tesla V100-SXM2-32GB") == "v100-sxm-32gb"
    with pytest.raises(ValueError, match=r"a100-sxm-40gb, .* NVIDIA H100"):
        require_named("a100-sxm-40gb", "NVIDIA H100 PCIe")


def _fail_or_die(job: TrialJob, seconds: float) -> TriedKind:  # noqa: ARG001 - as the real one
    if job.trial.cell.strategy == "siglip":
        raise ProcessEnded("failed", "rank 1 of 2: CUDA out of memory")
    if job.trial.cell.strategy == "flip-50":
        os.kill(os.getpid(), signal.SIGKILL)
    return TriedKind(speed=FOUND)


def test_a_kind_that_fails_or_is_killed_leaves_the_others_measured(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.declare(strategies="siglip, flip-50, clip")
    monkeypatch.setattr(try_kinds, "try_kind", _fail_or_die)

    assert list(tried(tiny)) == [
        ("mini-ViT-XXS-8 siglip", "rank 1 of 2: CUDA out of memory"),
        ("mini-ViT-XXS-8 flip-50", "the trial's process died by SIGKILL"),
        ("mini-ViT-XXS-8 clip", TriedKind(speed=FOUND)),
    ]


def tried(tiny: TinyStudy, *, at_once: int = 1) -> Iterator[tuple[str, TriedKind | str]]:
    """Try each kind of a study's trials on this machine; yield its words and what was found."""
    kinds = {" ".join(trial.cell.combination): (trial, ("this machine",)) for trial in tiny.plan.trials}
    with LocalBackend(modules=("runners.trials.try_kind",)) as backend:
        for job, found in try_kinds.try_kinds(tiny.study, kinds, backend, seconds=1.0, at_once=at_once):
            yield job.trial, found


def _try_soon(job: TrialJob, seconds: float) -> TriedKind:  # noqa: ARG001 - as the real one
    if job.trial.cell.strategy == "flip-50":
        (job.folder.parent / "files").mkdir()
        time.sleep(60)
    wait_for((job.folder.parent / "files").exists, seconds=60)
    return TriedKind(speed=FOUND)


def test_an_interrupted_calibration_leaves_no_files(
    tiny: TinyStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.declare(strategies="clip, flip-50")
    monkeypatch.setattr(try_kinds, "try_kind", _try_soon)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    kinds = tried(tiny, at_once=2)
    assert next(kinds) == ("mini-ViT-XXS-8 clip", TriedKind(speed=FOUND))
    kinds.close()  # type: ignore[attr-defined]  # a generator

    assert list(temporary.iterdir()) == []
