"""Preflight checks of a node: tests of everything that a trial needs there, before anything is spent.

Each function runs in a fresh process on the node, as a trial does, and returns what it found; it raises only
what a trial would raise as well.
"""

import os
import platform
import resource
import shutil
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from budgets.cost.strategy import find_strategy
from runners.models.model import resolve_precision
from runners.store.files import locked
from runners.training.backward import joint_loss
from runners.training.ranks import gather, rank, rank_count, run_ranks, sum_over_ranks

PACKAGES = ("torch", "open_clip_torch", "timm", "numpy")
"""Packages whose versions decide a trial's result."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where loader workers hand over batches
_STORAGE_BYTES = 2**24
_OPEN_FILES = 4096  # at least, where loader workers hand over batches
_PAIRS_EACH, _WIDTH = 16, 32  # of each rank, in the loss that ranks compute together
_EXACT = 1e-5  # relative difference of that loss and its gradients

SLOW_BYTES_PER_S = 2**24
"""Rate of a storage below which checkpoints hold trials up."""

NodeVerdict = Literal["ok", "slow", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightCheck:
    """One checked thing on a node, by default this one, and what was found, in words.

    The verdict is ``ok``, ``slow`` (trials run, but slower than they should) or ``failed``.
    """

    node: str = field(default_factory=socket.gethostname)
    what: str
    verdict: NodeVerdict
    found: str
    advice: str = ""  # on the problem; empty if ok

    @classmethod
    def of(cls, what: str, problem: str, *, found: str, verdict: NodeVerdict = "failed") -> "PreflightCheck":
        """Return a check of this node; with a problem, which is the advice on it, it has the verdict."""
        return cls(what=what, verdict=verdict if problem else "ok", found=found, advice=problem)


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a trial's result."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions


@contextmanager
def holding_lock(folder: Path | None) -> Iterator[Path | None]:
    """Context manager: its value is a file in the folder that the driver of a check holds locked."""
    lock = folder and folder / f".preflight-{socket.gethostname()}-{os.getpid()}.lock"
    with ExitStack() as stack:
        if lock is not None:
            stack.callback(lock.unlink, missing_ok=True)
            with suppress(OSError):  # each node reports it
                stack.enter_context(locked(lock, wait_s=0))
        yield lock


def check_node(
    *, expected: Mapping[str, str], gpus: int, shared_bytes: int, compiled: bool, lock: Path | None
) -> tuple[float, list[PreflightCheck]]:
    """Check versions, GPUs, shared memory, open files, a compiler, and the storage's locks and speed.

    ``expected`` are the driver's `package_versions`, ``gpus`` and ``shared_bytes`` what a trial takes on a
    node, ``compiled`` whether it is. ``lock`` is the driver's, see `holding_lock`, in the folder that trials
    write to; None where the storage is a bucket. Returns the node's clock in seconds, and the checks.
    """
    clock = time.time()
    return clock, [
        _versions(expected),
        _gpus(gpus),
        _shared_memory(shared_bytes),
        *([_open_files()] if gpus else []),
        *([_compiler("c", "CC", "gcc") if gpus else _compiler("c++", "CXX", "g++")] if compiled else []),
        *([] if lock is None else [_locks(lock), _storage(lock.parent)]),
    ]


def _versions(expected: Mapping[str, str]) -> PreflightCheck:
    nodes_own = package_versions()
    other = {name: has for name, has in nodes_own.items() if expected.get(name, has) != has}
    theirs = "the driver has " + ", ".join(f"{name} {expected[name]}" for name in other) if other else ""
    versions = ", ".join(f"{name} {has}" for name, has in (other or nodes_own).items())
    return PreflightCheck.of("versions", theirs, found=versions)


def _gpus(wanted: int) -> PreflightCheck:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count < wanted:
        problem = "check the driver, CUDA_VISIBLE_DEVICES and that torch's wheel is one for CUDA"
        return PreflightCheck.of("GPUs", problem, found=f"torch sees {count}, a trial takes {wanted}")
    if not wanted:
        return PreflightCheck.of("GPUs", "", found="none needed; trials run on the processor")
    facts = torch.cuda.get_device_properties(0)
    torch.ones(8, 8, device="cuda").sum().item()  # in the forked process, as a trial computes
    precision = resolve_precision("auto", torch.device("cuda"))
    memory = f"{facts.total_memory / 2**30:.0f} GiB"
    return PreflightCheck.of(
        "GPUs", "", found=f"{count} x {facts.name}, {memory}, precision: auto is {precision}"
    )


def _shared_memory(needed: int) -> PreflightCheck:
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else 0
    memory = f"{free / 2**20:,.0f} MiB free in {_SHARED_MEMORY}, {needed / 2**20:,.0f} MiB needed"
    problem = f"enlarge {_SHARED_MEMORY} (docker: --shm-size), or lower resources.loader_memory"
    return PreflightCheck.of("shared memory", problem if free < needed else "", found=memory)


def _open_files() -> PreflightCheck:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    problem = f"loader workers hand over batches as open files: `ulimit -n {_OPEN_FILES}` before `ray start`"
    limits = f"up to {limit:,} at once, {_OPEN_FILES:,} wanted"
    return PreflightCheck.of(
        "open files", problem if limit < _OPEN_FILES else "", found=limits, verdict="slow"
    )


def _compiler(language: str, variable: str, usual: str) -> PreflightCheck:
    """Compile as torch.compile does, with Python's headers."""
    name = os.environ.get(variable) or usual
    command = [name, "-fsyntax-only", f"-I{sysconfig.get_path('include')}", "-x", language, "-"]
    try:
        source = "#include <Python.h>\n"
        ended = subprocess.run(command, input=source, text=True, capture_output=True, check=False)  # noqa: S603 - the compiler that torch calls
        fault = (ended.stderr.strip().partition("\n")[0] or "compiles nothing") if ended.returncode else ""
    except OSError as error:
        fault = error.strerror or str(error)
    problem = f"training.compile needs {usual}, or the {variable} of the environment, and Python's headers"
    return PreflightCheck.of("compiler", problem if fault else "", found=f"{name}: {fault or 'compiles'}")


def _locks(lock: Path) -> PreflightCheck:
    try:
        with locked(lock, wait_s=0) as taken:
            fault = "another node can take a lock that the driver holds" if taken else ""
    except OSError as error:
        fault = error.strerror or str(error)
    problem = "mount it with locks (NFS 4; Lustre: -o flock): they keep two processes from one trial"
    outcome = f"{lock.parent}: {fault or 'a lock of the driver is seen'}"
    return PreflightCheck.of("locks", problem if fault else "", found=outcome)


def _storage(folder: Path) -> PreflightCheck:
    content = os.urandom(_STORAGE_BYTES)
    path = folder / f".preflight-{socket.gethostname()}-{os.getpid()}"
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
        problem = "all nodes must share this folder and may write to it; name one as storage:"
        return PreflightCheck.of("storage", problem, found=f"{folder}: {error.strerror or error}")
    finally:
        with suppress(OSError):
            path.unlink()
    rates = [_STORAGE_BYTES / max(1e-9, seconds) for seconds in (wrote - began, read - wrote)]
    speeds = f"{folder}: writes {rates[0] / 1e6:,.0f} MB/s, reads {rates[1] / 1e6:,.0f} MB/s"
    if not same:
        return PreflightCheck.of(
            "storage", "the folder gives back other bytes than were written", found=speeds
        )
    problem = f"below {SLOW_BYTES_PER_S / 1e6:.0f} MB/s, checkpoints will hold trials up"
    return PreflightCheck.of(
        "storage", problem if min(rates) < SLOW_BYTES_PER_S else "", found=speeds, verdict="slow"
    )


def check_ranks(count: int, *, gpus: bool) -> PreflightCheck:
    """Check that the ranks of a trial on a node add up numbers, and that their loss is that of one rank.

    With ``gpus`` they use a GPU each and NCCL, else gloo.
    """
    return run_ranks(partial(check_group, gpus=gpus), count=count, gpus=gpus)


def check_group(*, gpus: bool) -> PreflightCheck:
    """Check, in each rank, what `check_ranks` does of the ranks that it belongs to."""
    backend, count = "NCCL" if gpus else "gloo", rank_count()
    summed, loss, gradient = _joint_loss(gpus=gpus)
    expected_loss, expected_gradient = _whole_loss(count * _PAIRS_EACH)
    error = max(
        abs(loss - expected_loss) / expected_loss,
        float((gradient - expected_gradient).norm() / expected_gradient.norm()),
    )
    right = summed == count * (count - 1) / 2 and error < _EXACT
    agreement = f"{count} over {backend}: sum {summed:g}, loss within {error:.0e} of one rank's"
    problem = f"{backend} computes wrong sums here: test its drivers and network"
    return PreflightCheck.of("ranks", "" if right else problem, found=agreement)


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
    features = [
        side[first : first + _PAIRS_EACH].to(device).requires_grad_()
        for side in _pairs(rank_count() * _PAIRS_EACH)
    ]
    model = SimpleNamespace(logit_scale=torch.tensor(10.0, device=device).log(), logit_bias=None)
    loss, (gradient, _), _ = joint_loss(find_strategy("clip"), model, features, ())
    assert gradient is not None
    summed = sum_over_ranks(torch.tensor(float(rank()), device=device))
    return summed.item(), loss.item(), gather(gradient).cpu()
