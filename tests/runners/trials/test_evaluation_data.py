"""Evaluation sets of a trial are decoded beside training, on the processor before it, once on a node."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from budgets.machine_cache import CACHE
from runners.host.faults import ProcessEnded
from runners.trials import trial_evaluation
from runners.trials.meter import FlopCount, read_meter
from runners.trials.trial import run_trial
from runners.trials.trial_evaluation import EvaluationData
from runners.trials.trial_job import TrialJob
from tests.runners.tiny import tiny_job, tiny_pool, tiny_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialJob:
    """Return a trial as if on a GPU, on a node where nothing was decoded before."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return replace(tiny_job(tiny_trial(steps=3), tiny_pool(tmp_path / "pool"), tmp_path / "trial"), gpus=1)


def damage(job: TrialJob) -> None:
    """Damage the pixels of an image, not its header."""
    shard = job.evaluation["held-out"] / "test" / "0.tar"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 40] ^= 1
    shard.write_bytes(content)


def check_forever(sets: EvaluationData) -> None:
    """Look at the processes that decode as a training does, which ends later than they do."""
    while True:
        sets.check()
        time.sleep(0.01)


def test_sets_are_decoded_beside_training_on_a_gpu(job: TrialJob) -> None:
    sets = EvaluationData(job)
    reader = sets.readers["held-out"]
    assert not reader.is_filled()
    with sets.decoding():
        while not reader.is_filled():
            sets.check()
            time.sleep(0.01)
    with EvaluationData(job).decoding():  # what a trial decoded, the next one finds
        assert reader.is_filled()


def test_no_process_decodes_on_after_a_trial_that_left(job: TrialJob) -> None:
    sets = EvaluationData(job)
    with suppress(InterruptedError), sets.decoding():
        processes = list(sets._processes)  # noqa: SLF001 - only the processes show it
        raise InterruptedError
    assert len(processes) == 1
    assert not processes[0]._process.is_alive()  # noqa: SLF001


def test_an_image_that_cannot_be_decoded_ends_a_training_on_a_gpu_early(job: TrialJob) -> None:
    damage(job)
    sets = EvaluationData(job)
    with pytest.raises(ValueError, match=r"^cannot decode image 000000000 of .*held-out"), sets.decoding():
        check_forever(sets)


def test_the_signal_that_ends_a_process_which_decodes_is_told(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_evaluation, "_fill", _die)
    sets = EvaluationData(job)
    died = r"^decoding of evaluation sets ended early: the trial's process died by SIGSEGV$"
    with pytest.raises(ProcessEnded, match=died) as raised, sets.decoding():
        check_forever(sets)
    assert raised.value.fault == "crashed"


def _die(_sets: object, *, beside: bool) -> None:
    os.kill(os.getpid(), signal.SIGSEGV if beside else signal.SIGKILL)


def test_an_undecodable_image_ends_a_trial_on_the_processor_before_its_first_step(job: TrialJob) -> None:
    damage(job)
    with pytest.raises(ValueError, match="image 000000000 of"):
        run_trial(replace(job, gpus=0))
    assert (read_meter(job.folder) or FlopCount()).train_flops == 0


def test_a_row_is_the_same_with_and_without_decoded_sets(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_processor = replace(job, gpus=0)
    first, second, without = (replace(on_processor, folder=job.folder / name) for name in "abc")
    job.folder.mkdir()
    rows = [run_trial(first).row, run_trial(second).row]
    monkeypatch.setenv("STUDY_CACHE_SIZE", "0")
    rows.append(run_trial(without).row)
    assert str(rows[0]) == str(rows[1]) == str(rows[2])
    assert rows[0]["held-out/count"] == 100
