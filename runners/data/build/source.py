"""Sources of pools, read part by part: tars of samples, or a table of image paths and captions."""

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.in_place import SCORE_FIELD, name_in, shards_at, shards_of
from runners.data.build.table_file import check_columns, count_rows, read_rows
from runners.data.index.writing import write_table
from runners.data.pool.damage import Damage
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
from runners.store.copies import objects_at
from runners.store.location import Location
from runners.store.ranges import downloaded

_ROWS_PER_PART = 2048
_OPTIONS = b"options"


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
    start: int = 0
    stop: int = 0  # one after its last row; 0 for a tar
    url: str = ""  # that the tar lies below; empty if ``file`` is on this machine
    size: int
    stamp: str  # time of its last change in nanoseconds; of a tar below a URL its ETag, hash or time

    def digest(self) -> str:
        """Return a hash of the file's content; empty if the file is not on this machine."""
        if self.url or not self.file.is_file():
            return ""
        with self.file.open("rb") as file:
            return file_digest(file, partial(blake2b, digest_size=16)).hexdigest()

    @property
    def name(self) -> str:
        """Name in messages."""
        if self.url:
            return f"{self.url}/{self.file}"
        return f"rows {self.start:,} to {self.stop:,} of {self.file}" if self.stop else str(self.file)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourcePair:
    """A pair of a source; ``entry.shard``, ``offset`` and ``length`` locate the image's bytes."""

    entry: PairEntry
    image: bytes
    kind: str  # the image's file ending
    facts: Mapping[str, Any]  # other fields of the sample


def parts_of(source: Path) -> list[SourcePart]:
    """Split a tar, folder of tars or table into parts, always the same; ValueError for anything else."""
    if source.is_dir():
        return [_part(shard) for shard in shards_of(source, packed=True)]
    if not source.is_file():
        raise ValueError(f"no such source: {source}")
    if source.suffix.lower() == ".tar":
        return [_part(source)]
    count = count_rows(source)
    if not count:
        raise ValueError(f"table {source} has no rows")
    return [
        _part(source, start, min(start + _ROWS_PER_PART, count)) for start in range(0, count, _ROWS_PER_PART)
    ]


def _part(file: Path, start: int = 0, stop: int = 0) -> SourcePart:
    # A link that leads nowhere is left out by the build.
    facts = file.stat() if file.exists() else file.lstat()
    return SourcePart(file=file, start=start, stop=stop, size=facts.st_size, stamp=str(facts.st_mtime_ns))


def parts_at(url: str) -> list[SourcePart]:
    """Return the tars below a URL; ValueError if it can't be read, or holds none."""
    found = objects_at("pool", url)
    shards = shards_at(found, packed=True)
    if not shards:
        why = "" if found else f": {Location(url).why_empty()}"
        raise ValueError(f"{url} holds no .tar shard{why}")
    return [
        SourcePart(file=Path(shard), url=url, size=found[shard][0], stamp=found[shard][1]) for shard in shards
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
        with downloaded(part.url, str(part.file), part.size) as file:
            yield from _pairs_in(file, str(part.file), columns, inspect)
    else:
        yield from _pairs_in(part.file, os.path.realpath(part.file), columns, inspect)


def _pairs_in(file: Path, name: str, columns: Columns, inspect: Inspect) -> Iterator[SourcePair | Damage]:
    for each in entries_of(file, name, score_field=columns.score, inspect=inspect):
        if isinstance(each, Damage):
            yield each
            continue
        entry, sample = each
        kind = image_kind(sample.members)
        assert kind is not None, "described as a pair"
        facts = facts_of(sample.members)
        yield SourcePair(entry=entry, image=sample.members[kind][1], kind=kind, facts=facts)


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
        found: PairEntry | str
        if isinstance(image, str):
            found = image
        elif kind not in IMAGE_KINDS:
            found = f"no {', '.join(IMAGE_KINDS)} file"
        else:
            key, shard = f"{number:09d}", os.path.realpath(path)
            found = entry_of(key, shard, (0, image), caption, row, score_field=columns.score, inspect=inspect)
        if isinstance(image, str) or isinstance(found, str):
            yield Damage(shard=as_utf8(str(path)), key=f"row {number}", reason=str(found))
        else:
            yield SourcePair(entry=found, image=image, kind=kind, facts=row)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A tar or table as it was read."""

    name: str
    size: int
    stamp: str  # as in `SourcePart`
    digest: str = ""  # of its content; empty for a tar below a URL


def new_parts(
    record: Path, source: Path, parts: Sequence[SourcePart], options: Mapping[str, object]
) -> list[SourcePart]:
    """Return the parts of a source that a pool, whose ``record`` is given, has not read yet.

    Raises:
        ValueError: A file has changed, or the options, which decide which pairs a part has, are others.
    """
    difference = other_option(options_of(record), options)
    if difference:
        raise ValueError(
            f"the pool was built with {difference}; repeat the first command, or build another pool"
        )
    known = {file.name: file for file in _read(record)}
    new, touched = list[SourcePart](), set[str]()
    for part in parts:
        was = known.get(_name(source, part))
        if was is None:
            new.append(part)
        elif (part.size, part.stamp) != (was.size, was.stamp) and was.name not in touched:
            if part.size == was.size and was.digest and part.digest() == was.digest:
                touched.add(was.name)  # its time has changed, for example by a copy, but not its content
                continue
            how = f"{was.size:,} bytes, now {part.size:,}" if part.size != was.size else "other content"
            raise ValueError(
                f"{part.name if part.url else part.file} has changed since the pool read it ({how}). New "
                "pairs must come in further tars: restore this file, or build another pool"
            )
    return new


def options_of(record: Path) -> dict[str, object]:
    """Return the options of the build that a record is of."""
    options: dict[str, object] = json.loads(pq.read_schema(record).metadata[_OPTIONS])
    return options


def other_option(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Return the first option in which a build differs from an earlier one, in words; empty if none does."""
    for name, value in before.items():
        if now[name] != value:
            return f"{name} {_words(value)}, not {_words(now[name])}"
    return ""


def write_record(  # noqa: PLR0913, PLR0917 - what a record has
    folder: Path,
    source: Path,
    parts: Sequence[SourcePart],
    tables: Sequence[Path],
    options: Mapping[str, object],
    before: Path | None,
) -> str:
    """Write a record below a pool's folder, named by its content, and return its name there.

    ``tables`` are those of the parts that were read now (`runners.data.build.scan`); ``before`` is the record
    of the parts that were read before.
    """
    files = {file.name: file for file in (_read(before) if before else ())}
    for part, table in zip(parts, tables, strict=True):
        if part.start == 0:
            kept = pq.read_schema(table).metadata.get(b"digest", b"").decode()
            name, digest = _name(source, part), part.digest() if part.stop else kept
            files[name] = SourceFile(name=name, size=part.size, stamp=part.stamp, digest=digest)
    columns = [asdict(file) for file in files.values()]
    table = pa.Table.from_pylist(columns).replace_schema_metadata({_OPTIONS: json.dumps(options)})
    return write_table(folder, "sources", table)


def _read(record: Path) -> Iterator[SourceFile]:
    return (SourceFile(**row) for row in pq.read_table(record).to_pylist())


def _name(source: Path, part: SourcePart) -> str:
    if part.url:
        return str(part.file)
    return name_in(source, part.file) if source.is_dir() else part.file.name


def _words(value: object) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"
