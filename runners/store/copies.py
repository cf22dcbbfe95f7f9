"""Copies of small files of a location: the description of a pool, and whole evaluation sets.

A copy is compared with the location by the names, sizes, and hashes or times of its files, and replaced as a
whole.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from budgets.machine_cache import machine_cache
from runners.store.cache import local_cache
from runners.store.files import locked, new_folder
from runners.store.location import Location, until_reached

SHARDS_AT = "shards_at"
"""Field of a pool's provenance with the URL of its shards, if they are not in its folder."""

INDEX = "index/"
"""Folder of the parts of a pool's index, below the pool."""

COPIED_FROM = "copied-from.txt"
"""File in a copy of a pool with the URL of the pool."""

_COPIED, _LIST = ".copied.json", ".files.json"
DESCRIPTION = ("pool.json", "versions/", "vocabulary", "left-out", f"{INDEX}manifest-")
"""Beginnings of the names of files that describe a pool."""


def pool_at(place: str | Path | Location, folder: Path | None = None) -> Path:
    """Return a pool's folder: the place itself, or for a URL a copy of its description and evaluation sets.

    The copy is in ``folder``, or in this machine's cache. Its shards stay below the URL, and the parts of the
    index are fetched when they are read (`fetched`).

    Raises:
        ValueError: The URL can't be read, or holds no pool that has an index.
    """
    pool = Location(place)
    if pool.local is not None:
        return pool.local
    files = pool.contents("pool")
    try:
        text = pool.read("pool.json")
    except OSError as error:
        raise ValueError(f"pool {pool} can't be read: {error}") from error
    if text is None:
        pool.contents("pool", some=True)
        raise ValueError(
            f"{pool} has no pool.json. Index its shards with `data build {pool} --in-place`, or into a "
            f"folder with `data build FOLDER --from {pool} --in-place`, and declare that folder as the pool"
        )
    small = {name: facts for name, facts in files.items() if name.startswith((*DESCRIPTION, "evaluation/"))}
    with suppress(ValueError, KeyError, TypeError):  # opening it says what is wrong with it
        facts = json.loads(text)
        # A list may lack what was written lately, which the pool names.
        late = {"pool.json", facts["manifest"], facts["vocabulary"], *facts["left_out_files"]} - files.keys()
        small |= {name: (size, "") for name, size in pool.sizes([*late]).items()}
    return _copied(pool, folder, small, {"pool.json": text.decode(), COPIED_FROM: pool.address})


def set_at(place: str | Path | Location, folder: Path | None = None) -> Path:
    """Return an evaluation set's folder: the place itself, or for a URL a copy, as `pool_at` does.

    Raises:
        ValueError: The URL can't be read, or holds nothing.
    """
    there = Location(place)
    if there.local is not None:
        return there.local
    files = there.contents("evaluation set", some=True)
    return _copied(there, folder, files, {})


def copied_from(folder: Path) -> str:
    """Return the URL of the pool that a folder is a copy of; empty if it is not a copy."""
    file = folder / COPIED_FROM
    return file.read_text(encoding="utf-8") if file.exists() else ""


def listed(what: str, place: str | Location) -> dict[str, int]:
    """Return the files of a location: name → bytes; ValueError as `Location.contents`."""
    return {name: size for name, (size, _) in Location(place).contents(what).items()}


def fetched(path: Path, url: str, name: str) -> Path:
    """Return a file of a pool's index; by way of the cache from the pool's URL, if any, if there is none.

    Raises:
        OSError: The file is nowhere, or the place is still unreachable after ten minutes.
    """
    if path.exists() or not url:
        return path
    pool, folder = Location(url), path.parents[name.count("/")]
    # A pool that was indexed again, or got a score, has another description.
    version = blake2b((folder / "pool.json").read_bytes(), digest_size=8).hexdigest()

    def get(target: Path) -> None:
        until_reached(lambda: pool.get(pool.sizes([name]), target.parents[name.count("/")]))

    return local_cache().keep(f"{pool.copy_name}-{version}/{name}", get)


def share_tree(storage: Location, name: str, folder: Path) -> bool:
    """Copy a local folder that never changes to a storage, unless it is there; return whether it was."""
    if storage.read(f"{name}{_LIST}") is not None:
        return False
    sizes = Location(folder).list()
    for file in sorted(sizes):
        storage.put(folder / file, f"{name}/{file}")
    # Written last: a folder without a list of its files does not exist.
    storage.write(f"{name}{_LIST}", json.dumps(sizes).encode())
    return True


def fetch_tree(storage: Location, name: str, folder: Path) -> bool:
    """Make a folder of one that `share_tree` has copied, whole or not; False if there is none.

    A file that does not arrive whole is an OSError.
    """
    sizes = storage.read(f"{name}{_LIST}")
    if sizes is None:
        return False
    with new_folder(folder) as new:
        (storage / name).get(json.loads(sizes), new)
    return True


def tree_at(storage: Location, name: str, folder: Path | None = None) -> Path:
    """Return the copy, in this machine's cache, of a folder that `share_tree` has copied.

    Where the machine has the folder itself, the cache has a link to that. If there is none, it is an OSError.
    """

    def make(target: Path) -> None:
        if folder is not None:
            target.symlink_to(folder.absolute())
        elif not fetch_tree(storage, name, target):
            raise OSError(f"{storage} has no {name}")

    return local_cache().keep(f"{storage.copy_name}/{name}", make)


def trial_copies(storage: Location) -> Path:
    """Return this machine's folder of the trials that it runs on copies: they are no part of the cache."""
    return machine_cache() / storage.copy_name


def _copied(
    there: Location, folder: Path | None, files: Mapping[str, tuple[int, str]], added: Mapping[str, str]
) -> Path:
    """Return a copy of files with some additional ones, in the cache or in a folder that is updated."""
    mark = json.dumps([str(there), dict(files), dict(added)], sort_keys=True)

    def fill(target: Path) -> None:
        try:
            with new_folder(target) as new:
                there.get({name: size for name, (size, _) in files.items()}, new)
                for name, text in {**added, _COPIED: mark}.items():
                    (new / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{there} can't be copied to {target}: {error}") from error

    if folder is None:
        digest = blake2b(mark.encode(), digest_size=8).hexdigest()
        return local_cache().keep(f"{there.copy_name}-{digest}", fill)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        copied = folder / _COPIED
        if copied.exists() and copied.read_text(encoding="utf-8") == mark:
            return folder
        for torn in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(torn)
        fresh, old = (folder.with_name(f".{folder.name}.partial-{suffix}") for suffix in ("new", "old"))
        fill(fresh)
        # A process killed in between leaves no copy, and the next one copies again.
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return folder
