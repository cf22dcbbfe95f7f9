"""What a storage that is no folder has of a study, brought into the driver's own folder of it.

Of what both have, the storage's is right: a driver elsewhere may have gone on. Weights and checkpoints stay
where they are; empty files stand in for checkpoints.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from runners.host.faults import patiently
from runners.host.storage import Storage
from runners.trials.trial_files import FAILURE, stand_in
from runners.trials.upload import SMALL
from study.state.lock import Holder, between_runs, running, stop, stop_run
from study.state.study import Study
from study.storage.lease import read_holder

LEASE = "run.json"
"""The object that says which run of a study is alive."""
STOP = "stop"
"""The object whose being there tells it to stop."""
_WEIGHTS = "weights.pt"
_PATIENCE_S = 10.0


def refresh(study: Study) -> None:
    """Brings what the storage has of a study, unless a run of it on this machine does so.

    Raises:
        ValueError: The storage can't be opened.
        OSError: It is away.
    """
    with between_runs(study.folder) as free:
        if free:  # again, where a driver elsewhere wrote meanwhile
            patiently(partial(bring_study, Storage(study.url), study), patience_s=_PATIENCE_S)


def bring_study(storage: Storage, study: Study) -> None:
    """Brings all of a study; who calls holds its lock."""
    found = storage.list(study.name_in_storage)
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for name, size in found.items():
        part, _, file = (
            name.removeprefix("trials/").rpartition("/") if name.startswith("trials/") else ("", "", name)
        )
        parts[part][file] = size
    files = {
        name: size
        for name, size in parts.pop("", {}).items()
        if "/" not in name and name not in {LEASE, STOP}
    }
    storage.get(files, study.name_in_storage, study.folder)
    trials = study.folder / "trials"
    new = {trial: files for trial, files in parts.items() if not _is_finished(trials / trial, files)}
    storage.get(
        {f"{trial}/{name}": size for trial, files in new.items() for name, size in _small(files).items()},
        f"{study.name_in_storage}/trials",
        trials,
    )
    for trial, files in new.items():
        _agree(trials / trial, files)


def bring_trial(storage: Storage, study: Study, trial_id: str) -> None:
    """Brings what the storage has of a trial."""
    name, folder = f"{study.name_in_storage}/trials/{trial_id}", study.folder / "trials" / trial_id
    files = storage.list(name)
    if files and not _is_finished(folder, files):
        storage.get(_small(files), name, folder)
        _agree(folder, files)


def bring_weights(study: Study, trial_id: str) -> None:
    """Brings a trial's weights, if they are not here.

    Raises:
        ValueError: The storage can't be opened.
        OSError: It is away.
    """
    folder = study.folder / "trials" / trial_id
    if not (folder / _WEIGHTS).exists():
        storage, name = Storage(study.url), f"{study.name_in_storage}/trials/{trial_id}"
        found = storage.list(name)
        storage.get({_WEIGHTS: found[_WEIGHTS]} if _WEIGHTS in found else {}, name, folder)


def stop_study(study: Study, *, wait_s: float) -> Iterator[str]:
    """Tells the run of a study to stop, on whatever machine it is, as `study.state.lock.stop`."""
    if not study.url or running(study.folder) is not None:
        yield from stop(study.folder, wait_s=wait_s)
        return
    storage, name = Storage(study.url), study.name_in_storage
    tell = partial(storage.write, f"{name}/{STOP}", b"stop")
    yield from stop_run(f"{study.url}/{name}", partial(_holder, storage, name), tell, wait_s=wait_s)


def _holder(storage: Storage, name: str) -> Holder | None:
    found = storage.read(f"{name}/{LEASE}")
    return None if found is None else read_holder(found)


def _is_finished(folder: Path, files: Mapping[str, int]) -> bool:
    """Whether a trial has its result here and there: that never changes."""
    return "result.json" in files and (folder / "result.json").exists()


def _small(files: Mapping[str, int]) -> dict[str, int]:
    return {name: files[name] for name in (*SMALL, FAILURE) if name in files}


def _agree(folder: Path, files: Mapping[str, int]) -> None:
    """Has a trial's folder name the checkpoints that the storage has, and nothing that it has not."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {stand_in(name) for name in files if name.startswith("checkpoint-")}
    for path in (*folder.glob("checkpoint-*"), folder / FAILURE, folder / "progress.json"):
        if path.name not in kept and path.name not in files:
            path.unlink(missing_ok=True)
    for name in kept:
        (folder / name).touch()
