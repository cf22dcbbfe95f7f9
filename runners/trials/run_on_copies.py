"""Runs a trial on a node's copies of the data, and uploads what it writes to a bucket.

The bucket has the same folders as a shared path. Training data is downloaded once a node. The trial's own
folder is downloaded, with the milestone that it continues from, and the trial runs on it in a process of its
own. This process outlives it and uploads count, progress, checkpoints, milestone and result, so a killed
trial loses no more than with a shared folder.
"""

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from runners.host.faults import Notice, ProcessEnded, owned
from runners.host.files import locked
from runners.host.process import FreshProcess
from runners.host.storage import Storage, cache_folder
from runners.host.trees import fetch_tree
from runners.trials.records.trial_files import checkpoints, is_milestone, is_whole
from runners.trials.trial_copy import OWNER, TrialCopy
from runners.trials.trial_job import TrialJob

_LOOK_S = 0.2

T = TypeVar("T")


def run_on_copies(url: str, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a trial on this node's copies of what it reads and writes.

    Args:
        url: URL of the storage.
        job: The trial, with paths relative to the URL.
        run: Runs a trial whose paths are this node's own.

    Raises:
        ProcessEnded: The trial did not finish; its work is in the storage.
        OSError: The storage is unreachable, or another process has taken the trial over.
    """
    notice = Notice()
    storage = Storage(url)
    with notice.listening():
        local = _on_this_node(url, job)
        with owned(_lock_of(local.folder), notice):
            copy = TrialCopy(storage, job.folder.as_posix(), local.folder)
            copy.take_over()
            _bring_milestone(storage, job, local)
            process = FreshProcess(pickle.dumps(partial(run, local)), fork=True)
            with copy.following():
                while not process.connection.poll(_LOOK_S):
                    if notice.by:
                        process.ask_to_leave()
                    if copy.taken:
                        process.kill()
            end = process.wait()
            notice.patiently(copy.push_last)
            if end.how == "finished":
                _drop_copies(local)
    if end.how != "finished":
        raise ProcessEnded(end.how, end.reason)
    result: T = pickle.loads(end.pickled)  # noqa: S301 - our own process's
    return result


def take_part_on_copies(url: str, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a trial over several nodes on their copies, as one of its ranks; rank 0 uploads.

    Its process is that of the training: if it is killed, the storage lacks the last seconds, as after the
    end of a node.

    Args:
        url: URL of the storage.
        job: The trial, with paths relative to the URL.
        run: Runs a trial whose paths are this node's own, as one of several ranks.

    Raises:
        OSError: The storage is unreachable.
        ProcessEnded: Another process has taken the trial over.
    """
    # Imported here, so that a driver, which names this call alone, needs no torch.
    from runners.training.ranks import decided_by_first, rank  # noqa: PLC0415 - as above

    storage, name = Storage(url), job.folder.as_posix()
    local = _on_this_node(url, job)
    copy = TrialCopy(storage, name, local.folder)
    if rank() == 0:
        notice = Notice()  # requests to leave are repeated, also while the rest is uploaded
        with notice.listening(), owned(_lock_of(local.folder), notice):
            decided_by_first(copy.take_over_for_all)
            _bring_milestone(storage, job, local)
            try:
                with copy.following(taken=partial(os._exit, 1)):
                    result = run(local)
            finally:
                notice.patiently(copy.push_last)
            _drop_copies(local)
        return result
    owner, checkpoint = decided_by_first(copy.take_over_for_all)
    with locked(local.folder.with_name(f".{local.folder.name}.fetch")):
        alone = not copy.is_at(owner)
        if alone and not all((local.folder / each).exists() for each in checkpoint):
            shutil.rmtree(local.folder)  # of an earlier attempt
            local.folder.mkdir()
            storage.get(checkpoint, name, local.folder)
        if alone:
            _bring_milestone(storage, job, local)
    result = run(local)
    if alone:
        _drop_copies(local)
    return result


def run_on_data(url: str, job: TrialJob, run: Callable[[TrialJob], T]) -> T:
    """Run a function on this node's copies of a trial's data; what it writes is not uploaded.

    Args:
        url: URL of the storage.
        job: The trial, with paths relative to the URL; its folder, which no other job may have, is only on
            this node, and rank 0 removes it.
        run: Runs a trial whose paths are this node's own, perhaps as one of several ranks.

    Raises:
        OSError: The storage is unreachable.
    """
    # Imported here, so that a driver, which names this call alone, needs no torch.
    from runners.training.ranks import rank  # noqa: PLC0415 - as above

    local = _on_this_node(url, job)
    try:
        return run(local)
    finally:
        if rank() == 0:
            _drop_copies(local)


def upload_left(url: str, trials: Path) -> None:
    """Upload what trials that were killed with their uploads left on this node.

    Args:
        url: URL of the storage.
        trials: Folder of a study's trials below the URL.

    Raises:
        OSError: The storage is unreachable.
    """
    storage = Storage(url)
    for mark in sorted((cache_folder(url) / trials).glob(f"*/.{OWNER}")):
        folder = mark.parent
        with locked(_lock_of(folder), wait_s=0) as held:
            if held is not None:  # else a process still uploads it
                TrialCopy(storage, (trials / folder.name).as_posix(), folder).push_left()


def _lock_of(folder: Path) -> Path:
    """Return the lock of a copy: beside it, because taking a trial over empties its folder."""
    return folder.with_name(f".{folder.name}.lock")


def _on_this_node(url: str, job: TrialJob) -> TrialJob:
    """Return a job with this node's paths, after the data was downloaded once for all trials of the node."""
    storage, here = Storage(url), cache_folder(url)
    apart = (path for path in job.evaluation.values() if not set(job.pools) & set(path.parents))
    for tree in {*job.pools, *apart}:
        if not fetch_tree(storage, tree.as_posix(), here):
            raise OSError(f"{url} has no {tree}")
    local = replace(
        job,
        pools=tuple(here / pool for pool in job.pools),
        evaluation={name: here / path for name, path in job.evaluation.items()},
        folder=here / job.folder,
        # Not the folders of the other trials, which may run on this node.
        trunk=tuple(here / job.folder.parent / f".{job.folder.name}.trunk" for _ in job.trunk[:1]),
    )
    local.folder.mkdir(parents=True, exist_ok=True)
    return local


def _bring_milestone(storage: Storage, job: TrialJob, local: TrialJob) -> None:
    """Download the milestone that a trial without a checkpoint continues from, that of the longest trial."""
    if checkpoints(local.folder) or (local.folder / "result.json").exists():
        return
    for here in local.trunk:
        here.mkdir(exist_ok=True)
        kept = _sound_milestone(storage, job.trunk, here)
        for path in here.iterdir():  # of an earlier attempt, or damaged
            if path.name != kept:
                path.unlink()


def _sound_milestone(storage: Storage, trunk: Sequence[Path], here: Path) -> str:
    """Download the first undamaged milestone and return its name, or nothing; damaged ones are deleted."""
    for trial in map(Path.as_posix, trunk):
        for name, size in storage.list(trial).items():
            if is_milestone(name):
                storage.get({name: size}, trial, here)
                if is_whole(here / name):
                    return name
                storage.delete([f"{trial}/{name}"])
    return ""


def _drop_copies(local: TrialJob) -> None:
    """Remove a finished trial's files from this node."""
    for folder in (local.folder, *local.trunk):
        shutil.rmtree(folder, ignore_errors=True)
