"""Sources of pools: the shards of a folder or below a URL, and what lies beside them, or a table.

They are read part by part: tars of samples, or rows of a table of image paths and captions.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast

from runners.data.build.table_file import check_columns, columns_and_rows, read_rows
from runners.data.pool.damage import Damage
from runners.data.pool.pool import Pool
from runners.data.pool.samples import IMAGE_KINDS, LARGEST_MEMBER
from runners.data.pool.shards import (
    Inspect,
    PairEntry,
    as_utf8,
    entries_of,
    entry_of,
    facts_of,
    image_kind,
)
from runners.store.copies import SHARDS_AT
from runners.store.files import is_hidden, walk
from runners.store.location import Location
from runners.store.shard_reader import size_of

_ROWS_PER_PART = 2048

_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zstd?|lz4|z|zip)|tgz|tbz2?|txz|tzst|zip)$", re.IGNORECASE)
"""Names of compressed tars."""

_OWN = re.compile(r"\..*|pool\.json|index|versions|vocabulary.*\.txt|left-out.*\.parquet")
"""Names of hidden files and of those that a pool consists of."""

_MOST_SHOWN = 5

SCORE_FIELD = "similarity"
"""Default field of a sample's json that holds its score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Names of the columns of a table; of the score also the name of the field of a sample's json."""

    image: str = "image"  # a path, absolute or relative to the table's folder
    caption: str = "caption"
    score: str = SCORE_FIELD


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePart:
    """A piece of a source that is read by one process: a tar, or some rows of a table."""

    file: Path
    shard: str  # name of the file in its source; not UTF-8 where the file's is not
    start: int = 0
    stop: int = 0  # one after its last row; 0 for a tar
    url: str = ""  # that the tar lies below; empty if ``file`` is on this machine
    size: int  # -1 if it is no file
    stamp: str  # time of its last change in nanoseconds; of a tar below a URL its ETag, hash or time

    @property
    def name(self) -> str:
        """Name in messages."""
        if self.url:
            return str(Location(self.url) / self.file)
        return f"rows {self.start:,} to {self.stop:,} of {self.file}" if self.stop else str(self.file)


SourcePair = tuple[PairEntry, bytes, str, Mapping[str, Any]]
"""A pair's entry, whose shard, offset and length locate the image; the image, its ending, other fields."""


def parts_of(source: Path) -> list[SourcePart]:
    """Split a tar, folder of tars or table into parts, always the same; ValueError for anything else."""
    if source.is_dir():
        shards = shards_of(source, packed=True)
        return [_part(shard, shard.relative_to(source).as_posix()) for shard in shards]
    if not source.is_file():
        raise ValueError(f"no such source: {source}")
    if shards_at([source.name], packed=True):
        return [_part(source, source.name)]
    count = columns_and_rows(source)[1]
    if not count:
        raise ValueError(f"table {source} has no rows")
    starts = range(0, count, _ROWS_PER_PART)
    return [_part(source, source.name, start, min(start + _ROWS_PER_PART, count)) for start in starts]


def _part(file: Path, shard: str, start: int = 0, stop: int = 0) -> SourcePart:
    # A link that leads nowhere is left out by the build.
    stamp = (file.stat() if file.exists() else file.lstat()).st_mtime_ns
    return SourcePart(file=file, shard=shard, start=start, stop=stop, size=size_of(file), stamp=str(stamp))


def parts_at(url: str) -> list[SourcePart]:
    """Return the tars below a URL; ValueError if it can't be read, or holds none."""
    there = Location(url)
    listing = there.contents("pool", some=True)
    shards = shards_at(listing, packed=True)
    if not shards:
        raise ValueError(f"{there} holds no .tar shard")
    return [
        SourcePart(file=Path(shard), shard=shard, url=url, size=listing[shard][0], stamp=listing[shard][1])
        for shard in shards
    ]


def folders_of(source: Path, columns: Columns) -> tuple[Path, ...]:
    """Return the folders that a process must see to read a source, with links followed."""
    parts = parts_of(source)
    if parts[0].stop == 0:
        return tuple(sorted({Path(os.path.realpath(part.file)).parent for part in parts}))
    first = read_rows(source, 0, 1)
    check_columns(first.columns, source, columns.image)
    return source.parent.absolute(), (source.parent / str(first.iloc[0][columns.image])).parent.absolute()


def pairs_of(part: SourcePart, columns: Columns, inspect: Inspect) -> Iterator[SourcePair | Damage]:
    """Read a part: yield each pair, or the damage of a sample that is not a pair; images are decoded once.

    A truncated tar ends with its damage. ``inspect`` is called with each opened image, to decode it, just
    before its pair is yielded.
    """
    if part.stop:
        yield from _table_pairs(part, columns, inspect)
    elif part.url:
        with Location(part.url).file(str(part.file), part.size) as file:
            yield from _pairs_in(file, part.shard, columns, inspect)
    else:
        yield from _pairs_in(part.file, part.shard, columns, inspect)


def _pairs_in(file: Path, name: str, columns: Columns, inspect: Inspect) -> Iterator[SourcePair | Damage]:
    for outcome in entries_of(file, name, score_field=columns.score, inspect=inspect):
        if isinstance(outcome, Damage):
            yield outcome
            continue
        entry, sample = outcome
        kind = image_kind(sample.members)
        assert kind is not None, "described as a pair"
        yield entry, sample.members[kind][1], kind, facts_of(sample.members)


def _table_pairs(part: SourcePart, columns: Columns, inspect: Inspect) -> Iterator[SourcePair | Damage]:
    table = read_rows(part.file, part.start, part.stop, (columns.image, columns.caption, "uid"))
    named = [columns.score] if columns.score != SCORE_FIELD else []  # by default, a table may have no score
    check_columns(table.columns, part.file, columns.image, columns.caption, *named)
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    for number, row in enumerate(cast("list[dict[str, Any]]", rows), part.start):
        name, caption = row[columns.image], row[columns.caption]
        path = part.file.parent / str(name)
        kind = path.suffix[1:].lower()
        image = _image_file(path) if name else "no image"
        entry: PairEntry | str
        if isinstance(image, str):
            entry = image
        elif kind not in IMAGE_KINDS:
            entry = f"no {', '.join(IMAGE_KINDS)} file"
        else:
            key, shard = f"{number:09d}", os.path.realpath(path)
            entry = entry_of(key, shard, (0, image), caption, row, score_field=columns.score, inspect=inspect)
        if isinstance(image, str) or isinstance(entry, str):
            yield Damage(shard=as_utf8(str(path)), key=f"row {number}", reason=str(entry))
        else:
            yield entry, image, kind, row


def _image_file(path: Path) -> bytes | str:
    """Return an image file's bytes, or the reason why it cannot be read."""
    try:
        if as_utf8(os.path.realpath(path)) != os.path.realpath(path):
            return "name is not UTF-8"
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for a writer
            return "not a regular file"
        return path.read_bytes() if facts.st_size <= LARGEST_MEMBER else "larger than 1 GiB"
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return "no such image file"


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
    url = pool.provenance.get(SHARDS_AT)
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
    candidates = [*_shards(path)]
    shards = dict[str, Path]()
    for shard in sorted(candidates, key=lambda candidate: (candidate.is_symlink(), candidate)):
        if packed or (_is_tar(shard) and not shard.is_dir()):
            shards.setdefault(os.path.realpath(shard), shard)  # a file and a link to it hold the same pairs
    if all(shard.is_dir() or not _is_tar(shard) for shard in shards.values()):
        other = f"; {min(candidates).name} is not one: unpack it" if candidates else ""
        raise ValueError(f"{path} is not a pool: it has neither a pool.json nor any .tar shard{other}")
    return sorted(shards.values())


def shards_at(names: Iterable[str], *, packed: bool = False) -> list[str]:
    """Return the tars below a URL that hold pairs, as `shards_of` does for a folder."""
    paths = map(PurePosixPath, names)
    named = (path for path in paths if _is_tar(path) or (packed and _PACKED.search(path.name)))
    return sorted(str(path) for path in named if _is_training(path.parent / "x"))


def not_pairs(path: Path) -> str:
    """Say which files, by ending, and folders lie beside a folder's shards and are not read; or nothing."""
    files, folders = Counter[str](), list[str]()
    for folder, inside, names in walk(path):
        below = Path(folder).relative_to(path)
        folders += [f"{child}/" for child in inside if not below.parts and child == "evaluation"]
        inside[:] = [child for child in inside if _is_training(below / child) and not _OWN.fullmatch(child)]
        other = (file for file in map(Path, names) if not _is_tar(file) and not _PACKED.search(file.name))
        files.update(file.suffix or file.name for file in other if not _OWN.fullmatch(file.name))
    most = sorted(f"{count:,} {ending}" for ending, count in files.most_common(_MOST_SHOWN))
    more = ["…"] if len(files) > _MOST_SHOWN else []
    listing = ", ".join([*most, *more, *folders])
    return f"not read as pairs, which only tars hold, in {path}: {listing}" if listing else ""


def _shards(path: Path) -> Iterator[Path]:
    """Yield the shards of a folder's pairs, also in linked folders, each folder once."""
    seen = set[str]()
    for folder, folders, files in walk(path):
        current = Path(folder)
        seen.add(os.path.realpath(current))
        inside = {os.path.realpath(current / child): child for child in sorted(folders, reverse=True)}
        folders[:] = sorted(
            child
            for real, child in inside.items()
            if real not in seen and _is_training((current / child).relative_to(path))
        )
        seen |= {os.path.realpath(current / child) for child in folders}
        shards = [child for child in files if _is_tar(Path(child)) or _PACKED.search(child)]
        yield from (current / child for child in shards)
        if _is_tar(current) and not shards and current != path:
            yield current


def _is_tar(path: PurePath) -> bool:
    return path.suffix.lower() == ".tar"


def _is_training(folder: PurePath) -> bool:
    return folder.parts[0] != "evaluation" and not is_hidden(folder.as_posix())
