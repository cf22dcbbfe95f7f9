"""Copies of small files below a URL: the description of a pool, and whole evaluation sets.

A copy is compared with the URL by the names, sizes, and hashes or times of its objects, and replaced as a
whole.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TypeVar

from budgets.machine_cache import machine_cache
from runners.host.faults import patiently
from runners.store.files import is_hidden, locked, new_folder
from runners.store.location import Location

SHARDS_AT = "shards_at"
"""Field of a pool's provenance with the URL of its shards, if they are not in its folder."""

INDEX = "index/"
"""Folder of the parts of a pool's index, below the pool."""

COPIED_FROM = "copied-from.json"
"""File in a copy of a pool with the URL of the pool."""

_COPIED = ".copied.json"
_DESCRIPTION = ("pool.json", "versions/", "vocabulary", "left-out", f"{INDEX}manifest-")
"""Beginnings of the names of files that describe a pool."""

PATIENCE_S = 600.0
"""Seconds to wait for an unreachable place; a trial then ends as crashed, and is retried."""

T = TypeVar("T")


def is_url(text: str) -> bool:
    """Return whether a text is a URL, not a path."""
    return "://" in text


def copy_name(url: str) -> str:
    """Return the name of the folder with the copy of a URL."""
    digest = blake2b(url.rstrip("/").encode(), digest_size=4).hexdigest()
    return f"{PurePosixPath(url).name}-{digest}"


def copy_pool(url: str, folder: Path) -> Path:
    """Copy a pool's description and evaluation sets; its shards stay below the URL.

    The parts of the index are fetched when they are read (`fetched`).

    Raises:
        ValueError: The URL can't be read, or holds no pool that has an index.
    """
    found = something_at("pool", url)
    if "pool.json" not in found:
        raise ValueError(
            f"{url} has no pool.json. Index its shards with `data build {url} --in-place`, or into a folder "
            f"with `data build FOLDER --from {url} --in-place`, and declare that folder as the pool"
        )
    storage = Location(url)
    small = {name: facts for name, facts in found.items() if name.startswith((*_DESCRIPTION, "evaluation/"))}
    pool_json = (storage.read("pool.json") or b"").decode()
    return _copied(storage, folder, small, {"pool.json": pool_json, COPIED_FROM: _origin(url)})


def begin_copy(url: str, folder: Path) -> list[str]:
    """Begin the copy of a pool's description and whole index in a new folder; return the files to fetch."""
    found = listed("pool", url)
    folder.mkdir(parents=True)
    (folder / COPIED_FROM).write_text(_origin(url), encoding="utf-8")
    own = [name for name in found if name.startswith((*_DESCRIPTION, INDEX))]
    return own if "pool.json" in found else []


def copied_from(folder: Path) -> str:
    """Return the URL of the pool that a folder is a copy of; empty if it is not a copy."""
    file = folder / COPIED_FROM
    return str(json.loads(file.read_text(encoding="utf-8"))["url"]) if file.exists() else ""


def pool_at(place: str | Path) -> Path:
    """Return a pool's folder: the place itself, or this machine's copy of the small files below a URL."""
    if not is_url(str(place)):
        return Path(place)
    return copy_pool(str(place), machine_cache() / "pools" / copy_name(str(place)))


def _origin(url: str) -> str:
    return json.dumps({"url": url.rstrip("/")}) + "\n"


def copy_set(url: str, folder: Path) -> Path:
    """Copy an evaluation set; ValueError if the URL can't be read, or holds nothing."""
    found = something_at("evaluation set", url)
    return _copied(Location(url), folder, found, {})


def something_at(what: str, url: str) -> Mapping[str, tuple[int, str]]:
    """Return objects as `objects_at`; none at all is a ValueError too, since there may be no such bucket."""
    found = objects_at(what, url)
    if not found:
        raise ValueError(f"{what} {url} can't be read: {Location(url).why_empty()}")
    return found


def listed(what: str, url: str) -> Mapping[str, int]:
    """Return everything below a URL that is not hidden: name → bytes; ValueError as `objects_at`."""
    return {name: size for name, (size, _) in objects_at(what, url).items()}


def objects_at(what: str, url: str) -> Mapping[str, tuple[int, str]]:
    """Return everything below a URL that is not hidden: name → bytes, and a hash or time of the content.

    Raises:
        ValueError: The URL can't be read, for example because a package or credentials are missing.
    """
    try:
        found = Location(url).objects()
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {url} can't be read: {error}") from error
    return {name: facts for name, facts in found.items() if not is_hidden(name)}


def fetched(path: Path, url: str, name: str) -> Path:
    """Return a file of a pool's index; fetch it from the pool's URL, if any, where the folder lacks it.

    Raises:
        OSError: The file is nowhere, or the place is still unreachable after ten minutes.
    """
    if path.exists() or not url:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            storage = Location(url)

            def get() -> None:
                storage.get({path.name: storage.size(name)}, name.rpartition("/")[0], path.parent)

            until_reached(get)
    return path


def until_reached(do: Callable[[], T]) -> T:
    """Call a function, and repeat it for up to ten minutes while the storage is unreachable.

    A file that does not exist is an error at once.
    """
    return patiently(do, patience_s=PATIENCE_S, final=(FileNotFoundError,))


def _copied(
    storage: Location, folder: Path, found: Mapping[str, tuple[int, str]], added: Mapping[str, str]
) -> Path:
    """Bring a copy up to date, with some additional files, and return its folder."""
    mark = json.dumps([storage.url, dict(found), dict(added)], sort_keys=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        copied = folder / _COPIED
        if copied.exists() and copied.read_text(encoding="utf-8") == mark:
            return folder
        for torn in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(torn)
        fresh = folder.with_name(f".{folder.name}.partial-new")
        try:
            with new_folder(fresh) as new:
                storage.get({name: size for name, (size, _) in found.items()}, "", new)
                for name, text in added.items():
                    (new / name).write_text(text, encoding="utf-8")
                (new / _COPIED).write_text(mark, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{storage.url} can't be copied to {folder}: {error}") from error
        # A process killed in between leaves no copy, and the next one copies again.
        if folder.exists():
            folder.rename(folder.with_name(f".{folder.name}.partial-old"))
        fresh.rename(folder)
        shutil.rmtree(folder.with_name(f".{folder.name}.partial-old"), ignore_errors=True)
    return folder
