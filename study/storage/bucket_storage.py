"""Location of a study in a bucket, for nodes and drivers that share no folder.

A driver works in a local folder of the study. A background thread uploads the files that the driver writes
there (ledger, events, tables) within seconds. Nodes upload their trials (`runners.trials.run_on_node`);
the driver downloads the small files of each trial.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from runners.data.pool.pool import tree_name
from runners.host.faults import patiently
from runners.scheduling.storage_check import Seen
from runners.store.copies import fetch_tree, tree_at, trial_copies
from runners.store.files import new_file
from runners.store.location import Location
from runners.trials.meter import METER
from runners.trials.run_on_node import (
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
    is_checkpoint,
    is_milestone,
    milestone,
    stand_in,
)
from study.storage.folder_storage import FolderStorage
from study.storage.lease import Lease, live_holder
from study.storage.lock import (
    after_downloads,
    between_runs,
    note_elsewhere,
    only_run,
    run_is_active,
    running_here,
    stop_run,
)

if TYPE_CHECKING:
    from runners.trials.trial_job import TrialJob

LEASE = "run.json"
"""Name of the object that the active run of a study keeps renewing (`study.storage.lease`)."""
STOP = "stop"
"""Name of the object whose existence asks the run to stop."""
LEDGER = "ledger.jsonl"
_APPENDED = {LEDGER, "events.jsonl"}
_HERE_ALONE = {"throughput.json", STOP}  # about this machine only; never uploaded
_WEIGHTS, _REQUESTS = "weights.pt", 16
_PATIENCE_S = 300.0  # longest wait for an unreachable bucket at the end of a run
_LOOK_PATIENCE_S = 10.0  # the same for commands that only read


class BucketStorage(FolderStorage):
    """The storage of one study, in the folder ``name`` below an fsspec URL; a run holds a lease on it."""

    lags = True

    def __init__(self, place: Location, name: str, folder: Path) -> None:
        super().__init__(folder)
        self._objects, self._name = place, name
        self._pushed: dict[str, tuple[int, int]] = {}
        self._noted: set[str] | None = None  # trials in the study's `FILES`
        self._pushing = Lock()
        self._announced = False
        self._watched: Collection[str] = ()
        self._awaited: Collection[str] = ()
        self._lease: Lease | None = None
        self._stop_requested = False

    @property
    def subsets(self) -> Location:
        """The place, which all nodes see, of the subsets of large pools."""
        return self._objects / self._name / "subsets"

    def refresh(self) -> None:
        """Download the study without weights and checkpoints, unless a run on this machine is active."""

        def look() -> None:
            bring(self._objects, self._name, self._folder)
            note_elsewhere(self._folder, live_holder(self._objects, f"{self._name}/{LEASE}"))

        with between_runs(self._folder) as free:
            if free:  # a list of objects is stale if a driver writes meanwhile; so retry
                patiently(look, patience_s=_LOOK_PATIENCE_S)

    def bring_weights(self, trial_id: str) -> None:
        """Download a trial's weights."""
        folder, name = self._trial(trial_id)
        if not (folder / _WEIGHTS).exists():
            found = objects_of(self._objects, name)
            self._objects.get({_WEIGHTS: found[_WEIGHTS]} if _WEIGHTS in found else {}, name, folder)

    def bring_pool(self, name: str) -> bool:
        """Download a pool into this machine's folder of the storage's pools."""
        return fetch_tree(self._objects, name, trial_copies(self._objects) / name)

    def stop(self, *, wait_s: float) -> Iterator[str]:
        """Ask the run to stop: by the file ``stop`` on this machine, else by an object in the bucket."""
        if running_here(self._folder) is not None:
            return super().stop(wait_s=wait_s)
        holder = partial(live_holder, self._objects, f"{self._name}/{LEASE}", if_unknown=True)
        request = partial(self._objects.write, f"{self._name}/{STOP}", b"stop")
        return stop_run(str(self._objects / self._name), holder, request, wait_s=wait_s)

    @contextmanager
    def claim(self, say: Callable[[str], None]) -> Iterator[None]:
        """Context manager that holds the folder's lock and the bucket's lease, and keeps both in step."""
        with ExitStack() as until_the_end:
            with after_downloads(self._folder):
                holder, before = until_the_end.enter_context(only_run(self._folder))
            self._objects.require()
            refusal = run_is_active(self._objects / self._name)
            lease = self._lease = Lease(self._objects, f"{self._name}/{LEASE}", holder, refusal)
            lease.claim(before, say)
            note_elsewhere(self._folder, None)
            try:
                # A request to stop that is older than this run was meant for an earlier run.
                self._objects.delete([f"{self._name}/{STOP}"])
                # What a run that was killed on this machine had not uploaded is not lost.
                upload_left(self._objects, Path(self._name, "trials"))
                bring(self._objects, self._name, self._folder)
                with self._following(lease, say):
                    yield
            finally:
                lease.release()

    def seen_by_nodes(self, read: tuple[Path, ...]) -> Seen:  # noqa: ARG002 - trials read copies from the bucket
        """Return the bucket, which every node must reach."""
        return Seen(written=self._objects)

    def call(
        self, run: "Callable[[TrialJob], object]", job: "TrialJob", *, nodes: int = 1
    ) -> Callable[[], object]:
        """Return the call with which a node, or each rank on several, runs a trial on copies of the data."""
        return partial(
            run_on_copies if nodes == 1 else take_part_on_copies, self._objects, self._there(job), run
        )

    def call_on_data(self, run: "Callable[[TrialJob], object]", job: "TrialJob") -> Callable[[], object]:
        """Return the call with which a node runs a function on copies of the data; it uploads nothing."""
        return partial(run_on_data, self._objects, self._there(job), run)

    def share(self, job: "TrialJob", say: Callable[[str], None]) -> None:
        """Upload the pools, and evaluation sets outside of them, unless the bucket already has them."""
        there = self._there(job)
        folders = dict(zip(there.pools, job.pools, strict=True)) | {
            path: job.evaluation[name]
            for name, path in there.evaluation.items()
            if not set(there.pools) & set(path.parents)
        }
        for path, folder in folders.items():
            tree_at(self._objects, path.as_posix(), folder)  # a node on this machine need not download it
            if self._objects.share_tree(folder, path.as_posix()):
                say(f"uploaded {folder} to {self._objects / path}")

    def announce(self) -> None:
        """Upload the ledger and the run's other files, once."""
        if not self._announced:
            self._push()
            self._announced = True

    def watch(self, trials: Collection[str], milestones: Collection[str] = ()) -> None:
        """Set the trials whose progress is downloaded from now on, and those whose milestone is awaited."""
        self._watched, self._awaited = tuple(trials), tuple(milestones)

    def fetch(self, trial_id: str) -> None:
        """Download a trial, without weights and checkpoints."""
        folder, name = self._trial(trial_id)
        _bring_trial(self._objects, name, folder, objects_of(self._objects, name))

    def publish(self, trial_id: str) -> None:
        """Upload a trial's failure, and delete from the bucket the trial's files that were deleted here."""
        folder, name = self._trial(trial_id)
        left = {each for each in (FAILURE, METER) if not (folder / each).exists()}
        found = objects_of(self._objects, name)
        if not any(folder.glob("checkpoint-*")):
            left |= {"owner", PROGRESS, *filter(is_checkpoint, found)}
        if milestone(folder) is None:
            left.update(filter(is_milestone, found))
        drop_objects(self._objects, name, left)
        if (folder / FAILURE).exists():
            self._objects.put(folder / FAILURE, f"{name}/{FAILURE}")

    def stop_requested(self) -> bool:
        """Return whether the run was asked to stop, by the local file or by the object in the bucket."""
        if self._lease is not None and self._lease.lost is not None:
            raise self._lease.lost
        return self._stop_requested or super().stop_requested()

    def _trial(self, trial_id: str) -> tuple[Path, str]:
        return self._folder / "trials" / trial_id, f"{self._name}/trials/{trial_id}"

    def _there(self, job: "TrialJob") -> "TrialJob":
        """Return the job with its paths below the URL; pools and evaluation sets are named by content."""
        both = zip(job.pools, job.trial.components, strict=True)
        pools = {path: Path("pools", tree_name(path, component.pool)) for path, component in both}
        named = {name.partition("@")[0]: name for name in job.trial.evaluation_sets}
        sets = {
            name: next(
                (
                    there / path.relative_to(here)
                    for here, there in pools.items()
                    if path.is_relative_to(here)
                ),
                Path("evaluation", named[name]),
            )
            for name, path in job.evaluation.items()
        }
        return replace(
            job,
            pools=tuple(pools[path] for path in job.pools),
            evaluation=sets,
            folder=Path(self._name, "trials", job.folder.name),
            trunk=tuple(Path(self._name, "trials", each.name) for each in job.trunk),
        )

    @contextmanager
    def _following(self, lease: Lease, say: Callable[[str], None]) -> Iterator[None]:
        """Context manager that follows the bucket after each renewal, and uploads the last changes at exit.

        While the bucket can't be reached, the run itself waits, and then fails, where it can't continue
        without it (`Site.with_storage`).
        """
        failed = True
        try:
            with lease.kept(self._follow):
                yield
            failed = False
        finally:
            # A run that lost its lease must not overwrite files of the run that took over.
            if lease.lost is None:
                # If the run ends with an error, that error must not be hidden by one of the last upload.
                with suppress(OSError) if failed else nullcontext():
                    patiently(self._push, patience_s=0 if failed else _PATIENCE_S, say=say)

    def _follow(self) -> None:
        self._push()
        self._stop_requested = self._stop_requested or self._objects.read(f"{self._name}/{STOP}") is not None
        self._fetch_progress()

    def _push(self) -> None:
        """Upload the driver's files that have changed since their last upload; the ledger first."""
        with self._pushing:
            before = dict(self._pushed)
            for path in sorted(self._folder.iterdir(), key=lambda path: path.name != LEDGER):
                if path.is_file() and not path.name.startswith(".") and path.name not in _HERE_ALONE:
                    facts = path.stat()
                    version = facts.st_mtime_ns, facts.st_size
                    if self._pushed.get(path.name) != version:
                        self._objects.put(path, f"{self._name}/{path.name}")
                        self._pushed[path.name] = version
            trials = {each.name for each in (self._folder / "trials").glob("*/")} | set(self._watched)
            if before != self._pushed or trials != self._noted:
                files = {name: size for name, (_, size) in self._pushed.items()}
                content = {"files": files, "trials": sorted(trials)}
                self._objects.write(f"{self._name}/{FILES}", json.dumps(content).encode())
                self._noted = trials

    def _fetch_progress(self) -> None:
        for folder, name in map(self._trial, self._watched):
            _bring_by_name(self._objects, name, folder, PROGRESS)
        for folder, name in map(self._trial, self._awaited):
            for each in filter(is_milestone, objects_of(self._objects, name)):
                (folder / stand_in(each)).touch()


def bring(storage: Location, name: str, folder: Path) -> None:
    """Download a study from its folder in the storage; the caller must hold the study's lock.

    A list of a bucket may be some seconds out of date. What runs and nodes have written is found by `FILES`.
    """
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in storage.list(name).items():
        where, _, file = path.rpartition("/")
        parts[where][file] = size
    known = json.loads(storage.read(f"{name}/{FILES}") or b'{"files": {}, "trials": []}')
    own = {**parts[""], **known["files"]}
    own = {file: size for file, size in own.items() if file not in {LEASE, STOP, FILES}}
    for file in own.keys() & _APPENDED:
        here = folder / file
        there = storage.read(f"{name}/{file}") if here.exists() else None
        if there is not None and here.read_bytes().startswith(there):
            del own[file]
    storage.get(own, name, folder)

    def bring_trial(where: str) -> None:
        listed, there = parts[where], f"{name}/{where}"
        noted = {} if "result.json" in listed else objects_of(storage, there)
        _bring_trial(storage, there, folder / where, noted or listed)

    trials = {where for where in parts if where.startswith("trials/")}
    trials |= {f"trials/{each}" for each in known["trials"]}
    with ThreadPoolExecutor(_REQUESTS) as threads:
        list(threads.map(bring_trial, sorted(trials)))


def _bring_trial(storage: Location, name: str, folder: Path, files: Mapping[str, int]) -> None:
    """Download a trial, given the bytes of its objects by name, except those that change while it runs."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = "result.json" in files
    # Results never change: a trial with a result in both places is not downloaded again.
    if not (ended and (folder / "result.json").exists()):
        storage.get({file: files[file] for file in SMALL if file in files and file != METER}, name, folder)
        _bring_by_name(storage, name, folder, METER)
    for file in (FAILURE, PROGRESS):
        if ended or not _bring_by_name(storage, name, folder, file):
            (folder / file).unlink(missing_ok=True)
    _agree(folder, files)


def _bring_by_name(storage: Location, name: str, folder: Path, file: str) -> bool:
    """Download a file whatever its size, which changes while the trial runs; return whether it is there."""
    content = storage.read(f"{name}/{file}")
    if content is not None and folder.is_dir():
        with new_file(folder / file) as new:
            new.write_bytes(content)
    return content is not None


def _agree(folder: Path, files: Iterable[str]) -> None:
    """Make a trial's folder list exactly the checkpoints and milestones that are in the storage."""
    kept = {stand_in(name) for name in files if is_checkpoint(name) or is_milestone(name)}
    for path in (*folder.glob("checkpoint-*"), *folder.glob("milestone-*")):
        if path.name not in kept and path.name not in files:
            path.unlink(missing_ok=True)
    for name in kept:
        (folder / name).touch()
