"""Record of the source files that a pool has read, kept beside the manifest of its index.

A later build with the same command reads only files that the record lacks. A changed file is an error.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from runners.data.build.in_place import name_in
from runners.data.build.sources.source import SourcePart
from runners.data.index.writing import write_table

_OPTIONS = b"options"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A tar or table as it was read.

    Attributes:
        name: Its name in the source.
        size: Its bytes.
        stamp: Time of its last change in nanoseconds; of a tar below a URL its ETag, hash or time.
        digest: Hash of its content; empty for a tar below a URL.
    """

    name: str
    size: int
    stamp: str
    digest: str = ""


def new_parts(
    record: Path, source: Path, parts: Sequence[SourcePart], options: Mapping[str, object]
) -> list[SourcePart]:
    """Return the parts of a source that a pool has not read yet.

    Args:
        record: The pool's record.
        source: The folder or file of the source.
        parts: Its parts now.
        options: Options of the build that decide which pairs a part has.

    Raises:
        ValueError: A file has changed, or the options are others.
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

    Args:
        folder: The pool's folder.
        source: The folder or file of the source.
        parts: The parts that were read now.
        tables: Their tables (`runners.data.build.scan`).
        options: As in `new_parts`.
        before: The record of the parts that were read before.
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
