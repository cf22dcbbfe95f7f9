"""One run of a study at a time: who holds it, and how it is told to stop, from any machine."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

_LOCK_ATTEMPTS = 5
_STOP = "stop"
_LOOK_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The run that is under way.

    Attributes:
        host: Its machine.
        pid: Its process there.
        since: When it began, with the zone's offset.
    """

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def only_run(folder: Path) -> Iterator[tuple[Holder, Holder | None]]:
    """Keeps a second run of the same study out; the system frees the lock when the process dies.

    Yields:
        This run, and the last one before it, which has ended.

    Raises:
        ValueError: Another run holds it; the message says which.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        for attempt in range(_LOCK_ATTEMPTS):  # a look at the status holds the lock for an instant
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS - 1:
                    raise ValueError(
                        f"another run of {folder} is under way: {_read(folder / '.lock')}. "
                        "`python -m study status` watches it, `python -m study stop` ends it"
                    ) from None
                time.sleep(0.1)
        stop_mark(folder).unlink(missing_ok=True)  # meant for a run before this one
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=now)
        file.seek(0)
        before = _parse(file.read())
        file.truncate(0)
        json.dump(asdict(holder), file)
        file.flush()
        yield holder, before


@contextmanager
def between_runs(folder: Path) -> Iterator[bool]:
    """Keeps runs of a study out while its folder is changed, if none is under way; tells whether none is."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def running(folder: Path) -> Holder | None:
    """Gives the run of the study that is under way, if any."""
    lock = folder / ".lock"
    if not lock.exists():
        return None
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock)
    return None


def stop_run(
    where: str, running: Callable[[], Holder | None], tell: Callable[[], object], *, wait_s: float
) -> Iterator[str]:
    """Tells a run to stop, and waits until it has ended.

    Args:
        where: What it is a run of, in words.
        running: Finds the run that is under way.
        tell: Tells it.
        wait_s: How long to wait, in seconds.

    Yields:
        What a person should know.

    Raises:
        ValueError: None is under way.
    """
    holder = running()
    if holder is None:
        raise ValueError(f"no run of {where} is under way")
    tell()
    yield f"told {holder} to stop: its trials write checkpoints and leave"
    until = time.monotonic() + wait_s
    while running() == holder:
        if time.monotonic() >= until:
            yield f"it was told and has not ended after {wait_s:.0f} s"
            return
        time.sleep(_LOOK_S)
    yield "it has ended; the same `run` goes on from there"


def stop_mark(folder: Path) -> Path:
    """Gives the file whose being there tells the run of a study to stop."""
    return folder / _STOP


def _read(lock: Path) -> Holder:
    for _ in range(_LOCK_ATTEMPTS):
        found = _parse(lock.read_text(encoding="utf-8"))
        if found is not None:
            return found
        time.sleep(0.1)  # it is just being written
    return Holder(host="a machine", pid=0, since="a moment ago")


def _parse(text: str) -> Holder | None:
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None
