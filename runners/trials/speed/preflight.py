"""Preflight checks of a node: tests of everything that a trial needs there, before anything is spent.

Each function runs in a fresh process on the node, as a trial does, and returns what it found; it raises only
what a trial would raise as well.
"""

import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from runners.strategies.row_loss import softmax_row_loss
from runners.training.ranks import gather, rank, ranks, run_ranks, total
from runners.trials.speed.measure_speed import measure
from runners.trials.speed.throughput import Throughput
from runners.trials.trial_setup import TrialJob

PACKAGES = ("torch", "open_clip_torch", "timm", "numpy")
"""Packages whose versions decide a trial's result."""
_PAIRS_EACH, _WIDTH = 16, 32  # of each rank, in the loss that ranks compute together
_EXACT = 1e-5  # relative difference of that loss and its gradients
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where loader workers hand over batches
_STORAGE_BYTES = 2**24
_SLOW_BYTES_PER_S = 2**24

Verdict = Literal["ok", "slow", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One checked thing.

    Attributes:
        node: Host name of the node.
        what: Name of the check.
        verdict: ``ok``, ``slow`` (trials run, but slower than they should) or ``failed``.
        found: What was found.
        advice: What to do; empty if ``ok``.
    """

    node: str
    what: str
    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Requirements that every node must meet.

    Attributes:
        versions: Package → version on the driver; the key ``python`` stands for the interpreter.
        gpus: GPUs that a trial takes on a node.
        shared_bytes: Bytes of shared memory that a trial's loader may use.
        folder: Folder that trials write to; None where the storage is a bucket.
    """

    versions: Mapping[str, str]
    gpus: int
    shared_bytes: int
    folder: Path | None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a trial's result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def check_node(expected: Expected) -> tuple[float, list[Check]]:
    """Check versions, GPUs, shared memory and the storage's speed.

    Returns:
        The node's clock in seconds, and the checks.
    """
    clock = time.time()
    return clock, [
        _versions(expected.versions),
        _gpus(expected.gpus),
        _shared_memory(expected.shared_bytes),
        *([] if expected.folder is None else [_storage(expected.folder)]),
    ]


def check_ranks(count: int, *, gpus: bool) -> Check:
    """Check that the ranks of a trial add up numbers, and that their loss is that of one rank.

    Args:
        count: Ranks of a trial on a node.
        gpus: True to use a GPU a rank and NCCL, else gloo.
    """
    backend = "NCCL" if gpus else "gloo"
    summed, loss, gradient = run_ranks(partial(_joint_loss, gpus=gpus), count=count, gpus=gpus)
    expected_loss, expected_gradient = _whole_loss(count * _PAIRS_EACH)
    error = max(
        abs(loss - expected_loss) / expected_loss,
        float((gradient - expected_gradient).norm() / expected_gradient.norm()),
    )
    right = summed == count * (count - 1) / 2 and error < _EXACT
    return Check(
        node=socket.gethostname(),
        what="ranks",
        verdict="ok" if right else "failed",
        found=f"{count} over {backend}: sum {summed:g}, loss within {error:.0e} of one rank's",
        advice="" if right else f"{backend} computes wrong sums here: test its drivers and network",
    )


def check_kind(job: TrialJob) -> Throughput:
    """Train a few steps of a trial at its real batch, and return its speed and memory."""
    return measure(job, seconds=0.0, warm_steps=2, fewest_steps=2)


def _versions(expected: Mapping[str, str]) -> Check:
    here = versions()
    other = {name: has for name, has in here.items() if expected.get(name, has) != has}
    return Check(
        node=socket.gethostname(),
        what="versions",
        verdict="failed" if other else "ok",
        found=", ".join(f"{name} {has}" for name, has in (other or here).items()),
        advice="the driver has " + ", ".join(f"{name} {expected[name]}" for name in other) if other else "",
    )


def _gpus(wanted: int) -> Check:
    node = socket.gethostname()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < wanted:
        return Check(
            node=node,
            what="GPUs",
            verdict="failed",
            found=f"torch sees {count}, a trial takes {wanted}",
            advice="check the driver, CUDA_VISIBLE_DEVICES and that torch's wheel is one for CUDA",
        )
    if not wanted:
        return Check(node=node, what="GPUs", verdict="ok", found="none needed; trials run on the processor")
    facts = torch.cuda.get_device_properties(0)
    torch.ones(8, 8, device="cuda").sum().item()  # in the forked process, as a trial computes
    bf16 = torch.cuda.is_bf16_supported()
    return Check(
        node=node,
        what="GPUs",
        verdict="ok" if bf16 else "slow",
        found=f"{count} x {facts.name}, {facts.total_memory / 2**30:.0f} GiB, bf16 {'yes' if bf16 else 'no'}",
        advice="" if bf16 else "declare precision: fp16, which this GPU computes natively",
    )


def _shared_memory(needed: int) -> Check:
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else 0
    enough = free >= needed
    return Check(
        node=socket.gethostname(),
        what="shared memory",
        verdict="ok" if enough else "failed",
        found=f"{free / 2**20:,.0f} MiB free in {_SHARED_MEMORY}, {needed / 2**20:,.0f} MiB needed",
        advice="" if enough else f"enlarge {_SHARED_MEMORY} (docker: --shm-size), or declare fewer CPUs",
    )


def _storage(folder: Path) -> Check:
    node, content = socket.gethostname(), os.urandom(_STORAGE_BYTES)
    path = folder / f".preflight-{node}-{os.getpid()}"
    try:
        began = time.perf_counter()
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        wrote = time.perf_counter()
        same = path.read_bytes() == content
        read = time.perf_counter()
    except OSError as error:
        return Check(
            node=node,
            what="storage",
            verdict="failed",
            found=f"{folder}: {error.strerror or error}",
            advice="all nodes must share this folder and may write to it; name one as storage:",
        )
    finally:
        path.unlink(missing_ok=True)
    rates = [_STORAGE_BYTES / max(1e-9, seconds) for seconds in (wrote - began, read - wrote)]
    verdict: Verdict = "failed" if not same else "slow" if min(rates) < _SLOW_BYTES_PER_S else "ok"
    return Check(
        node=node,
        what="storage",
        verdict=verdict,
        found=f"{folder}: writes {rates[0] / 1e6:,.0f} MB/s, reads {rates[1] / 1e6:,.0f} MB/s",
        advice={
            "failed": "the folder gives back other bytes than were written",
            "slow": f"below {_SLOW_BYTES_PER_S / 1e6:.0f} MB/s, checkpoints will hold trials up",
            "ok": "",
        }[verdict],
    )


def _pairs(count: int) -> tuple[Tensor, Tensor]:
    """Return the same normalised features in every process."""
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, count, _WIDTH, generator=generator)
    return functional.normalize(image, dim=1), functional.normalize(text, dim=1)


def _whole_loss(count: int) -> tuple[float, Tensor]:
    """Return CLIP's loss of so many pairs and the gradient of their image features, by autograd."""
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
