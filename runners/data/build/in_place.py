"""The shards of a pool, and what lies beside them, in a folder or below a URL."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath, PurePosixPath

from runners.data.pool.pool import Pool
from runners.data.pool.shards import as_utf8
from runners.store.copies import SHARDS_AT
from runners.store.files import is_hidden, walk

_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zstd?|lz4|z|zip)|tgz|tbz2?|txz|tzst|zip)$", re.IGNORECASE)
"""Names of compressed tars."""

_OWN = re.compile(r"\..*|pool\.json|index|versions|vocabulary.*\.txt|left-out.*\.parquet")
"""Names of hidden files and of those that a pool consists of."""

_MOST_SHOWN = 5

SCORE_FIELD = "similarity"
"""Default field of a sample's json that holds its score."""


def not_indexed(pool: Pool) -> str | None:
    """Return a message if the pool's place has tars that its index does not contain, else None."""
    if pool.place.location.local is None:
        names = shards_at(pool.place.location.contents("pool"))
    else:
        names = [as_utf8(shard.relative_to(pool.path).as_posix()) for shard in shards_of(pool.path)]
    # A build that is adding shards of its own has not described them yet.
    being_written = "shards/" if pool.sources else "\0"
    new = [name for name in names if name not in pool.shards and not name.startswith(being_written)]
    if not new:
        return None
    url = pool.origin.provenance.get(SHARDS_AT)
    source = f" --from {url}" if url else ""
    return (
        f"{len(new):,} tars in {pool.place.path('')} are not in its index, the first is {new[0]}; "
        f"`python -m study data build {pool.copy_of or pool.path}{source} --in-place` takes them up; "
        "otherwise move them away"
    )


def shards_of(path: Path, *, packed: bool = False) -> list[Path]:
    """List the tars of a folder's pairs, at least one; evaluation sets and hidden folders do not count.

    With ``packed`` also what takes the place of a tar, and is read as a shard without samples: compressed
    tars, and folders with the name of a tar.
    """
    if not path.is_dir():
        raise ValueError(f"no such pool: {path} is not a folder")
    found = [*_shards(path)]
    shards = dict[str, Path]()
    for shard in sorted(found, key=lambda each: (each.is_symlink(), each)):
        if packed or (_is_tar(shard) and not shard.is_dir()):
            shards.setdefault(os.path.realpath(shard), shard)  # a file and a link to it hold the same pairs
    if all(shard.is_dir() or not _is_tar(shard) for shard in shards.values()):
        other = f"; {min(found).name} is not one: unpack it" if found else ""
        raise ValueError(f"{path} is not a pool: it has neither a pool.json nor any .tar shard{other}")
    return sorted(shards.values())


def shards_at(found: Iterable[str], *, packed: bool = False) -> list[str]:
    """Return the tars below a URL that hold pairs, as `shards_of` does for a folder."""
    paths = map(PurePosixPath, found)
    named = (each for each in paths if _is_tar(each) or (packed and _PACKED.search(each.name)))
    return sorted(str(each) for each in named if _is_training(each.parent / "x"))


def not_pairs(path: Path) -> str:
    """Say which files, by ending, and folders lie beside a folder's shards and are not read; or nothing."""
    files, folders = Counter[str](), list[str]()
    for folder, inside, names in walk(path):
        below = Path(folder).relative_to(path)
        folders += [f"{each}/" for each in inside if not below.parts and each == "evaluation"]
        inside[:] = [each for each in inside if _is_training(below / each) and not _OWN.fullmatch(each)]
        other = (each for each in map(Path, names) if not _is_tar(each) and not _PACKED.search(each.name))
        files.update(each.suffix or each.name for each in other if not _OWN.fullmatch(each.name))
    most = sorted(f"{count:,} {ending}" for ending, count in files.most_common(_MOST_SHOWN))
    more = ["…"] if len(files) > _MOST_SHOWN else []
    found = ", ".join([*most, *more, *folders])
    return f"not read as pairs, which only tars hold, in {path}: {found}" if found else ""


def _shards(path: Path) -> Iterator[Path]:
    """Yield the shards of a folder's pairs, also in linked folders, each folder once."""
    seen = set[str]()
    for folder, folders, files in walk(path):
        here = Path(folder)
        seen.add(os.path.realpath(here))
        inside = {os.path.realpath(here / each): each for each in sorted(folders, reverse=True)}
        folders[:] = sorted(
            each
            for real, each in inside.items()
            if real not in seen and _is_training((here / each).relative_to(path))
        )
        seen |= {os.path.realpath(here / each) for each in folders}
        shards = [each for each in files if _is_tar(Path(each)) or _PACKED.search(each)]
        yield from (here / each for each in shards)
        if _is_tar(here) and not shards and here != path:
            yield here


def _is_tar(path: PurePath) -> bool:
    return path.suffix.lower() == ".tar"


def _is_training(folder: PurePath) -> bool:
    return folder.parts[0] != "evaluation" and not is_hidden(folder.as_posix())
