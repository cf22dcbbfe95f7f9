"""A node's copy of a trial's folder in a bucket, and its uploads."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from runners.host.faults import ProcessEnded
from runners.host.progress_file import PROGRESS
from runners.host.storage import Storage
from runners.trials.records.meter import METER, FlopCount, meter_text, read_meter
from runners.trials.records.trial_files import (
    CHECKPOINTS_KEPT,
    MIDWAY,
    SMALL,
    checkpoints,
    drop_damaged,
    is_checkpoint,
    is_milestone,
    milestone,
)

OWNER = "owner"
"""Object with the mark of the only process that may upload a trial; here, the mark is in a file `.owner`."""

# In the order of upload: result.json comes last, and implies that the others are there.
_RESULT = ("curve.parquet", MIDWAY, "damage.jsonl", "weights.pt", "result.json")
_PUSH_S = 5.0


class TrialCopy:
    """This node's copy of a trial's folder; only the last process that took the trial over may upload."""

    def __init__(self, storage: Storage, name: str, folder: Path) -> None:
        self._storage, self._name, self._folder = storage, name, folder
        self._token = secrets.token_hex(8).encode()
        self._begun, self._begun_at, self._ahead = FlopCount(), time.monotonic(), 0
        self._there: list[str] = []  # checkpoints in the storage, the newest first
        self._has_milestone = False
        self.taken = False

    def take_over(self, *, alone: bool = True) -> None:
        """Take the trial over from the process before, at the state of its last upload.

        Args:
            alone: False if other nodes take part, which have only what was uploaded.
        """
        owner, mark = self._storage.read(self._object(OWNER)), self._folder / f".{OWNER}"
        ours = alone and owner is not None and self.is_at(owner)
        self._storage.write(self._object(OWNER), self._token)
        found = self._look()
        if not ours:  # else only this node worked on it, and holds what could not be uploaded
            for path in self._folder.iterdir():
                path.unlink()
            self._fetch(found)
        mark.write_bytes(self._token)
        self._begun = read_meter(self._folder) or FlopCount()

    def take_over_for_all(self) -> tuple[bytes, dict[str, int]]:
        """Take the trial over; return the mark of this node's copy, and name and bytes of its checkpoint."""
        self.take_over(alone=False)
        return self._token, {path.name: path.stat().st_size for path in checkpoints(self._folder)[:1]}

    def push_left(self) -> None:
        """Upload the rest if the last process that took the trial over was on this node."""
        owner = self._storage.read(self._object(OWNER))
        if owner is not None and self.is_at(owner):
            self._token = owner
            self._look()
            self.push_last()

    def _look(self) -> dict[str, int]:
        """Return the trial's objects, after noting its checkpoints and milestone."""
        found = self._storage.list(self._name)
        self._there = sorted(filter(is_checkpoint, found), reverse=True)
        self._has_milestone = any(map(is_milestone, found))
        return found

    def is_at(self, owner: bytes) -> bool:
        """Return whether the copy is on the node of the process that has this mark."""
        mark = self._folder / f".{OWNER}"
        return mark.exists() and mark.read_bytes() == owner

    def _fetch(self, found: Mapping[str, int]) -> None:
        self._storage.get({name: found[name] for name in SMALL if name in found}, self._name, self._folder)
        while self._there and "result.json" not in found:
            newest = self._there[0]
            self._storage.get({newest: found[newest]}, self._name, self._folder)
            if not drop_damaged(self._folder):
                break
            self._storage.delete([self._object(newest)])
            del self._there[0]

    @contextmanager
    def following(self, taken: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Context manager that uploads changes in threads; a large checkpoint does not delay the count.

        Args:
            taken: Called when another process has taken the trial over.
        """
        over = threading.Event()

        def again(push: Callable[[], None]) -> None:
            while not over.wait(_PUSH_S):
                with suppress(OSError, ProcessEnded):  # tried again; `taken` shows a takeover
                    push()
                if self.taken:
                    taken()

        pushes = self._push_count, self._push_checkpoint, self._push_milestone
        threads = [threading.Thread(target=again, args=(push,)) for push in pushes]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def push_last(self) -> None:
        """Upload the rest: the exact count, and the result or the newest checkpoint."""
        self._require_ours()
        done = (self._folder / "result.json").exists()
        self._push_milestone()
        if not done:
            self._push_checkpoint()
        self._storage.write(self._object(METER), meter_text(read_meter(self._folder) or FlopCount()))
        if not done:
            return
        for path in (self._folder / name for name in _RESULT):
            if path.exists():
                self._storage.put(path, self._object(path.name))
        self._storage.delete(map(self._object, (*self._there, PROGRESS, OWNER)))

    def _push_count(self) -> None:
        """Upload the count, raised by the work of the last interval.

        If the node dies before the next upload, its own count is lost with it.
        """
        self._require_ours()
        now = read_meter(self._folder) or FlopCount()
        if time.monotonic() - self._begun_at >= _PUSH_S:
            self._ahead = now.train_flops - self._begun.train_flops
            self._begun, self._begun_at = now, time.monotonic()
        count = FlopCount(train_flops=now.train_flops + self._ahead, evaluation_flops=now.evaluation_flops)
        self._storage.write(self._object(METER), meter_text(count))
        progress = self._folder / PROGRESS
        if progress.exists():
            self._storage.put(progress, self._object(progress.name))

    def _push_checkpoint(self) -> None:
        for path in checkpoints(self._folder)[:1]:
            if path.name not in self._there:
                self._push_count()  # the count must cover the checkpoint
                if (self._folder / MIDWAY).exists():  # so must the metrics on the way
                    self._storage.put(self._folder / MIDWAY, self._object(MIDWAY))
                self._storage.put(path, self._object(path.name))
                self._there.insert(0, path.name)
        self._storage.delete(map(self._object, self._there[CHECKPOINTS_KEPT:]))
        del self._there[CHECKPOINTS_KEPT:]

    def _push_milestone(self) -> None:
        path = milestone(self._folder)
        if path is not None and not self._has_milestone:
            self._push_count()  # the count must cover it
            self._storage.put(path, self._object(path.name))
            self._has_milestone = True

    def _require_ours(self) -> None:
        """Check that this process still owns the trial.

        Raises:
            ProcessEnded: Another process has taken it over.
        """
        self.taken = self._storage.read(self._object(OWNER)) != self._token
        if self.taken:
            raise ProcessEnded("crashed", "another process has taken the trial over")

    def _object(self, name: str) -> str:
        return f"{self._name}/{name}"
