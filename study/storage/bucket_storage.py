"""Location of a study in a bucket, for nodes and drivers that share no folder.

A driver works in a local folder of the study. A background thread uploads the files that the driver writes
there (events, tables) within seconds. Nodes upload their trials (`runners.trials.run_on_node`);
the driver downloads the small files of each trial. ``docs/dev/bucket.md`` has the protocol: objects, who
writes which, and what a crash leaves.
"""

import json
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from threading import Lock

from runners.data.pool.pool import tree_name
from runners.host.faults import patiently
from runners.store.copies import fetch_tree, share_tree, tree_at, trial_copies
from runners.store.files import locked, matching, new_file, read_bytes
from runners.store.location import Location
from runners.trials.meter import METER
from runners.trials.run_on_node import (
    Copies,
    drop_objects,
    objects_of,
    run_on_copies,
    run_on_data,
    take_part_on_copies,
    upload_left,
)
from runners.trials.trial_files import (
    FAILURE,
    FILES,
    PROGRESS,
    SMALL,
    WEIGHTS,
    is_checkpoint,
    is_milestone,
    milestone,
    placeholder,
)
from runners.trials.trial_job import TrialJob
from study.storage.folder_storage import FolderStorage
from study.storage.lock import (
    CHECKING,
    LEASE,
    LEAVE,
    Holder,
    Lease,
    SeenLease,
    only_run,
    running_here,
    stop_limit,
)

_HERE_ALONE = {"throughput.json", LEASE}  # about this machine only; never uploaded
_REQUESTS = 16
_PATIENCE_S = 300.0  # longest wait for an unreachable bucket at the end of a run
_DOWNLOAD_S = 60.0  # longest wait for another download
_LOOK_PATIENCE_S = 10.0  # the same for commands that only read


class BucketStorage(FolderStorage):
    """The storage of one study, in the folder ``name`` below an fsspec URL; a run holds a lease on it."""

    def __init__(self, place: Location, name: str, folder: Path) -> None:
        super().__init__(folder, place / name)
        self._objects, self._name = place, name
        self._pushed: dict[str, tuple[int, int]] = {}  # file → time in ns and bytes, as uploaded
        self._noted: dict[str, list[str]] = {}  # the study's `FILES`
        self._pushing = Lock()
        self._watched: Collection[str] = ()
        self._awaited: Collection[str] = ()
        self._lease: Lease | None = None
        self._seen = SeenLease(partial(self.place.read, LEASE), folder / LEASE)
        self._follows = False
        self._stop_requested: float | None = None
        self._to_leave: Collection[str] = ()

    def refresh(self, note: Callable[[str], None] = lambda _: None) -> None:
        """Download the study without weights and checkpoints, unless a run on this machine is active."""

        def watch() -> None:
            self._seen.holder(lambda holder: note(CHECKING.format(holder=holder, where=self.place)))
            self._seen.keep()

        with self._downloading() as free:
            if free is None or running_here(self._folder) is not None:
                return
            patiently(partial(bring, self.place, self._folder), patience_s=_LOOK_PATIENCE_S)
        patiently(watch, patience_s=_LOOK_PATIENCE_S)

    def bring_weights(self, trial_id: str) -> None:
        """Download a trial's weights."""
        folder, place = self._trial(trial_id)
        if not (folder / WEIGHTS).exists():
            with suppress(FileNotFoundError):  # it has none yet
                place.get(place.sizes([WEIGHTS]), folder)

    def bring_pool(self, name: str) -> bool:
        """Download a pool into this machine's folder of the storage's pools."""
        return fetch_tree(self._objects, name, trial_copies(self._objects) / name)

    def _holder(self) -> Holder | None:
        return self._seen.holder()

    @contextmanager
    def claim(self, say: Callable[[str], None]) -> Iterator[None]:
        """Context manager that holds the folder's lock and the bucket's lease, and keeps both in step."""
        # The order matters. First the folder's lock, which keeps out other runs on this machine and tells
        # which run the folder was left by; then the lease, which keeps out other machines; and only then a
        # look at what they wrote: before, another run may be about to change it.
        # At the end it is the other way round: the last files go up while the lease is still held.
        with ExitStack() as until_the_end:
            with self._downloading():
                holder, before = until_the_end.enter_context(only_run(self._folder))
            lease = self._lease = Lease(self.place, holder, seen=self._seen)
            until_the_end.enter_context(lease.held(before, say, self._follow))
            (self._folder / LEASE).unlink(missing_ok=True)
            self._forget_requests()
            # What a run that was killed on this machine had not uploaded is not lost.
            upload_left(self._objects, self._name)
            bring(self.place, self._folder)
            # While the bucket can't be reached, the run waits, and then fails, where it can't continue
            # without it (`RunContext.with_storage`).
            self._follows = failed = True
            try:
                yield
                failed = False
            finally:
                # A run that lost its lease must not overwrite files of the run that took over.
                if lease.lost is None:
                    # If the run ends with an error, that error must not be hidden by one of the last upload.
                    with suppress(OSError) if failed else nullcontext():
                        patiently(self._push, patience_s=0 if failed else _PATIENCE_S, say=say)

    def call(
        self, run: Callable[[TrialJob], object], job: TrialJob, *, nodes: int = 1, checks: bool = False
    ) -> Callable[[], object]:
        """Return the call with which a node, or each rank on several, runs a trial on copies of the data."""
        way = run_on_data if checks else run_on_copies if nodes == 1 else take_part_on_copies
        return partial(way, self._copies(job), job, run)

    def share(self, job: TrialJob, say: Callable[[str], None]) -> None:
        """Upload the pools, and evaluation sets outside of them, unless the bucket already has them."""
        for folder, name in self._copies(job).trees.items():
            tree_at(self._objects, name, folder)  # a node on this machine need not download it
            if share_tree(self._objects, name, folder):
                say(f"uploaded {folder} to {self._objects / name}")

    def announce(self, trial_id: str) -> None:
        """Upload the run's files and the trial's name, by which other drivers find its meter."""
        self._watched = {*self._watched, trial_id}
        self._push()

    def watch(self, trials: Collection[str], milestones: Collection[str] = ()) -> None:
        """Set the trials whose progress is downloaded from now on, and those whose milestone is awaited."""
        self._watched, self._awaited = tuple(trials), tuple(milestones)

    def fetch(self, trial_id: str) -> None:
        """Download a trial, without weights and checkpoints."""
        folder, place = self._trial(trial_id)
        _bring_trial(place, folder, objects_of(place))

    def publish(self, trial_id: str) -> None:
        """Upload a trial's failure and count, and delete from the bucket what was deleted of it here."""
        folder, place = self._trial(trial_id)
        # The folder is the decision: what is no longer in it goes from the bucket, where nodes look. Deletion
        # comes first, so that a crash between the two leaves a trial that starts again, not one that is both
        # failed and kept. Without the owner's mark, a process that still uploads gives up (`TrialCopy`).
        left = {name for name in (FAILURE, METER) if not (folder / name).exists()}
        objects = objects_of(place)
        if not matching(folder, "checkpoint-*"):
            left |= {"owner", PROGRESS, *filter(is_checkpoint, objects)}
        if milestone(folder) is None:
            left.update(filter(is_milestone, objects))
        drop_objects(place, left)
        for file in {FAILURE, METER} - left:
            place.put(folder / file, file)

    def stop_requested(self) -> float | None:
        """Return the seconds in which the run is to stop, as of the last look at the bucket."""
        if self._lease is not None and self._lease.lost is not None:
            raise self._lease.lost
        return self._stop_requested

    def nodes_to_leave(self) -> Collection[str]:
        """Return the names of the nodes that the run is asked to leave, as of the last look."""
        return self._to_leave

    def _downloading(self) -> AbstractContextManager[object]:
        """Return the lock of a download, which no run begins beside; it must not look like that of a run."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return locked(self._folder / ".download.lock", wait_s=_DOWNLOAD_S)

    def _trial(self, trial_id: str) -> tuple[Path, Location]:
        return self._folder / "trials" / trial_id, self.place / "trials" / trial_id

    def _copies(self, job: TrialJob) -> Copies:
        """Return where the data of a trial lie below the URL: pools and evaluation sets, named by content."""
        both = zip(job.pools, job.trial.components, strict=True)
        trees = {path: f"pools/{tree_name(path, component.pool)}" for path, component in both}
        named = {name.partition("@")[0]: name for name in job.trial.evaluation_sets}
        for name, path in job.evaluation.items():
            if not trees.keys() & set(path.parents):
                trees[path] = f"evaluation/{named[name]}"
        return Copies(storage=self._objects, study=self._name, trees=trees)

    def _follow(self) -> None:
        # Runs after a renewal of the lease, so never without it. Many trials take longer than a renewal may.
        if not self._follows:  # what this machine has may be older than the bucket's
            return
        self._push()
        self._stop_requested, self._to_leave = stop_limit(self.place), self.place.list(LEAVE)

        def bring_progress(trial_id: str) -> None:
            folder, place = self._trial(trial_id)
            _bring_by_name(place, folder, PROGRESS)

        def bring_milestone(trial_id: str) -> None:
            folder, place = self._trial(trial_id)
            for name in filter(is_milestone, objects_of(place)):
                (folder / placeholder(name)).touch()  # that it exists is all the driver needs

        with ThreadPoolExecutor(_REQUESTS) as threads:
            list(threads.map(bring_progress, self._watched))
            list(threads.map(bring_milestone, self._awaited))

    def _push(self) -> None:
        """Upload the driver's files that have changed since their last upload."""
        with self._pushing:
            for path in self._folder.iterdir():
                if path.is_file() and not path.name.startswith(".") and path.name not in _HERE_ALONE:
                    facts = path.stat()
                    version = facts.st_mtime_ns, facts.st_size
                    if self._pushed.get(path.name) != version:
                        self.place.put(path, path.name)
                        self._pushed[path.name] = version
            trials = {path.name for path in matching(self._folder / "trials", "*") if path.is_dir()}
            trials |= {*self._watched}
            # Last: a name in the list is an object that is there.
            names = {"files": sorted(self._pushed), "trials": sorted(trials)}
            if names != self._noted:
                self.place.write(FILES, json.dumps(names).encode())
                self._noted = names


def bring(place: Location, folder: Path) -> None:
    """Download a study; the caller must hold the study's lock.

    What runs and nodes have written is found by `FILES`: a list of a bucket may be out of date.
    """
    names = json.loads(place.read(FILES) or b'{"files": [], "trials": []}')

    def bring_trial(name: str) -> None:
        remote, local = place / "trials" / name, folder / "trials" / name
        # A result never changes. A milestone beside it may: a longer trial makes it needless.
        if not (local / "result.json").exists() or milestone(local) is not None:
            _bring_trial(remote, local, objects_of(remote))

    with ThreadPoolExecutor(_REQUESTS) as threads:
        list(threads.map(partial(_bring_by_name, place, folder), names["files"]))
        list(threads.map(bring_trial, names["trials"]))


def _bring_trial(place: Location, folder: Path, files: Collection[str]) -> None:
    """Download a trial, given the names of its objects, except those that change while it runs.

    The folder then lists exactly the checkpoints and milestones that are in the storage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ended = "result.json" in files  # uploaded last, so all that belongs to it is there
    # Results never change: a trial with a result in both places is not downloaded again.
    if not (ended and (folder / "result.json").exists()):
        place.get(place.sizes([file for file in SMALL if file in files and file != METER]), folder)
        # By name: the list does not have the meter, which is rewritten every few seconds.
        _bring_by_name(place, folder, METER)
    for file in (FAILURE, PROGRESS):
        if ended or not _bring_by_name(place, folder, file):
            (folder / file).unlink(missing_ok=True)
    placeholders = {placeholder(name) for name in files if is_checkpoint(name) or is_milestone(name)}
    for path in (*matching(folder, "checkpoint-*"), *matching(folder, "milestone-*")):
        if path.name not in placeholders and path.name not in files:
            path.unlink(missing_ok=True)
    for name in placeholders:
        (folder / name).touch()


def _bring_by_name(place: Location, folder: Path, file: str) -> bool:
    """Download a file whatever its size, which changes during a run; return whether it is there.

    Lines that a run that was killed here had not uploaded stay.
    """
    content, local = place.read(file), folder / file
    if content is None:
        return False
    if folder.is_dir() and not (local.exists() and read_bytes(local).startswith(content)):
        with new_file(local) as new:
            new.write_bytes(content)
    return True
