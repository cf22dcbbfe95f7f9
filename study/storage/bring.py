"""What a bucket has of a study, brought into the driver's own folder of it.

Of what both have, the bucket's is right: a driver elsewhere may have gone on. Weights and checkpoints stay
where they are; empty files stand in for checkpoints.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from runners.host.storage import Storage
from runners.trials.trial_files import FAILURE, SMALL, stand_in

LEASE = "run.json"
"""The object that says which run of a study is alive."""
STOP = "stop"
"""The object whose being there tells it to stop."""


def bring(storage: Storage, name: str, folder: Path, part: str = "") -> None:
    """Brings all of a study, or a part of it; who calls holds its lock.

    Args:
        storage: The storage.
        name: What the study's folder is called there.
        folder: The study's folder here.
        part: A folder in both, as ``trials/0123456789ab``.
    """
    parts: dict[str, dict[str, int]] = defaultdict(dict)
    for path, size in storage.list(f"{name}/{part}".rstrip("/")).items():
        where, _, file = f"{part}/{path}".lstrip("/").rpartition("/")
        parts[where][file] = size
    own = {file: size for file, size in parts.pop("", {}).items() if file not in {LEASE, STOP}}
    storage.get(own, name, folder)
    new = {
        where: files
        for where, files in parts.items()
        if where.startswith("trials/") and not _is_finished(folder / where, files)
    }
    small = {
        f"{where}/{file}": files[file]
        for where, files in new.items()
        for file in (*SMALL, FAILURE)
        if file in files
    }
    storage.get(small, name, folder)
    for where, files in new.items():
        _agree(folder / where, files)


def _is_finished(folder: Path, files: Mapping[str, int]) -> bool:
    """Whether a trial has its result here and there: that never changes."""
    return "result.json" in files and (folder / "result.json").exists()


def _agree(folder: Path, files: Mapping[str, int]) -> None:
    """Has a trial's folder list exactly the checkpoints that the storage has."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {stand_in(name) for name in files if name.startswith("checkpoint-")}
    for path in (*folder.glob("checkpoint-*"), folder / FAILURE, folder / "progress.json"):
        if path.name not in kept and path.name not in files:
            path.unlink(missing_ok=True)
    for name in kept:
        (folder / name).touch()
