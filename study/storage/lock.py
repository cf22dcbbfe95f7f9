"""The right to run a study or to write a pool: a folder's lock, a bucket's lease, and requests to stop."""

import fcntl
import json
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from budgets.machine_cache import machine_cache
from runners.store.files import locked, new_file, not_waiting, read_bytes
from runners.store.location import Location

LEASE = "run.json"
"""Object that the run of a study in a bucket keeps renewing; in the study's folder, a copy of another's."""
STOP = "stop"
"""File or object that asks the run of a study to stop; its content are the seconds in which, if limited."""
LEAVE = "leave"
"""Folder of the files that ask a run to leave the nodes that they are named after."""

_LOCK, _POOL_LEASE = ".lock", ".writing.json"
_RUNS = (
    "another run of {where} is active: {holder}. The command `status` with the same study watches it, `stop` "
    "stops it"
)
CHECKING = "{holder} holds {where}; checking whether it is still alive"
"""What is said while a lease is watched, with its holder and where it is."""
_WRITES = "another command is writing {where}: {holder}. Wait until it has ended"
_LOOKS, _LOCK_S, _LOOK_S = 5, 0.5, 0.2
_DEAD_S = 60.0  # a lease that is not renewed for so long belongs to a dead run
_SAY_S = 10.0  # without a change, it is said that one waits
_BEAT_S = 3.0  # interval of the renewals
_SETTLE_S = 2.0  # time in which what a concurrent run does to the lease becomes visible


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """The active run of a study.

    Attributes:
        host: The machine's name.
        pid: The process's id on that machine.
        since: Start of the run, an ISO 8601 time with offset, in ms: it tells apart equal containers.
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


def holder_of(content: str | bytes) -> Holder:
    """Return the holder of a lock or a lease, given its content; `UNKNOWN` if that is damaged."""
    try:
        record = json.loads(content)
        return Holder(host=record["host"], pid=record["pid"], since=record["since"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNKNOWN


@contextmanager
def only_run(folder: Path, refusal: str = _RUNS, where: object = None) -> Iterator[tuple[Holder, Holder]]:
    """Context manager that holds a folder's lock; the system frees the lock when the process dies.

    Yields:
        This run, and the run before it (`UNKNOWN` for the first), which has ended.

    Raises:
        ValueError: Another run holds the lock; ``refusal`` with ``where``, by default the folder, names it.
    """
    lock = folder / _LOCK
    with locked(lock, wait_s=_LOCK_S) as file:  # `status` holds the lock for an instant, too
        if file is None:
            raise ValueError(refusal.format(where=where or folder, holder=_read(lock)))
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="milliseconds")
        holder = Holder(host=socket.gethostname(), pid=os.getpid(), since=now)
        # The file is overwritten in place: the lock belongs to this open file, so it can't be replaced by a
        # rename. A reader that finds it half written tries again (`_read`).
        before = holder_of(read_bytes(lock))
        file.truncate(0)
        json.dump(asdict(holder), file)
        file.flush()
        yield holder, before


def active_run(folder: Path) -> Holder | None:
    """Return the active run of the study, if any, here or on another machine with the same bucket."""
    return running_here(folder) or SeenLease(lambda: None, folder / LEASE).last_holder


def stop_limit(place: Location) -> float | None:
    """Return the seconds in which a study's run is to stop, infinite without limit; None if not asked to."""
    asked = place.read(STOP)
    with suppress(ValueError):  # without a number, as another hand may write it
        return None if asked is None else float(asked)
    return math.inf


def running_here(folder: Path) -> Holder | None:
    """Return the active run that holds the lock of the study's folder, if any."""
    lock = folder / _LOCK
    if not lock.exists():
        return None
    with open(lock, opener=not_waiting) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock)
    return None


def _read(lock: Path) -> Holder:
    for _ in range(_LOOKS):
        if (holder := holder_of(read_bytes(lock))) != UNKNOWN:
            return holder
        time.sleep(0.1)  # the holder has not finished writing it
    return UNKNOWN


class SeenLease:
    """A lease as others see it: its run is alive if the lease has changed within the last minute.

    The minute is one of this machine's clock; no clock is compared with another's. What was seen is kept in
    the file ``record``, if there is one: a later command on this machine continues from it.
    """

    def __init__(self, read: Callable[[], bytes | None], record: Path | None = None) -> None:
        self._read, self._record = read, record
        self._lease: str | None = None
        self._since_s = self._looked_s = -math.inf  # time at which it was first seen, and last
        self._moves = False  # it has changed from one look to one within a minute
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            seen = {} if record is None else json.loads(read_bytes(record))
            if seen["host"] == socket.gethostname():  # another machine's clock may share the folder
                self._lease, self._moves = seen["lease"], seen["moves"]
                self._since_s, self._looked_s = seen["since_s"], seen["looked_s"]

    def look(self) -> Holder | None:
        """Look at the lease once; return who wrote it, None if there is none."""
        content, now_s = self._read(), time.time()
        lease = None if content is None else content.decode(errors="replace")
        if lease != self._lease or not self._looked_s <= now_s:
            self._moves = lease != self._lease and 0 <= now_s - self._looked_s < _DEAD_S
            self._lease, self._since_s = lease, now_s
        self._looked_s = now_s
        return None if lease is None else holder_of(lease)

    def holder(
        self, say: Callable[[Holder], None] = lambda _: None, *, by_process: bool = True
    ) -> Holder | None:
        """Return the run that holds the lease, None if there is none or it has died; may take a minute.

        A run on this machine has died, too, once its process has ended, if ``by_process`` is True. ``say`` is
        called if the lease does not change at once.
        """
        patient_s = time.monotonic() + _SAY_S
        while (holder := self.look()) is not None and not (self._moves or self._is_old):
            if by_process and holder.has_died:
                break
            if time.monotonic() > patient_s:
                patient_s = math.inf
                say(holder)
            time.sleep(_LOOK_S)
        if holder is None or not self._moves or self._is_old or (by_process and holder.has_died):
            return None
        return holder

    def keep(self) -> None:
        """Write what was seen to the record, or delete it if there is no lease."""
        assert self._record is not None, "a lease with a record"
        if self._lease is None:
            self._record.unlink(missing_ok=True)
            return
        seen = {"host": socket.gethostname(), "lease": self._lease, "moves": self._moves}
        with new_file(self._record, sync=False) as file:
            times = {"since_s": self._since_s, "looked_s": self._looked_s}
            file.write_text(json.dumps(seen | times), encoding="utf-8")

    @property
    def last_holder(self) -> Holder | None:
        """The run that held the lease at the last look; None if that was a minute ago, or it has died."""
        holder = None if self._lease is None or not self._moves or self._is_old else holder_of(self._lease)
        return None if holder is None or holder.has_died else holder

    @property
    def _is_old(self) -> bool:
        """True if the lease has not changed for so long that its run has died."""
        return not 0 <= time.time() - self._since_s < _DEAD_S


class Lease:
    """The exclusive right to write below a location, which nodes and drivers without a folder share.

    A run takes the lease by creating an object, which succeeds for only one of several runs. Where the
    storage's protocol can't create exclusively, the last writer has the lease, after a short wait.

    A lease that is not renewed for a minute belongs to a dead run and is taken over (`SeenLease`). If the
    other run was alive after all (it was suspended, or could not reach the bucket), it finds another holder
    at its next renewal and stops.

    Attributes:
        lost: The error of a renewal that found another run's lease; None while the lease is held.
    """

    def __init__(
        self, place: Location, holder: Holder, name: str = LEASE, refusal: str = _RUNS,
        seen: SeenLease | None = None,
    ) -> None:  # fmt: skip
        self._place, self._holder, self._name, self._refusal = place, holder, name, refusal
        self._seen, self._renewals = seen or SeenLease(partial(place.read, name)), 0
        self.lost: ValueError | None = None

    @contextmanager
    def held(
        self, dead: Holder, say: Callable[[str], None], also: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Context manager that takes the lease, renews it in a thread, and deletes it at exit.

        The lease of a run that is known to be ``dead`` is taken at once. ``also`` is called after renewals,
        in a thread of its own, however long it takes; it may raise OSError. If the storage can't be reached,
        the next round tries again. At exit, the lease then stays, and expires like that of a dead run.

        Raises:
            ValueError: The storage can't be used; or another run has the lease, or at exit has taken it over.
        """
        self._place.require()
        while not self._place.create(self._name, self._text()):
            self._bury(dead, say)
        # A run that buries the same lease at the same time would delete this one, and without exclusive
        # creation replace it.
        time.sleep(_SETTLE_S)
        self._require_ours()
        over, renewed = threading.Event(), threading.Event()
        threads = [
            threading.Thread(target=self._beat, args=(over, renewed), name="beat", daemon=True),
            threading.Thread(target=_after_each, args=(renewed, also, over), daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            renewed.set()
            for thread in threads:
                thread.join()
            with suppress(OSError, ValueError):
                self._require_ours()
                self._place.delete([self._name])
        if self.lost is not None:
            raise self.lost

    def _beat(self, over: threading.Event, renewed: threading.Event) -> None:
        while self.lost is None and not over.wait(_BEAT_S):
            with suppress(OSError):
                try:
                    self._renew()
                except ValueError as error:
                    self.lost = error
                else:
                    renewed.set()

    def _bury(self, dead: Holder, say: Callable[[str], None]) -> None:
        """Delete the lease of another run if that run is dead.

        Raises:
            ValueError: The other run is alive.
        """
        if (other := self._seen.look()) is None:
            return
        if other != dead or other == UNKNOWN:
            say(CHECKING.format(holder=other, where=self._place))
            if (alive := self._seen.holder(by_process=False)) is not None:
                raise self._taken(alive)
        if self._seen.look() is not None:
            self._place.delete([self._name])

    def _renew(self) -> None:
        self._require_ours()
        self._place.write(self._name, self._text())

    def _require_ours(self) -> None:
        content = self._place.read(self._name)
        if content is None:
            raise ValueError(
                f"{self._place / self._name}, this run's lease, was deleted; run again to continue"
            )
        if holder_of(content) != self._holder:
            raise self._taken(holder_of(content))

    def _taken(self, holder: Holder) -> ValueError:
        return ValueError(self._refusal.format(where=self._place, holder=holder))

    def _text(self) -> bytes:
        self._renewals += 1
        return json.dumps({**asdict(self._holder), "renewals": self._renewals}).encode()


def _after_each(event: threading.Event, do: Callable[[], None], over: threading.Event) -> None:
    while event.wait():
        event.clear()  # before the look at what may have been set meanwhile
        if over.is_set():
            return
        with suppress(OSError):
            do()


@contextmanager
def only_writer(pool: str | Location, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager that keeps other commands from writing a pool, a folder or a URL.

    Raises:
        ValueError: Another command writes the pool; or, at exit, one has taken over while this one was
            suspended for more than a minute.
        OSError: The storage can't be reached.
    """
    storage = Location(pool)
    if storage.local is not None:
        # A new pool has no folder yet; a build locks its own working folder.
        with only_run(storage.local, _WRITES) if storage.local.is_dir() else nullcontext():
            yield
        return
    lock_folder = machine_cache() / "written" / storage.copy_name
    lock_folder.mkdir(parents=True, exist_ok=True)
    with (
        only_run(lock_folder, _WRITES, storage) as (holder, before),
        Lease(storage, holder, _POOL_LEASE, _WRITES).held(before, say),
    ):
        yield
