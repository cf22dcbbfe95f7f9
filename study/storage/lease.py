"""The lock of a study or a pool in a bucket: an object that the active run creates and keeps renewing."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict

from budgets.machine_cache import machine_cache
from runners.store.location import Location
from study.storage.lock import UNKNOWN, Holder, only_run, parse_holder

_POOL_LEASE = ".writing.json"
_DEAD_S = 60.0  # a lease that is not renewed for so long belongs to a dead run
_BEAT_S = 3.0  # interval of the renewals
_LOOK_S = 1.0
_SETTLE_S = 2.0  # time in which what a concurrent run does to the lease becomes visible


class Lease:
    """The exclusive right to run a study.

    A run takes the lease by creating the object, which succeeds for only one of several runs. Where the
    storage's protocol can't create exclusively, the last writer has the lease, after a short wait.

    A lease that is not renewed for a minute, measured by the clock of the run that wants it, belongs to a
    dead run and is taken over. If the other run was alive after all (it was suspended, or could not reach
    the bucket), it finds another token at its next renewal and stops.

    Attributes:
        lost: The error of a renewal that found another run's lease; None while the lease is held.
    """

    def __init__(
        self, storage: Location, name: str, holder: Holder, refusal: Callable[[Holder], ValueError]
    ) -> None:
        self._refusal = refusal
        self._storage, self._name, self._holder = storage, name, holder
        self._token, self._renewed = secrets.token_hex(8), 0
        self.lost: ValueError | None = None

    def claim(self, dead: Holder | None, say: Callable[[str], None]) -> None:
        """Take the lease; that of a run that is known to be ``dead`` is taken over without a wait.

        Raises:
            ValueError: Another run has the lease; the message names it.
            OSError: The storage can't be reached.
        """
        while not self._storage.create(self._name, self._text()):
            self._bury(dead, say)
        # A run that buries the same lease at the same time would delete this one, and without exclusive
        # creation replace it.
        time.sleep(_SETTLE_S)
        self._require_ours()

    @contextmanager
    def kept(self, also: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Context manager that renews the lease in a thread, as a sign that this run is alive.

        If the storage can't be reached, the next round tries again. The thread ends once the lease is lost.
        ``also`` is called after each renewal, in the thread; it may raise OSError.
        """
        over = threading.Event()

        def beat() -> None:
            while self.lost is None and not over.wait(_BEAT_S):
                with suppress(OSError):
                    try:
                        self._renew()
                    except ValueError as error:
                        self.lost = error
                    else:
                        also()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def release(self) -> None:
        """Delete the lease; if the storage can't be reached it stays, and expires like that of a dead run."""
        with suppress(OSError, ValueError):
            self._require_ours()
            self._storage.delete([self._name])

    def _bury(self, dead: Holder | None, say: Callable[[str], None]) -> None:
        """Delete the lease of another run if that run is dead.

        Raises:
            ValueError: The other run is alive.
        """
        # A live run changes the object at each renewal; so an object that stays the same belongs to a dead
        # run.
        seen = found = self._storage.read(self._name)
        if seen is None:
            return
        if holder_of(seen) != dead:
            say(f"{holder_of(seen)} holds {self._storage}; checking whether it is still alive")
            until = time.monotonic() + _DEAD_S
            while found == seen and time.monotonic() < until:
                time.sleep(_LOOK_S)
                found = self._storage.read(self._name)
        if found == seen:
            self._storage.delete([self._name])
        elif found is not None:
            raise self._refusal(holder_of(found))

    def _renew(self) -> None:
        self._require_ours()
        self._renewed += 1
        self._storage.write(self._name, self._text())

    def _require_ours(self) -> None:
        found = self._storage.read(self._name)
        if found is None:
            raise ValueError(
                f"{self._storage / self._name}, this run's lease, was deleted; run again to continue"
            )
        if f'"token": "{self._token}"'.encode() not in found:
            raise self._refusal(holder_of(found))

    def _text(self) -> bytes:
        content = {**asdict(self._holder), "token": self._token, "renewed": self._renewed}
        return json.dumps(content).encode()


def live_holder(storage: Location, name: str, *, if_unknown: bool = False) -> Holder | None:
    """Return the holder of a lease; None if there is none, or its run has died.

    A run has died if its process on this machine has ended, or if it has not renewed the lease for a minute.
    Where the storage can't tell when that was, it counts as alive if ``if_unknown``.
    """
    found, age_s = storage.read(name), storage.age_s(name)
    alive = if_unknown if age_s is None else age_s < _DEAD_S
    holder = holder_of(found) if found is not None and alive else None
    return None if holder is None or holder.has_died else holder


def holder_of(content: bytes) -> Holder:
    """Return the holder of a lease, given the object's content; `UNKNOWN` if that is damaged."""
    return parse_holder(content) or UNKNOWN


@contextmanager
def only_writer(pool: str | Location, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager that keeps other commands from writing a pool, a folder or a URL.

    Raises:
        ValueError: Another command writes the pool; or, at exit, one has taken over while this one was
            suspended for more than a minute.
        OSError: The storage can't be reached.
    """

    def refusal(writer: Holder) -> ValueError:
        return ValueError(f"another command is writing {storage}: {writer}. Wait until it has ended")

    storage = Location(pool)
    if storage.local is not None:
        # A new pool has no folder yet; a build locks its own working folder.
        with only_run(storage.local, refusal) if storage.local.is_dir() else nullcontext():
            yield
        return
    storage.require()
    here = machine_cache() / "written" / storage.copy_name
    here.mkdir(parents=True, exist_ok=True)
    with only_run(here, refusal) as (holder, before):
        lease = Lease(storage, _POOL_LEASE, holder, refusal)
        lease.claim(before, say)
        try:
            with lease.kept():
                yield
        finally:
            lease.release()
        if lease.lost is not None:
            raise lease.lost
