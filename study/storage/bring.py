"""Download of a study from a bucket into the driver's own folder.

The bucket's version of a file replaces the local one, because a driver on another machine may have continued
the study. A local ledger or list of events stays if it only has further lines: a run that was killed on this
machine had not uploaded them. Weights, checkpoints and milestones are not downloaded; an empty local file
marks each checkpoint and milestone.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from runners.host.files import new_file
from runners.host.progress_file import PROGRESS
from runners.host.storage import Storage
from runners.trials.records.trial_files import FAILURE, SMALL, is_checkpoint, is_milestone, stand_in

LEASE = "run.json"
"""Name of the object that the active run of a study keeps renewing (`study.storage.lease`)."""
STOP = "stop"
"""Name of the object whose existence asks the run to stop."""
LEDGER = "ledger.jsonl"
_APPENDED = {LEDGER, "events.jsonl"}


def bring(storage: Storage, name: str, folder: Path, part: str = "") -> None:
    """Download a study or a part of it; the caller must hold the study's lock.

    Args:
        storage: The storage.
        name: The study's folder in the storage.
        folder: The study's folder on this machine.
        part: A subfolder of both, such as ``trials/0123456789ab``; empty for the whole study.
    """
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in storage.list(f"{name}/{part}".rstrip("/")).items():
        where, _, file = f"{part}/{path}".lstrip("/").rpartition("/")
        parts[where][file] = size
    own = {file: size for file, size in parts.pop("", {}).items() if file not in {LEASE, STOP}}
    for file in own.keys() & _APPENDED:
        here = folder / file
        there = storage.read(f"{name}/{file}") if here.exists() else None
        if there is not None and here.read_bytes().startswith(there):
            del own[file]
    storage.get(own, name, folder)
    # Results never change: a trial with a result in both places is not downloaded again.
    new = {
        where: files
        for where, files in parts.items()
        if where.startswith("trials/")
        and not ("result.json" in files and (folder / where / "result.json").exists())
    }
    small = {
        f"{where}/{file}": files[file]
        for where, files in new.items()
        for file in (*SMALL, FAILURE)
        if file in files
    }
    storage.get(small, name, folder)
    for where, files in parts.items():
        if where.startswith("trials/"):
            _agree(folder / where, files)
            if PROGRESS in files:
                bring_progress(storage, f"{name}/{where}", folder / where)


def bring_progress(storage: Storage, name: str, folder: Path) -> None:
    """Download a trial's progress whatever its size, which changes while the trial runs."""
    found = storage.read(f"{name}/{PROGRESS}")
    if found is not None and folder.is_dir():
        with new_file(folder / PROGRESS) as file:
            file.write_bytes(found)


def _agree(folder: Path, files: Mapping[str, int]) -> None:
    """Make a trial's folder list exactly the checkpoints and milestones that are in the storage."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {stand_in(name) for name in files if is_checkpoint(name) or is_milestone(name)}
    for path in (
        *folder.glob("checkpoint-*"),
        *folder.glob("milestone-*"),
        folder / FAILURE,
        folder / PROGRESS,
    ):
        if path.name not in kept and path.name not in files:
            path.unlink(missing_ok=True)
    for name in kept:
        (folder / name).touch()
