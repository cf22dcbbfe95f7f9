"""One run of a study at a time where its storage is no folder: an object that the run keeps renewing."""

import json
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from runners.host.storage import Storage
from study.storage.lock import Holder

_DEAD_S = 60.0
_LOOK_S = 1.0
_SETTLE_S = 2.0


class Lease:
    """The right to run a study.

    The object is created where there is none, which one of several can do. One that is not renewed for a
    minute by this machine's clock is a dead run's, and is taken over; a run that was thought dead finds out
    when it renews. Where a protocol can't create exclusively, who wrote last has it, after a moment.

    Args:
        storage: The storage.
        name: The object.
        holder: Who this run is.
    """

    def __init__(self, storage: Storage, name: str, holder: Holder) -> None:
        self._storage, self._name, self._holder = storage, name, holder
        self._token, self._renewed = secrets.token_hex(8), 0

    def claim(self, dead: Holder | None, say: Callable[[str], None]) -> None:
        """Takes the lease.

        Args:
            dead: A run that is known to be dead.
            say: Told what is waited for.

        Raises:
            ValueError: Another run has it; the message says which.
            OSError: The storage is away.
        """
        while not self._storage.create(self._name, self._text()):
            self._bury(dead, say)
        if not self._storage.exclusive(self._name):
            time.sleep(_SETTLE_S)
        self._require_ours()

    def renew(self) -> None:
        """Says that this run is alive.

        Raises:
            ValueError: Another run took over, thinking that it was not.
            OSError: The storage is away.
        """
        self._require_ours()
        self._renewed += 1
        self._storage.write(self._name, self._text())

    def release(self) -> None:
        """Gives the lease back; where the storage is away it stays, as that of a dead run."""
        with suppress(OSError, ValueError):
            self._require_ours()
            self._storage.delete([self._name])

    def _bury(self, dead: Holder | None, say: Callable[[str], None]) -> None:
        """Removes the lease of a run that is dead, if it is.

        Raises:
            ValueError: It is alive.
        """
        seen = found = self._storage.read(self._name)
        if seen is None:
            return
        if read_holder(seen) != dead:
            say(f"{read_holder(seen)} has {self._storage.url}; looking whether it is alive")
            until = time.monotonic() + _DEAD_S
            while found == seen and time.monotonic() < until:
                time.sleep(_LOOK_S)
                found = self._storage.read(self._name)
        if found == seen:
            self._storage.delete([self._name])
        elif found is not None:
            raise self._refusal(found)

    def _refusal(self, found: bytes) -> ValueError:
        return ValueError(
            f"another run of {self._storage.url}/{self._name.rpartition('/')[0]} is under way: "
            f"{read_holder(found)}. `python -m study stop` ends it"
        )

    def _require_ours(self) -> None:
        found = self._storage.read(self._name)
        if found is None:
            raise ValueError(f"{self._storage.url}/{self._name}, which says that this run is alive, is gone")
        if json.loads(found)["token"] != self._token:
            raise self._refusal(found)

    def _text(self) -> bytes:
        content = {**asdict(self._holder), "token": self._token, "renewed": self._renewed}
        return json.dumps(content).encode()


def read_holder(content: bytes) -> Holder:
    """Reads who holds a lease."""
    found = json.loads(content)
    return Holder(host=found["host"], pid=found["pid"], since=found["since"])
