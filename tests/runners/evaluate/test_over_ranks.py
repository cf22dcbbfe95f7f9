"""Ranks share the images, texts and losses of an evaluation; the metrics are those of one to the last bit."""

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
from runners.models.load_model import Encoder
from runners.training.ranks import gather_objects, in_turn, rank, run_ranks
from runners.trials.trial_evaluation import EvaluationData, evaluate_trial
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import set_up
from tests.runners.data.whole_set import whole_set
from tests.runners.tiny import tiny_job, tiny_trial

pytestmark = pytest.mark.slow


@pytest.fixture
def job(pool: Path, tmp_path: Path) -> TrialJob:
    """Return a trial with a probe on a set of 100 images, and with 70 images that have captions."""
    job = tiny_job(tiny_trial(), pool, tmp_path / "trial")
    images = whole_set(job.evaluation["held-out"], 32).images
    probed, captioned = tmp_path / "probed", tmp_path / "captioned"
    probed.mkdir()
    for split in ("test", "train"):
        write_split(probed / split, images, [{"cls": str(number % 4).encode()} for number in range(100)])
    (probed / "classnames.txt").write_text("red\nblue\ngreen\nblack\n")
    (probed / "zeroshot_classification_templates.txt").write_text("a {c} thing\n")
    captioned.mkdir()
    texts = [{"txt": f"a {number} of red\na {number} of blue".encode()} for number in range(70)]
    write_split(captioned / "test", images[:70], texts)
    (captioned / "dataset_type.txt").write_text("retrieval\n")
    return replace(job, evaluation={"probed": probed, "captioned": captioned}, probes={"probed"})


def _patched() -> pytest.MonkeyPatch:
    """Let this rank evaluate in batches of 16."""
    patch = pytest.MonkeyPatch()
    for module in (set_reader, evaluate):
        patch.setattr(module, "BATCH", 16)
    return patch


def _measured(job: TrialJob) -> tuple[list[dict[str, float]], list[tuple[int, int]]]:
    """Return each rank's metrics, and the images that it encoded and the searches that it made for probes."""
    patch, images, searches = _patched(), [0], [0]
    encode, search = Encoder.images, probe._search  # noqa: SLF001 - only it shows who fits a probe

    def counted(self: Encoder, batch: NDArray[Any]) -> Tensor:
        images[0] += len(batch)
        return encode(self, batch)

    def searched(*options: Any) -> Tensor:  # noqa: ANN401 - passed on
        searches[0] += 1
        return search(*options)

    patch.setattr(Encoder, "images", counted)
    patch.setattr(probe, "_search", searched)
    metrics = evaluate_trial(job, set_up(job), EvaluationData(job))
    return gather_objects(metrics), gather_objects((images[0], searches[0]))


def test_metrics_of_three_ranks_are_those_of_one_and_each_has_computed_its_share(job: TrialJob) -> None:
    ((alone,), ((images, searches),)) = run_ranks(partial(_measured, job), count=1, gpus=False)
    metrics, shares = run_ranks(partial(_measured, replace(job, ranks=3, cpus=3)), count=3, gpus=False)

    assert str(metrics) == str([alone] * 3)  # to the last bit
    assert {name.partition("/")[2] for name in alone} >= {"top1", "few_shot_5_top1", "image_to_text_r1"}
    # 100, 100 and 70 images, in batches of 16.
    assert [some for some, _ in shares] == [36 + 36 + 32, 32 + 32 + 22, 32 + 32 + 16]
    assert images == 270
    # Of six few-shot probes each fits two, the first the linear one as well.
    assert sum(some for _, some in shares) == searches
    assert max(some for _, some in shares) < searches / 2


def _joined() -> list[int]:
    return in_turn([partial(int, number) for number in range(5)])


def test_values_that_were_dealt_come_together_in_order() -> None:
    assert _joined() == [0, 1, 2, 3, 4]
    assert run_ranks(_joined, count=3, gpus=False) == [0, 1, 2, 3, 4]


def _broken(job: TrialJob) -> list[int]:
    encode, patch = Encoder.images, _patched()
    patch.setattr(Encoder, "images", lambda self, batch: encode(self, batch) * (torch.nan if rank() else 1))
    with pytest.raises(evaluate.NotFiniteError):
        evaluate_trial(job, set_up(job), EvaluationData(job))
    return gather_objects(rank())


def test_all_ranks_see_that_the_features_of_one_are_not_finite(job: TrialJob) -> None:
    assert run_ranks(partial(_broken, replace(job, ranks=2)), count=2, gpus=False) == [0, 1]
