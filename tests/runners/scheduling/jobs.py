"""Small functions for the tests of backends, importable in a new process."""

import importlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("study", "analysis", "runners", "budgets")


def process_id() -> int:
    return os.getpid()


def gpus() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def origins() -> dict[str, str | None]:
    return {name: importlib.import_module(name).__file__ for name in PACKAGES}


def raise_this(error: Exception) -> None:
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_as_its_node_does() -> None:
    """Take a second; fail earlier where the environment says how."""
    match os.environ.get("NODE_FAILS"):
        case "by death":
            die()
        case "by error":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
    time.sleep(1)


def place_among_ranks() -> tuple[int, int]:
    """Return rank and number of ranks, once all ranks are there."""
    from runners.training.ranks import decided_by_first, rank, rank_count  # noqa: PLC0415 - it loads torch

    return rank(), decided_by_first(rank_count)


def lose_peers_as_last_rank() -> None:
    rank, ranks = place_among_ranks()
    if rank == ranks - 1:
        raise RuntimeError("Connection closed by peer")
    time.sleep(300)  # like a rank that waits for the others


def sleep(folder: Path, seconds: float = 60) -> None:
    """Sleep, and leave a file named after the process."""
    (folder / f"began-{os.getpid()}").touch()
    time.sleep(seconds)


def hang(folder: Path, how: str = "stopped") -> None:
    """Stop, or wait for ever, in a set-up that may take two seconds."""
    from runners.host.watchdog import position  # noqa: PLC0415 - few jobs need it

    position.watch(0.11, folder)
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(120)


def leave_politely(folder: Path, requests: int = 1) -> int:
    """Return, as after writing a checkpoint, once SIGTERM has come so often; returns how often it came."""
    left: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: left.append(number))
    (folder / f"began-{os.getpid()}").touch()
    while len(left) < requests:
        time.sleep(0.01)
    return len(left)


def without(folder: Path, run: Callable[[], object]) -> object:
    """Make a call while a folder is missing."""
    away = folder.rename(folder.with_name("away"))
    try:
        return run()
    finally:
        away.rename(folder)


def node_of(folder: Path, item: int) -> str:
    """Return Ray's process of the node that works on an item, once two nodes do."""
    node = os.environ["RAY_RAYLET_PID"]
    (folder / node).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return node + "" * item


def die_of(_item: int) -> None:
    die()


def fail_once(folder: Path, item: int) -> int:
    """Fail like a disk that is full for a moment."""
    if not (folder / str(item)).exists():
        (folder / str(item)).touch()
        raise OSError(28, "No space left on device")
    return item
