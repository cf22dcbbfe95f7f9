"""Folders that never change, such as pools: uploaded to a storage once, downloaded once by each node.

An object beside the others, written last, lists their sizes. A folder without that list does not exist.
"""

import json
import shutil
from pathlib import Path

from runners.host.files import is_hidden, locked, new_folder
from runners.host.storage import Storage


def share_tree(storage: Storage, folder: Path, name: str) -> bool:
    """Upload a folder, without hidden files, unless the storage has it.

    Args:
        storage: The storage.
        folder: The folder.
        name: Name in the storage; other content has another name.

    Returns:
        True if it was uploaded.

    Raises:
        OSError: The storage is unreachable.
    """
    if storage.read(_list_of(name)) is not None:
        return False
    sizes = {}
    for path in sorted(folder.rglob("*")):
        each = path.relative_to(folder).as_posix()
        if path.is_file() and not is_hidden(each):
            storage.put(path, f"{name}/{each}")
            sizes[each] = path.stat().st_size
    storage.write(_list_of(name), json.dumps(sizes).encode())
    return True


def fetch_tree(storage: Storage, name: str, here: Path) -> bool:
    """Download a folder, whole or not at all; of several processes one downloads and the others wait.

    Args:
        storage: The storage.
        name: Name in the storage.
        here: This node's folder, in which it gets the same name.

    Returns:
        False if the storage does not have it.

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
        target.unlink(missing_ok=True)  # a link whose target is gone
        with new_folder(target) as folder:
            storage.get(json.loads(sizes), name, folder)
    return True


def _list_of(name: str) -> str:
    return f"{name}.files.json"
