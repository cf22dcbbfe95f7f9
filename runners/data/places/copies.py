"""Copies of what is small below a URL: the description of a pool, and whole evaluation sets.

A copy is compared with the URL by the names and sizes of its objects, and replaced as a whole.
"""

import json
import shutil
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from runners.host.faults import patiently
from runners.host.files import locked, new_folder
from runners.host.storage import Storage

SHARDS_AT = "shards_at"
"""Field of a pool's provenance with the URL of its shards, if they are not in its folder."""

INDEX = "index/"
"""Folder of the parts of a pool's index, below the pool."""

_COPIED = ".copied.json"
_PATIENCE_S = 600.0  # as with shards


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
    found = listed("pool", url)
    storage = Storage(url)
    if "pool.json" not in found:
        raise ValueError(
            f"{url} has no pool.json. Index its shards into a folder with "
            f"`data build FOLDER --from {url} --in-place`, and declare that folder as the pool"
        )
    facts = json.loads(storage.read("pool.json") or b"{}")
    small = {
        name: size
        for name, size in found.items()
        if name.startswith("evaluation/") or (not name.lower().endswith(".tar") and not _is_part(name))
    }
    facts["provenance"] = {SHARDS_AT: url.rstrip("/")} | facts.get("provenance", {})
    return _copied(storage, folder, small, json.dumps(facts, indent=2, sort_keys=True) + "\n")


def copy_set(url: str, folder: Path) -> Path:
    """Copy an evaluation set.

    Raises:
        ValueError: The URL can't be read, or holds nothing.
    """
    found = listed("evaluation set", url)
    if not found:
        raise ValueError(f"evaluation set {url} holds no files")
    return _copied(Storage(url), folder, found, "")


def listed(what: str, url: str) -> Mapping[str, int]:
    """Return everything below a URL that is not hidden: name → bytes.

    Raises:
        ValueError: The URL can't be read, for example because a package or credentials are missing.
    """
    try:
        found = Storage(url).list()
    except (OSError, ValueError) as error:
        raise ValueError(f"{what} {url} can't be read: {error}") from error
    return {name: size for name, size in found.items() if not name.startswith(".") and "/." not in name}


def fetched(path: Path, url: str, name: str) -> Path:
    """Return a file of a pool's index; from below the URL, if the folder lacks it and there is one.

    Raises:
        OSError: The file is nowhere, or the place is still unreachable after ten minutes.
    """
    if path.exists() or not url:
        return path
    path.parent.mkdir(exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            storage = Storage(url)

            def get() -> FileNotFoundError | None:
                try:
                    storage.get({path.name: storage.size(name)}, name.rpartition("/")[0], path.parent)
                except FileNotFoundError as error:
                    return error
                return None

            if missing := patiently(get, patience_s=_PATIENCE_S):
                raise missing
    return path


def _is_part(name: str) -> bool:
    return name.startswith(INDEX) and not name.startswith(f"{INDEX}manifest-")


def _copied(storage: Storage, folder: Path, sizes: Mapping[str, int], pool_facts: str) -> Path:
    """Bring the folder up to date, and return it."""
    mark = json.dumps([storage.url, dict(sizes), pool_facts], sort_keys=True)
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
                storage.get(sizes, "", new)
                if pool_facts:
                    (new / "pool.json").write_text(pool_facts, encoding="utf-8")
                (new / _COPIED).write_text(mark, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"{storage.url} can't be copied to {folder}: {error}") from error
        # A process killed in between leaves no copy, and the next one copies again.
        if folder.exists():
            folder.rename(folder.with_name(f".{folder.name}.partial-old"))
        fresh.rename(folder)
        shutil.rmtree(folder.with_name(f".{folder.name}.partial-old"), ignore_errors=True)
    return folder
