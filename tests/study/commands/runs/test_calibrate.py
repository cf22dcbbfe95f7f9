"""``python -m study calibrate``: its measurements are used by plans, prices and runs."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from budgets.declaration.recipe import Recipe
from runners.host.files import write_json
from runners.trials import measure_speed
from runners.trials.throughput import Throughput, read_calibration
from runners.trials.trial_job import TrialJob
from study.cli import main
from study.declare.load import load_declaration
from study.run import calibration
from study.run.calibration import estimated_memory, require_named
from study.state.plan_study import device_throughput, measured_throughput, plan_study
from tests.runners.tiny import tiny_trial
from tests.study.conftest import study_in, write_declaration

pytestmark = pytest.mark.slow

FOUND = Throughput(
    architecture="mini-ViT-XXS-8", strategy="clip", batch_size=16, precision="bf16", steps=10,
    samples_per_s=1000.0, memory_bytes=1, gpus=1,
)  # fmt: skip


def test_the_plan_uses_the_measured_speed_of_every_kind_of_trial(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, flip-50", seeds="0, 1")

    assert main(["calibrate", str(declaration), "--seconds", "1", "--results", str(tmp_path)]) == 0

    declared = load_declaration(declaration)
    here = study_in(declaration=declared, folder=tmp_path / "tiny", pools=tmp_path)
    found = read_calibration(here.calibration)
    assert found is not None
    assert [each.combination for each in found.kinds] == [
        ("mini-ViT-XXS-8", "clip"),
        ("mini-ViT-XXS-8", "flip-50"),
    ]
    assert [each.batch_size for each in found.kinds] == [16, 32]
    # A process that has imported torch holds 200 MB and this small model hardly more.
    assert all(each.steps >= 10 and 2e8 < each.memory_bytes < 2e9 for each in found.kinds)
    assert not (tmp_path / "tiny" / "trials").exists()

    plan = plan_study(here)
    assert measured_throughput(here, plan) == found.speeds
    capsys.readouterr()
    assert main(["plan", str(declaration), "--results", str(tmp_path)]) == 0
    assert "of one slot (4 of 4 trials by measured throughput)" in capsys.readouterr().out
    # A price is that of a device: this was measured on a processor, or on another one.
    priced = load_declaration(Path("study/declare/declarations/paper.yaml")).cluster
    on_cluster = replace(here, declaration=replace(declared, cluster=priced))
    assert device_throughput(on_cluster) == {}
    replace(found, device="h100-sxm").write(here.calibration)
    assert device_throughput(on_cluster) == {(*pair, 1): speed for pair, speed in found.speeds.items()}


def test_no_more_trials_run_at_once_than_the_one_with_most_cores_leaves_room_for(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, flip-50")
    rules = "rules: [{strategies: [flip-50], cpus: 3}]"
    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("{checkpoint:", f"{{{rules}, checkpoint:"), encoding="utf-8")
    study = study_in(declaration=load_declaration(declaration), folder=tmp_path / "tiny", pools=tmp_path)
    for cores, at_once in ((4, 1), (6, 2)):
        monkeypatch.setattr(calibration, "usable_cores", lambda cores=cores: cores)
        first = next(calibration.calibrate_study(study, device_name=None, seconds=1))
        assert first.startswith("2 kinds of trials on ")
        assert f", {at_once} at once, " in first


def test_a_kind_that_cannot_be_measured_is_named_and_the_others_are_kept(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declaration = write_declaration(tmp_path, pool, strategies="clip, flip-50")
    monkeypatch.setattr(measure_speed, "measure_kind", fail_for_flip)

    assert main(["calibrate", str(declaration), "--seconds", "1", "--results", str(tmp_path)]) == 2

    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "study: not measured: mini-ViT-XXS-8 flip-50: RuntimeError: the device is full"
    found = read_calibration(tmp_path / "tiny" / "throughput.json")
    assert found is not None
    assert [each.combination for each in found.kinds] == [("mini-ViT-XXS-8", "clip")]


def test_the_estimate_of_memory_is_that_of_the_unmasked_tail() -> None:
    def estimate(strategy: str, tail: float) -> int:
        found = Throughput(
            architecture="mini-ViT-XXS-8", strategy=strategy, batch_size=512, precision="bf16", steps=10,
            samples_per_s=1000.0, memory_bytes=1, gpus=1,
        )  # fmt: skip
        return estimated_memory(tiny_trial(recipe=Recipe(unmasked_tail=tail)), found)

    assert estimate("flip-50", 0.0) < estimate("flip-50", 0.01) == estimate("clip", 0.0)


def fail_for_flip(job: TrialJob, _seconds: float, *, below: str) -> Throughput:  # noqa: ARG001 - as the real one
    if job.trial.cell.strategy != "clip":
        raise RuntimeError("the device is full")
    return FOUND


def test_a_damaged_measurement_is_named(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = write_declaration(tmp_path, pool)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "throughput.json").write_text("{}", encoding="utf-8")

    assert main(["plan", str(declaration), "--results", str(tmp_path)]) == 2
    assert "throughput.json is damaged" in capsys.readouterr().err


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
def test_a_measurement_that_no_forecast_can_use_is_named_with_a_way_out(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object, allowed: str
) -> None:
    declaration, file = write_declaration(tmp_path, pool), tmp_path / "tiny" / "throughput.json"
    file.parent.mkdir()
    kind = asdict(FOUND) | {field: value}
    write_json(file, {"machine": "here", "device": None, "side_by_side": 1, "kinds": [kind]})

    for command in ("plan", "calibrate"):
        assert main([command, str(declaration), "--results", str(tmp_path)]) == 2
        assert capsys.readouterr().err == (
            f"study: {file} is damaged (kinds[0].{field} is {value!r}, and must be {allowed}); delete it, "
            "and measure again with `python -m study calibrate`\n"
        )

    file.unlink()
    assert main(["plan", str(declaration), "--results", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--device", "h100"],
            "--device h100 needs a GPU, but resources.gpus is 0: trials run on the processor",
        )
    ],
)
def test_invalid_calibrations_are_refused(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    declaration = write_declaration(tmp_path, pool)

    assert main(["calibrate", str(declaration), "--results", str(tmp_path), *words]) == 2
    assert capsys.readouterr().err == f"study: {message}\n"


def test_the_declared_device_must_fit_the_gpus_name() -> None:
    assert require_named("h100-sxm", "NVIDIA H100 80GB HBM3") == "h100-sxm"
    assert require_named("v100-sxm-32gb", "Tesla V100-SXM2-32GB") == "v100-sxm-32gb"
    with pytest.raises(
        ValueError, match="the device is declared as a100-sxm-40gb, but this machine has NVIDIA H100"
    ):
        require_named("a100-sxm-40gb", "NVIDIA H100 PCIe")
