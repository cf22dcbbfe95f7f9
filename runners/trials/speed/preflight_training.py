"""Preflight checks of training: the ranks of a trial compute together, each kind takes some steps."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from runners.strategies.row_loss import softmax_row_loss
from runners.training.ranks import gather, rank, ranks, run_ranks, total
from runners.training.train import train
from runners.trials.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from runners.trials.speed.measure_speed import measure, some_steps, throughput_of
from runners.trials.speed.preflight import PreflightCheck
from runners.trials.speed.throughput import Throughput
from runners.trials.trial import take_part
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import set_up

_PAIRS_EACH, _WIDTH = 16, 32  # of each rank, in the loss that ranks compute together
_EXACT = 1e-5  # relative difference of that loss and its gradients
_WARM_STEPS, _STEPS = 2, 4
_CHECKPOINT_PAIRS = 16  # the size of a checkpoint does not depend on the batch


@dataclass(frozen=True, kw_only=True, slots=True)
class KindFound:
    """Measurements of a few steps of a kind of trial.

    Attributes:
        speed: Speed and memory.
        checkpoint_bytes: Size of a checkpoint; 0 if none was written.
        write_s: Seconds to write it to the storage.
        read_s: Seconds to check its hash and restore its state.
    """

    speed: Throughput
    checkpoint_bytes: int = 0
    write_s: float = 0.0
    read_s: float = 0.0


def check_ranks(count: int, *, gpus: bool) -> PreflightCheck:
    """Check that the ranks of a trial add up numbers, and that their loss is that of one rank.

    Args:
        count: Ranks of a trial on a node.
        gpus: True to use a GPU a rank and NCCL, else gloo.
    """
    return _judged(run_ranks(partial(_joint_loss, gpus=gpus), count=count, gpus=gpus), count, gpus=gpus)


def check_kind(job: TrialJob) -> KindFound:
    """Train a few steps of a trial at its real batch, and write and read a checkpoint on its storage."""
    speed = measure(job, seconds=0.0, warm_steps=_WARM_STEPS, fewest_steps=_STEPS)
    storage = next(each for each in (job.folder, *job.folder.parents) if each.exists())
    with TemporaryDirectory(dir=storage, prefix=".preflight-") as name:
        folder = Path(name)
        pairs = min(_CHECKPOINT_PAIRS, job.trial.batch_size)
        small = replace(job.trial, batch_size=pairs, recipe=replace(job.trial.recipe, accumulation=1))
        setup = set_up(some_steps(replace(job, trial=small, ranks=1), 1, folder))
        train(setup.learner, setup.data, setup.schedule, first_step=0, context=setup.context)
        began = time.monotonic()
        save_checkpoint(folder, setup.learner, step=1)
        wrote = time.monotonic()
        load_checkpoint(folder, setup.learner)
        return KindFound(
            speed=speed,
            checkpoint_bytes=sum(path.stat().st_size for path in folder.iterdir()),
            write_s=wrote - began,
            read_s=time.monotonic() - wrote,
        )


def check_kind_over_nodes(
    job: TrialJob, count: int, *, gpus: bool
) -> tuple[PreflightCheck, KindFound] | None:
    """Check the ranks of a trial over several nodes, then train a few steps.

    Called by each rank; rank 0 returns what was found, the others None.

    Args:
        job: The trial, with a folder for the check that all nodes share.
        count: Ranks of the trial.
        gpus: As in `check_ranks`.
    """
    found, outcome = _joint_loss(gpus=gpus), None
    for steps in (_WARM_STEPS, _STEPS):
        # All in one process, whose peak of memory is thus that of the unmasked step as well.
        first = steps == _WARM_STEPS
        outcome = take_part(some_steps(job, steps, job.folder / str(steps), unmasked=first))
    if outcome is None:
        return None
    return _judged(found, count, gpus=gpus), KindFound(speed=throughput_of(job.trial, outcome))


def _judged(found: tuple[float, float, Tensor], count: int, *, gpus: bool) -> PreflightCheck:
    """Compare what the ranks computed with one rank's."""
    backend, (summed, loss, gradient) = "NCCL" if gpus else "gloo", found
    expected_loss, expected_gradient = _whole_loss(count * _PAIRS_EACH)
    error = max(
        abs(loss - expected_loss) / expected_loss,
        float((gradient - expected_gradient).norm() / expected_gradient.norm()),
    )
    right = summed == count * (count - 1) / 2 and error < _EXACT
    found_here = f"{count} over {backend}: sum {summed:g}, loss within {error:.0e} of one rank's"
    problem = f"{backend} computes wrong sums here: test its drivers and network"
    return PreflightCheck.of("ranks", "" if right else problem, found=found_here)


def _pairs(count: int) -> tuple[Tensor, Tensor]:
    """Return the same normalised features in every process."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, count, _WIDTH, generator=generator)
    return functional.normalize(image, dim=1), functional.normalize(text, dim=1)


def _whole_loss(count: int) -> tuple[float, Tensor]:
    """Return CLIP's loss of some pairs and the gradient of their image features, by autograd."""
    image, text = _pairs(count)
    image.requires_grad_()
    logits = 10.0 * image @ text.T
    target = torch.arange(count)
    loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
    (gradient,) = torch.autograd.grad(loss, image)
    return loss.item(), gradient


def _joint_loss(*, gpus: bool) -> tuple[float, float, Tensor]:
    """Return, in each rank, the sum of all ranks' numbers and the loss that they compute together."""
    device = torch.device("cuda" if gpus else "cpu")
    first = rank() * _PAIRS_EACH
    image, text = (each[first : first + _PAIRS_EACH].to(device) for each in _pairs(ranks() * _PAIRS_EACH))
    found = softmax_row_loss(image, text, torch.tensor(10.0, device=device), gather, first)
    summed = total(torch.tensor(float(rank()), device=device))
    return summed.item(), total(found.share).item(), gather(found.features[0]).cpu()
