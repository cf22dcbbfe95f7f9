"""Subsets of large pools that this machine keeps, for all its trials."""

import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from budgets.hardware.machine_cache import machine_cache
from runners.data.index.subset import Subset
from runners.host.files import locked

_SUBSETS_KEPT = 64


def kept_subset(identity: str, choose: Callable[[], Subset]) -> Subset:
    """Return a subset that this machine keeps, or choose it; of several processes one chooses it.

    Args:
        identity: Everything that determines the subset.
        choose: Chooses it.
    """
    folder = machine_cache() / "subsets"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / blake2b(identity.encode(), digest_size=16).hexdigest()
    with locked(file.with_name(f"{file.name}.lock")):
        with suppress(OSError, ValueError):  # there is none, or a power failure has cut it
            os.utime(file)
            return Subset.load(file)
        found = choose()
        try:
            found.save(file)
        except OSError:  # the disk is full
            return found
        _drop_unused(folder)
        return Subset.load(file)


def _drop_unused(folder: Path) -> None:
    """Remove all but the subsets that were used last."""
    files = [path for path in folder.iterdir() if path.suffix != ".lock"]
    for path in sorted(files, key=lambda each: each.stat().st_mtime_ns)[:-_SUBSETS_KEPT]:
        path.unlink(missing_ok=True)
