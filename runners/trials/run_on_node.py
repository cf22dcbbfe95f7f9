"""Calls that run a trial on a node: where its files are, or on copies, with uploads to a bucket.

The driver names these calls and needs no torch, which they load on the node. A bucket has the same folders as
a shared path. Training data is downloaded once a node. The trial's own folder is downloaded, with the
milestone that it continues from, and the trial runs on it in a process of its own. This process outlives it
and uploads count, progress, checkpoints, milestone and result, so a killed trial loses no more than with a
shared folder.
"""

import json
import os
import pickle
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from runners.host.faults import Notice, ProcessEnded
from runners.host.process import FreshProcess
from runners.host.watchdog import position
from runners.store.copies import tree_at, trial_copies
from runners.store.files import locked, matching
from runners.store.location import Location
from runners.trials.meter import METER, FlopCount, meter_text, read_meter
from runners.trials.trial_files import (
    CHECKPOINTS_KEPT,
    FILES,
    MIDWAY,
    PROGRESS,
    SMALL,
    WEIGHTS,
    Outcome,
    checkpoints,
    drop_damaged,
    is_checkpoint,
    is_milestone,
    is_whole,
    milestone,
    owned,
)
from runners.trials.trial_job import TrialJob

_LOOK_S, _PUSH_S = 0.2, 5.0

_OWNER = "owner"
"""Object with the mark of the only process that may upload a trial; here, the mark is in a file `.owner`."""

# In the order of upload: result.json comes last, and implies that the others are there.
_RESULT = ("curve.parquet", MIDWAY, "damage.jsonl", WEIGHTS, "result.json")

T = TypeVar("T")


def run_trial(job: TrialJob) -> Outcome:
    """Call `runners.trials.trial.run_trial`."""
    from runners.trials import trial  # noqa: PLC0415 - torch takes seconds, and the driver never needs it

    return trial.run_trial(job)


def take_part(job: TrialJob) -> Outcome | None:
    """Call `runners.trials.trial.take_part`."""
    from runners.trials import trial  # noqa: PLC0415 - as above

    return trial.take_part(job)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Where a study's trials and the folders that they read lie, for nodes that do not see them."""

    storage: Location
    study: str  # the study's name below it
    trees: Mapping[Path, str]  # folder as the driver sees it → name below the storage (`share_tree`)

    def of_trial(self, folder: Path) -> Location:
        """Return the location of a trial, given its folder."""
        return self.storage / self.study / "trials" / folder.name

    def on_this_node(self, job: TrialJob) -> TrialJob:
        """Return a job with this node's paths, after the data was downloaded once for all its trials."""
        local_trees = {folder: tree_at(self.storage, name) for folder, name in self.trees.items()}

        def moved(path: Path) -> Path:
            around = max(
                (tree for tree in local_trees if path.is_relative_to(tree)), key=lambda tree: len(tree.parts)
            )
            return local_trees[around] / path.relative_to(around)

        trials = trial_copies(self.storage) / self.study / "trials"
        local = replace(
            job,
            pools=tuple(map(moved, job.pools)),
            evaluation={name: moved(path) for name, path in job.evaluation.items()},
            folder=trials / job.folder.name,
            # Not the folders of the other trials, which may run on this node.
            trunk=tuple(trials / f".{job.folder.name}.trunk" for _ in job.trunk[:1]),
        )
        local.folder.mkdir(parents=True, exist_ok=True)
        return local


def run_on_copies(copies: Copies, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a trial on this node's copies.

    Raises:
        ProcessEnded: The trial did not finish; its work is in the storage.
        OSError: The storage is unreachable, or another process has taken the trial over.
    """
    notice = Notice()
    position.no_exit_deadline()
    with notice.listening():
        local = copies.on_this_node(job)
        with owned(_lock_of(local.folder), notice):
            copy = TrialCopy(copies.of_trial(job.folder), local.folder)
            copy.take_over()
            _bring_milestone(copies, job, local)
            process = FreshProcess(pickle.dumps(partial(run, local)))
            with copy.following():
                while not process.ended(_LOOK_S):
                    if notice.by:
                        process.ask_to_leave()
                    if copy.taken:
                        process.kill()
            end = process.wait()
            notice.patiently(copy.push_last)
            if end.how != "finished":
                raise ProcessEnded(end.how, end.reason)
            _drop_copies(local)
    result: T = pickle.loads(end.pickled)  # noqa: S301 - our own process's
    return result


def take_part_on_copies(copies: Copies, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a trial over several nodes on their copies, as one of its ranks; rank 0 uploads.

    Its process is that of the training: if it is killed, the storage lacks the last seconds, as after the end
    of a node. Errors are those of `run_on_copies`.
    """
    from runners.training.ranks import decided_by_first, rank  # noqa: PLC0415 - loads torch

    local = copies.on_this_node(job)
    copy = TrialCopy(copies.of_trial(job.folder), local.folder)
    if rank() == 0:
        notice = Notice()  # requests to leave are repeated, also while the rest is uploaded
        with notice.listening(), owned(_lock_of(local.folder), notice):
            decided_by_first(copy.take_over_for_all)
            _bring_milestone(copies, job, local)
            try:
                with copy.following(taken=partial(os._exit, 1)):
                    result = run(local)
            finally:
                position.no_exit_deadline()
                notice.patiently(copy.push_last)
            _drop_copies(local)
        return result
    owner, checkpoint = decided_by_first(copy.take_over_for_all)
    with locked(local.folder.with_name(f".{local.folder.name}.fetch")):
        alone = not copy.is_at(owner)
        if alone and not all((local.folder / name).exists() for name in checkpoint):
            shutil.rmtree(local.folder)  # of an earlier attempt
            local.folder.mkdir()
            copies.of_trial(job.folder).get(checkpoint, local.folder)
        if alone:
            _bring_milestone(copies, job, local)
    result = run(local)
    if alone:
        _drop_copies(local)
    return result


def run_on_data(copies: Copies, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a function, perhaps on several ranks, on this node's copies of a trial's data; upload nothing.

    The job's folder, which no other job may have, is only on this node, and rank 0 removes it.
    """
    from runners.training.ranks import rank  # noqa: PLC0415 - loads torch

    local = copies.on_this_node(job)
    try:
        return run(local)
    finally:
        if rank() == 0:
            _drop_copies(local)


def upload_left(storage: Location, study: str) -> None:
    """Upload what trials of a study that were killed with their uploads left on this node."""
    for folder in sorted(matching(trial_copies(storage) / study / "trials", "*")):
        if not (folder / f".{_OWNER}").exists():
            continue
        with locked(_lock_of(folder), wait_s=0) as held:
            if held is not None:  # else a process still uploads it
                TrialCopy(storage / study / "trials" / folder.name, folder).push_left()


def _lock_of(folder: Path) -> Path:
    """Return the lock of a copy: beside it, because taking a trial over empties its folder."""
    return folder.with_name(f".{folder.name}.lock")


def _bring_milestone(copies: Copies, job: TrialJob, local: TrialJob) -> None:
    """Download the milestone that a trial without a checkpoint continues from, that of the longest trial."""
    if checkpoints(local.folder) or (local.folder / "result.json").exists():
        return
    for folder in local.trunk:
        folder.mkdir(exist_ok=True)
        milestone = _sound_milestone(map(copies.of_trial, job.trunk), folder)
        for path in folder.iterdir():  # of an earlier attempt, or damaged
            if path.name != milestone:
                path.unlink()


def _sound_milestone(trunk: Iterable[Location], folder: Path) -> str:
    """Download the first undamaged milestone and return its name, or nothing; damaged ones are deleted."""
    for trial in trunk:
        for name in filter(is_milestone, objects_of(trial)):
            with suppress(FileNotFoundError):  # deleted meanwhile
                # Its size as it is: if that is wrong, so is the content.
                trial.get(trial.sizes([name]), folder)
                if is_whole(folder / name):
                    return name
                trial.delete([name])
    return ""


def _drop_copies(local: TrialJob) -> None:
    """Remove a finished trial's files from this node."""
    for folder in (local.folder, *local.trunk):
        shutil.rmtree(folder, ignore_errors=True)


def objects_of(trial: Location) -> set[str]:
    """Return the names of a trial's objects, as its `FILES` has them; empty if it was never begun."""
    return set(json.loads(trial.read(FILES) or b"[]"))


def drop_objects(trial: Location, names: set[str]) -> None:
    """Delete a trial's objects; no process may be running it."""
    objects = objects_of(trial)
    if names & objects:
        trial.write(FILES, json.dumps(sorted(objects - names)).encode())
    trial.delete(names)


class TrialCopy:
    """This node's copy of a trial's folder; only the last process that took the trial over may upload."""

    def __init__(self, trial: Location, folder: Path) -> None:
        self._trial, self._folder = trial, folder
        self._token = secrets.token_hex(8).encode()
        self._begun, self._begun_at, self._ahead = FlopCount(), time.monotonic(), 0
        self._there = set[str]()  # objects as in `FILES`
        self._changing = threading.Lock()
        self.taken = False

    def take_over(self, *, alone: bool = True) -> None:
        """Take the trial over from the process before, at the state of its last upload.

        If other nodes take part, ``alone`` is False: they have only what was uploaded.
        """
        owner, mark = self._trial.read(_OWNER), self._folder / f".{_OWNER}"
        ours = alone and owner is not None and self.is_at(owner)
        self._trial.write(_OWNER, self._token)
        self._there = objects_of(self._trial)
        if not ours:  # else only this node worked on it, and holds what could not be uploaded
            for path in self._folder.iterdir():
                path.unlink()
            self._fetch()
        mark.write_bytes(self._token)
        self._begun = read_meter(self._folder) or FlopCount()

    def take_over_for_all(self) -> tuple[bytes, dict[str, int]]:
        """Take the trial over; return the mark of this node's copy, and name and bytes of its checkpoint."""
        self.take_over(alone=False)
        return self._token, {path.name: path.stat().st_size for path in checkpoints(self._folder)[:1]}

    def push_left(self) -> None:
        """Upload the rest if the last process that took the trial over was on this node."""
        owner = self._trial.read(_OWNER)
        if owner is not None and self.is_at(owner):
            self._token, self._there = owner, objects_of(self._trial)
            self.push_last()

    def is_at(self, owner: bytes) -> bool:
        """Return whether the copy is on the node of the process that has this mark."""
        mark = self._folder / f".{_OWNER}"
        return mark.exists() and mark.read_bytes() == owner

    def _fetch(self) -> None:
        if (count := self._trial.read(METER)) is not None:
            (self._folder / METER).write_bytes(count)
        small = [name for name in SMALL if name in self._there]
        self._trial.get(self._trial.sizes(small), self._folder)
        saved = sorted(filter(is_checkpoint, self._there), reverse=True)
        for newest in [] if "result.json" in self._there else saved:
            self._trial.get(self._trial.sizes([newest]), self._folder)
            if not drop_damaged(self._folder):
                break
            self._drop(newest)

    def _put(self, name: str) -> None:
        self._trial.put(self._folder / name, name)
        self._note({name})

    def _drop(self, *names: str) -> None:
        self._note((), without=names)
        self._trial.delete(names)

    def _note(self, new: Collection[str], without: Collection[str] = ()) -> None:
        """Change the list of the trial's objects."""
        with self._changing:
            self._require_ours()
            self._there = self._there.difference(without).union(new)
            self._trial.write(FILES, json.dumps(sorted(self._there)).encode())

    @contextmanager
    def following(self, taken: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Context manager that uploads changes in threads; a large checkpoint does not delay the count.

        ``taken`` is called when another process has taken the trial over.
        """
        over = threading.Event()

        def again(push: Callable[[], None]) -> None:
            while not over.wait(_PUSH_S):
                with suppress(OSError, ProcessEnded):  # tried again; `taken` shows a takeover
                    push()
                if self.taken:
                    taken()

        pushes = self._push_count, self._push_checkpoint, self._push_milestone
        with ThreadPoolExecutor(len(pushes)) as threads:
            for push in pushes:
                threads.submit(again, push)
            try:
                yield
            finally:
                over.set()

    def push_last(self) -> None:
        """Upload the rest: the exact count, and the result or the newest checkpoint."""
        self._require_ours()
        done = (self._folder / "result.json").exists()
        self._push_milestone()
        if not done:
            self._push_checkpoint()
        self._trial.write(METER, meter_text(read_meter(self._folder) or FlopCount()))
        if not done:
            return
        for name in _RESULT:
            if (self._folder / name).exists():
                self._put(name)
        # Also those whose process was killed before it noted them.
        old = filter(is_checkpoint, {*self._there, *self._trial.list()})
        self._drop(*old, PROGRESS, _OWNER)

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
        self._trial.write(METER, meter_text(count))
        progress = self._folder / PROGRESS
        if progress.exists():
            self._trial.put(progress, progress.name)

    def _push_checkpoint(self) -> None:
        for path in checkpoints(self._folder)[:1]:
            if path.name not in self._there:
                self._push_count()  # the count must cover the checkpoint
                if (self._folder / MIDWAY).exists():  # so must the metrics on the way
                    self._put(MIDWAY)
                self._put(path.name)
        if old := sorted(filter(is_checkpoint, self._there))[:-CHECKPOINTS_KEPT]:
            self._drop(*old)

    def _push_milestone(self) -> None:
        path = milestone(self._folder)
        if path is not None and not any(map(is_milestone, self._there)):
            self._push_count()  # the count must cover it
            self._put(path.name)

    def _require_ours(self) -> None:
        """Raise ProcessEnded if another process has taken the trial over."""
        self.taken = self._trial.read(_OWNER) != self._token
        if self.taken:
            raise ProcessEnded("crashed", "another process has taken the trial over")
