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
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import torch

from runners.models.model import resolve_precision

PACKAGES = ("torch", "open_clip_torch", "timm", "numpy")
"""Packages whose versions decide a trial's result."""
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where loader workers hand over batches
_STORAGE_BYTES = 2**24

SLOW_BYTES_PER_S = 2**24
"""Rate of a storage below which checkpoints hold trials up."""

NodeVerdict = Literal["ok", "slow", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreflightCheck:
    """One checked thing.

    Attributes:
        node: Host name of the node; by default this one.
        what: Name of the check.
        verdict: ``ok``, ``slow`` (trials run, but slower than they should) or ``failed``.
        found: The finding, in words.
        advice: Advice on the problem; empty if ``ok``.
    """

    node: str = field(default_factory=socket.gethostname)
    what: str
    verdict: NodeVerdict
    found: str
    advice: str = ""

    @classmethod
    def of(cls, what: str, problem: str, *, found: str, verdict: NodeVerdict = "failed") -> "PreflightCheck":
        """Return a check of this node.

        Args:
            what: Name of the check.
            problem: Advice on the problem; empty if there is none.
            found: The finding, in words.
            verdict: Verdict if there is a problem.
        """
        return cls(what=what, verdict=verdict if problem else "ok", found=found, advice=problem)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a trial's result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def check_node(
    *, expected: Mapping[str, str], gpus: int, shared_bytes: int, folder: Path | None
) -> tuple[float, list[PreflightCheck]]:
    """Check versions, GPUs, shared memory and the storage's speed.

    Args:
        expected: The driver's `versions`.
        gpus: GPUs that a trial takes on a node.
        shared_bytes: Bytes of shared memory that a trial's loader may use.
        folder: Folder that trials write to; None where the storage is a bucket.

    Returns:
        The node's clock in seconds, and the checks.
    """
    clock = time.time()
    return clock, [
        _versions(expected),
        _gpus(gpus),
        _shared_memory(shared_bytes),
        *([] if folder is None else [_storage(folder)]),
    ]


def _versions(expected: Mapping[str, str]) -> PreflightCheck:
    here = versions()
    other = {name: has for name, has in here.items() if expected.get(name, has) != has}
    theirs = "the driver has " + ", ".join(f"{name} {expected[name]}" for name in other) if other else ""
    found = ", ".join(f"{name} {has}" for name, has in (other or here).items())
    return PreflightCheck.of("versions", theirs, found=found)


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
    found = f"{free / 2**20:,.0f} MiB free in {_SHARED_MEMORY}, {needed / 2**20:,.0f} MiB needed"
    problem = f"enlarge {_SHARED_MEMORY} (docker: --shm-size), or lower resources.loader_memory"
    return PreflightCheck.of("shared memory", problem if free < needed else "", found=found)


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
    found = f"{folder}: writes {rates[0] / 1e6:,.0f} MB/s, reads {rates[1] / 1e6:,.0f} MB/s"
    if not same:
        return PreflightCheck.of(
            "storage", "the folder gives back other bytes than were written", found=found
        )
    problem = f"below {SLOW_BYTES_PER_S / 1e6:.0f} MB/s, checkpoints will hold trials up"
    return PreflightCheck.of(
        "storage", problem if min(rates) < SLOW_BYTES_PER_S else "", found=found, verdict="slow"
    )
