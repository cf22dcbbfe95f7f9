"""Ranks share the images, texts and losses of an evaluation; the metrics are those of one to the last bit."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from runners.data.evaluation import set_reader
from runners.data.evaluation.evaluation_set import write_split
from runners.evaluate import evaluate, probe
from runners.host.faults import ProcessEnded
from runners.models.load_model import Encoder
from runners.training.ranks import gather_dealt, gather_objects, rank, rank_count, run_ranks
from runners.trials.trial_evaluation import EvaluationData, evaluate_trial
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import set_up
from tests.runners.data.whole_set import whole_set, write_training_split
from tests.runners.tiny import tiny_job, tiny_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def job(pool: Path, tmp_path: Path) -> TrialJob:
    """Return a trial with a probe on a set of 100 images, and with 70 images that have captions."""
    job = tiny_job(tiny_trial(), pool, tmp_path / "trial")
    drawn = whole_set(job.evaluation["held-out"], 32)
    assert drawn.labels is not None
    probed, captioned = tmp_path / "probed", tmp_path / "captioned"
    shutil.copytree(job.evaluation["held-out"], probed)
    write_training_split(probed, drawn.images, drawn.labels)
    captioned.mkdir()
    texts = [{"txt": f"a {number} of red\na {number} of blue".encode()} for number in range(70)]
    write_split(captioned / "test", drawn.images[:70], texts)
    (captioned / "dataset_type.txt").write_text("retrieval\n")
    return replace(job, evaluation={"probed": probed, "captioned": captioned}, probes={"probed"})


def _measured(job: TrialJob) -> tuple[list[dict[str, float]], list[tuple[int, int]]]:
    """Return each rank's metrics, and the images and rows of losses that it computed."""
    patch, images, rows = pytest.MonkeyPatch(), [0], [0]
    patch.setattr(set_reader, "BATCH", 16)
    patch.setattr(evaluate, "BATCH", 16)
    patch.setattr(probe, "_ROWS_AT_ONCE", 30)
    encode, with_bias = Encoder.images, probe._with_bias  # noqa: SLF001 - only it shows who computes

    def counted(self: Encoder, batch: NDArray[Any]) -> Tensor:
        images[0] += len(batch)
        return encode(self, batch)

    def converted(part: Tensor, *options: Any) -> Tensor:  # noqa: ANN401 - passed on
        rows[0] += len(part)
        return with_bias(part, *options)

    patch.setattr(Encoder, "images", counted)
    patch.setattr(probe, "_with_bias", converted)
    setup = set_up(job)
    metrics = evaluate_trial(job, setup, EvaluationData(job))
    return gather_objects(metrics), gather_objects((images[0], rows[0]))


def test_metrics_of_three_ranks_are_those_of_one_and_each_has_computed_its_share(job: TrialJob) -> None:
    ((alone,), ((images, rows),)) = run_ranks(partial(_measured, job), count=1, gpus=False)
    metrics, shares = run_ranks(partial(_measured, replace(job, ranks=3, cpus=3)), count=3, gpus=False)

    assert str(metrics) == str([alone] * 3)  # to the last bit
    assert {name.partition("/")[2] for name in alone} >= {"top1", "probe_top1", "image_to_text_r1"}
    # 100, 100 and 70 images, in batches of 16.
    assert [some for some, _ in shares] == [36 + 36 + 32, 32 + 32 + 22, 32 + 32 + 16]
    assert images == 270
    assert max(some for _, some in shares) < 0.75 * rows


def _joined() -> list[float]:
    parts = [torch.full((2, 1), float(number)) for number in range(5)]
    parts[-1] = parts[-1][:1]
    return gather_dealt(parts[rank() :: rank_count()], 9, rows=2).flatten().tolist()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_parts_that_were_dealt_come_together_in_order(count: int) -> None:
    assert run_ranks(_joined, count=count, gpus=False) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def _broken(job: TrialJob) -> dict[str, float]:
    patch = pytest.MonkeyPatch()
    patch.setattr(set_reader, "BATCH", 16)
    patch.setattr(evaluate, "BATCH", 16)
    encode = Encoder.images
    patch.setattr(Encoder, "images", lambda self, batch: encode(self, batch) * (torch.nan if rank() else 1))
    return evaluate_trial(job, set_up(job), EvaluationData(job))


def test_all_ranks_see_that_the_features_of_one_are_not_finite(job: TrialJob) -> None:
    with pytest.raises(ProcessEnded, match="rank 0 of 2: NotFiniteError"):
        run_ranks(partial(_broken, replace(job, ranks=2)), count=2, gpus=False)
