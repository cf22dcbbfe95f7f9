"""A study below the URL of a bucket, which nodes and drivers share without sharing a folder.

A driver works in its own folder of the study. What it writes there, its book, events and tables, it brings to
the bucket within seconds; nodes bring trials (`runners.trials.upload`), of which it fetches what it needs.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from runners.host.faults import patiently
from runners.host.files import new_file
from runners.host.storage import Storage, cache_folder
from runners.host.trees import fetch_tree, share_tree
from runners.scheduling.shared_storage import Objects
from runners.trials.trial_files import FAILURE
from study.storage.bring import LEASE, STOP, bring
from study.storage.folder_storage import FolderStorage
from study.storage.lease import Lease, read_holder
from study.storage.lock import Holder, between_runs, only_run, running, stop_run

if TYPE_CHECKING:
    from runners.trials.trial_setup import TrialJob

_HERE_ALONE = {"throughput.json", STOP}  # of this machine
_WEIGHTS = "weights.pt"
_BEAT_S = 3.0
_PATIENCE_S = 300.0  # with a bucket that is away at the end of a run
_LOOK_PATIENCE_S = 10.0


class BucketStorage(FolderStorage):
    """The objects below a URL, held by a lease while a run is under way.

    Args:
        url: The URL, an fsspec one.
        name: What the study's folder is called below it.
        folder: The driver's own folder of the study.
    """

    def __init__(self, url: str, name: str, folder: Path) -> None:
        super().__init__(folder)
        self._url, self._name = url, name
        self._pushed: dict[str, tuple[int, int]] = {}
        self._watched: Collection[str] = ()
        self._told, self._lost = False, ""

    @cached_property
    def _objects(self) -> Storage:
        return Storage(self._url)

    def refresh(self) -> None:
        """Bring all but weights and checkpoints."""
        with between_runs(self._folder) as free:
            if free:  # again, where a driver elsewhere wrote meanwhile
                patiently(lambda: bring(self._objects, self._name, self._folder), patience_s=_LOOK_PATIENCE_S)

    def bring_weights(self, trial_id: str) -> None:
        """Bring a trial's weights."""
        folder, name = self._trial(trial_id)
        if not (folder / _WEIGHTS).exists():
            found = self._objects.list(name)
            self._objects.get({_WEIGHTS: found[_WEIGHTS]} if _WEIGHTS in found else {}, name, folder)

    def bring_pool(self, name: str) -> bool:
        """Bring a pool into this machine's cache."""
        return fetch_tree(self._objects, name, cache_folder(self._url))

    def stop(self, *, wait_s: float) -> Iterator[str]:
        """Tell a run on this machine by its file, one elsewhere by an object."""
        if running(self._folder) is not None:
            return super().stop(wait_s=wait_s)
        tell = partial(self._objects.write, f"{self._name}/{STOP}", b"stop")
        return stop_run(f"{self._url}/{self._name}", self._holder, tell, wait_s=wait_s)

    @contextmanager
    def claim(self, say: Callable[[str], None]) -> Iterator[None]:
        """Hold the folder's lock and the bucket's lease; bring what is there, then keep up with it."""
        with only_run(self._folder) as (holder, before):
            self._objects.require()
            lease = Lease(self._objects, f"{self._name}/{LEASE}", holder)
            lease.claim(before, say)
            try:
                self._objects.delete([f"{self._name}/{STOP}"])  # meant for a run before this one
                bring(self._objects, self._name, self._folder)
                with self._following(lease, say):
                    yield
            finally:
                if not self._lost:
                    lease.release()

    def seen_by_nodes(self, read: tuple[Path, ...]) -> Objects:  # noqa: ARG002 - all is in the bucket
        """Return the bucket."""
        return Objects(url=self._url)

    def call(self, run: "Callable[[TrialJob], object]", job: "TrialJob") -> Callable[[], object]:
        """Return the call that runs a trial on a node's copies."""
        from runners.trials.upload import run_on_copies  # noqa: PLC0415 - torch takes seconds

        return partial(run_on_copies, self._url, self._there(job), run)

    def share(self, job: "TrialJob", say: Callable[[str], None]) -> None:
        """Put the pool, and evaluation sets that lie elsewhere, into the bucket once."""
        here, there = cache_folder(self._url), self._there(job)
        folders = {there.pool: job.pool} | {
            path: job.evaluation[name]
            for name, path in there.evaluation.items()
            if there.pool not in path.parents
        }
        for path, folder in folders.items():
            if not (here / path).exists():  # this machine need not fetch what it has
                (here / path).parent.mkdir(parents=True, exist_ok=True)
                (here / path).unlink(missing_ok=True)
                (here / path).symlink_to(folder)
            if share_tree(self._objects, folder, path.as_posix()):
                say(f"{folder} was put into {self._url}/{path.as_posix()}")

    def watch(self, trials: Collection[str]) -> None:
        """Name the trials whose progress is fetched from now on."""
        self._watched = tuple(trials)

    def fetch(self, trial_id: str) -> None:
        """Bring what the bucket has of a trial, without weights and checkpoints."""
        bring(self._objects, self._name, self._folder, f"trials/{trial_id}")

    def give(self, trial_id: str) -> None:
        """Bring a failure to the bucket; remove there what is gone here."""
        folder, name = self._trial(trial_id)
        left = set() if (folder / FAILURE).exists() else {FAILURE}
        if not any(folder.glob("checkpoint-*")):
            left |= {"owner", "progress.json"} | {
                each for each in self._objects.list(name) if each.startswith("checkpoint-")
            }
        self._objects.delete(f"{name}/{each}" for each in left)
        if (folder / FAILURE).exists():
            self._objects.put(folder / FAILURE, f"{name}/{FAILURE}")

    def told(self) -> bool:
        """Tell whether the file or the object that says so is there."""
        if self._lost:
            raise ValueError(self._lost)
        return self._told or super().told()

    def _trial(self, trial_id: str) -> tuple[Path, str]:
        return self._folder / "trials" / trial_id, f"{self._name}/trials/{trial_id}"

    def _there(self, job: "TrialJob") -> "TrialJob":
        """Return a job with the places that it has below the URL: what it reads by content."""
        pool = Path("pools", job.trial.pool)
        named = {name.partition("@")[0]: name for name in job.trial.evaluation_sets}
        sets = {
            name: pool / path.relative_to(job.pool)
            if path.is_relative_to(job.pool)
            else Path("evaluation", named[name])
            for name, path in job.evaluation.items()
        }
        return replace(job, pool=pool, evaluation=sets, folder=Path(self._name, "trials", job.folder.name))

    def _holder(self) -> Holder | None:
        found = self._objects.read(f"{self._name}/{LEASE}")
        return None if found is None else read_holder(found)

    @contextmanager
    def _following(self, lease: Lease, say: Callable[[str], None]) -> Iterator[None]:
        """Keep the bucket up to date, and this run informed of it."""
        over, failed = threading.Event(), True
        thread = threading.Thread(target=self._follow, args=(lease, over), daemon=True)
        thread.start()
        try:
            yield
            failed = False
        finally:
            over.set()
            thread.join()
            if not self._lost:
                with suppress(OSError) if failed else nullcontext():  # that error is the one to be told
                    patiently(self._push, patience_s=0 if failed else _PATIENCE_S, say=say)

    def _follow(self, lease: Lease, over: threading.Event) -> None:
        while not over.wait(_BEAT_S):
            with suppress(OSError):  # it is tried again; what can't go on without the bucket says so
                try:
                    lease.renew()
                except ValueError as error:
                    self._lost = str(error)
                    return
                self._push()
                self._told = self._told or self._objects.read(f"{self._name}/{STOP}") is not None
                self._fetch_progress()

    def _push(self) -> None:
        """Bring those of the driver's files to the bucket that have changed."""
        for path in self._folder.iterdir():
            if path.is_file() and not path.name.startswith(".") and path.name not in _HERE_ALONE:
                facts = path.stat()
                version = facts.st_mtime_ns, facts.st_size
                if self._pushed.get(path.name) != version:
                    self._objects.put(path, f"{self._name}/{path.name}")
                    self._pushed[path.name] = version

    def _fetch_progress(self) -> None:
        for folder, name in map(self._trial, self._watched):
            found = self._objects.read(f"{name}/progress.json")
            if found is not None and folder.is_dir():
                with new_file(folder / "progress.json") as file:
                    file.write_bytes(found)
