"""Folders that do not change, as pools: put into a storage once, fetched once by each node.

An object beside the others, written last, lists them with their sizes: without it there is no such folder.
"""

import json
import shutil
from pathlib import Path

from runners.host.files import locked, new_folder
from runners.host.storage import Storage


def share_tree(storage: Storage, folder: Path, name: str) -> bool:
    """Puts a folder into a storage, hidden files left out, unless it is there.

    Args:
        storage: The storage.
        folder: The folder.
        name: What to call it there; another content has another name.

    Returns:
        Whether it was not there.
    """
    if storage.read(_list_of(name)) is not None:
        return False
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    seen = {each: path for each, path in files.items() if not any(p.startswith(".") for p in each.split("/"))}
    for each, path in seen.items():
        storage.put(path, f"{name}/{each}")
    sizes = {each: path.stat().st_size for each, path in seen.items()}
    storage.write(_list_of(name), json.dumps(sizes).encode())
    return True


def fetch_tree(storage: Storage, name: str, here: Path) -> bool:
    """Fetches a folder, whole or not at all; of several processes one does so, and the others wait.

    Args:
        storage: The storage.
        name: What it is called there.
        here: This node's folder, in which it will have the same name.

    Returns:
        Whether it is there.

    Raises:
        OSError: A file did not arrive whole.
    """
    target = here / name
    if target.exists():
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        for torn in target.parent.glob(f".{target.name}.partial-*"):
            shutil.rmtree(torn)
        if target.exists():
            return True
        sizes = storage.read(_list_of(name))
        if sizes is None:
            return False
        target.unlink(missing_ok=True)  # a link to what is no longer there
        with new_folder(target) as folder:
            storage.get(json.loads(sizes), name, folder)
    return True


def _list_of(name: str) -> str:
    return f"{name}.files.json"
