"""The lock of a study in a folder: one run at a time, its holder, and requests to stop it."""

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

from runners.store.files import locked, write_json

_LOCK_ATTEMPTS = 5
_STOP, _ELSEWHERE = "stop", ".elsewhere.json"
_ELSEWHERE_S = 60.0  # time after which a run that was seen elsewhere may have ended
_LOOK_S = 0.2
_DOWNLOAD_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The active run of a study.

    Attributes:
        host: The machine's name.
        pid: The process's id on that machine.
        since: Start of the run, an ISO 8601 time with offset.
    """

    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    @property
    def has_died(self) -> bool:
        """True if the run was on this machine, and its process has ended."""
        if self.host == socket.gethostname():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:  # of another user
                return False
        return False


UNKNOWN = Holder(host="a machine", pid=0, since="a moment ago")
"""The holder of a lock or a lease whose content can't be read."""


@contextmanager
def only_run(
    folder: Path, refusal: Callable[[Holder], ValueError] | None = None
) -> Iterator[tuple[Holder, Holder | None]]:
    """Context manager that holds a folder's lock; the system frees the lock when the process dies.

    Args:
        folder: The folder.
        refusal: Returns the error if another process holds the lock; by default for a study's folder.

    Yields:
        This run, and the run before it (None for the first), which has ended.

    Raises:
        ValueError: Another run holds the lock; the message names it.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        for attempt in range(_LOCK_ATTEMPTS):  # `status` holds the lock for an instant, too
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_ATTEMPTS - 1:
                    raise (refusal or run_is_active(folder))(_read(folder / ".lock")) from None
                time.sleep(0.1)
        # A request to stop that is older than this run was meant for an earlier run.
        stop_mark(folder).unlink(missing_ok=True)
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=now)
        # The file is overwritten in place: the lock belongs to this open file, so it can't be replaced by a
        # rename. A reader that finds it half written tries again (`_read`).
        file.seek(0)
        before = parse_holder(file.read())
        file.truncate(0)
        json.dump(asdict(holder), file)
        file.flush()
        yield holder, before


def run_is_active(study: object) -> Callable[[Holder], ValueError]:
    """Return the function that makes the error for another active run, given the study's folder or URL."""
    return lambda holder: ValueError(
        f"another run of {study} is active: {holder}. The command `status` with the same study watches it, "
        "`stop` stops it"
    )


@contextmanager
def between_runs(folder: Path) -> Iterator[bool]:
    """Context manager that keeps other downloads out, and runs that begin `after_downloads`.

    The lock is not that of a run: a download must not look like one.

    Yields:
        True if the study's folder may be changed; False if a run is active.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with after_downloads(folder) as free:
        yield free and running_here(folder) is None


@contextmanager
def after_downloads(folder: Path) -> Iterator[bool]:
    """Context manager that waits for a download into a folder; False if it has not ended after a minute."""
    with locked(folder / ".download.lock", wait_s=_DOWNLOAD_S) as held:
        yield held is not None


def active_run(folder: Path) -> Holder | None:
    """Return the active run of the study, if any, here or on another machine with the same bucket."""
    mark = folder / _ELSEWHERE
    if (here := running_here(folder)) is not None or not mark.exists():
        return here
    return parse_holder(mark.read_bytes()) if time.time() - mark.stat().st_mtime < _ELSEWHERE_S else None


def note_elsewhere(folder: Path, holder: Holder | None) -> None:
    """Record the run that was just seen on another machine, or that there is none, for `active_run`."""
    mark = folder / _ELSEWHERE
    if holder is None:
        mark.unlink(missing_ok=True)
    else:
        write_json(mark, asdict(holder))


def running_here(folder: Path) -> Holder | None:
    """Return the active run that holds the lock of the study's folder, if any."""
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
    where: str, running: Callable[[], Holder | None], request: Callable[[], object], *, wait_s: float
) -> Iterator[str]:
    """Ask a run to stop, and wait until it has ended.

    ``request`` leaves the request to stop; ``where`` is the study's folder or URL, for messages.

    Yields:
        Lines to print.

    Raises:
        ValueError: No run is active.
    """
    holder = running()
    if holder is None:
        raise ValueError(f"no run of {where} is active")
    request()
    yield f"asked {holder} to stop: its trials write checkpoints and exit"
    until = time.monotonic() + wait_s
    while running() == holder:  # with another holder, this run has ended and a new one has begun
        if time.monotonic() >= until:
            yield f"the run has not ended after {wait_s:.0f} s; the request to stop remains"
            return
        time.sleep(_LOOK_S)
    yield "the run has ended; `run` continues it"


def stop_mark(folder: Path) -> Path:
    """Return the path of the file whose existence asks the study's run to stop."""
    return folder / _STOP


def _read(lock: Path) -> Holder:
    for _ in range(_LOCK_ATTEMPTS):
        found = parse_holder(lock.read_text(encoding="utf-8"))
        if found is not None:
            return found
        time.sleep(0.1)  # the holder has not finished writing it
    return UNKNOWN


def parse_holder(text: str | bytes) -> Holder | None:
    """Return the holder of a lock or a lease, given its content; None if that is damaged."""
    try:
        found = json.loads(text)
        return Holder(host=found["host"], pid=found["pid"], since=found["since"])
    except (ValueError, TypeError, KeyError):
        return None
