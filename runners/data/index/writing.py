"""Writing of the parts of an index, of added columns and of the manifest that lists them; their opening.

index/00000.parquet             the pairs of a group of shards: the columns of ``runners.data.pool.shards``
index/00000.words.parquet       words of their captions, and the number of times that each occurs
index/00000.added-1.parquet     a column that was added to the part
index/manifest-….json           the parts, with their shards; named by its content
index/sources-….parquet         the source files of its shards (``runners.data.build.source``)
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.data.index.parts import ROWS_PER_GROUP, ROWS_PER_PART, SCORE, Index, Part
from runners.data.index.selection import SCORE_PREFIX
from runners.store.copies import INDEX, SHARDS_AT, copied_from
from runners.store.files import new_file

_WORD = re.compile(r"\w+")

VERSIONS = "versions"
"""Folder of the earlier versions of a pool."""


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())


def write_parts(folder: Path, frame: pd.DataFrame) -> list[str]:
    """Write an index in parts, and return their files as in `Part`."""
    files: list[str] = []
    for start in range(0, len(frame), ROWS_PER_PART):
        files.append(f"{INDEX}{len(files):05d}")
        write_part(folder / files[-1], frame.iloc[start : start + ROWS_PER_PART])
    return files


def write_part(path: Path, frame: pd.DataFrame) -> None:
    """Write a part and the words of its captions, both at once or not at all.

    The path has no ``.parquet``; the pairs are at most some million.
    """
    path.parent.mkdir(exist_ok=True)
    words = Counter(word for caption in frame["caption"] for word in split_words(caption))
    columns = {"word": pa.array(words.keys(), pa.string()), "count": pa.array(words.values(), pa.int64())}
    _write(path.with_name(f"{path.name}.words.parquet"), pa.table(columns))
    # The part is written last: its file marks both as done.
    _write(path.with_name(f"{path.name}.parquet"), pa.Table.from_pandas(frame, preserve_index=False))


def add_column(index: Index, name: str, suffix: str, values: Iterator[NDArray[Any]]) -> list[Part]:
    """Write a column beside each part, and return the parts with it.

    Its files end in ``suffix``; the values come part by part: numbers or texts, (pairs,), or arrays, (pairs,
    width), which are stored as the bytes of float16.
    """
    parts = []
    for part, column in zip(index.parts, values, strict=True):
        path = index.folder / f"{part.file}.{suffix}.parquet"
        path.parent.mkdir(exist_ok=True)
        stored = _rows_as_bytes(column) if column.ndim > 1 else column
        if column.dtype == object:  # texts, perhaps none in this part
            stored = pa.array(column, pa.string())
        _write(path, pa.table({name: stored}), part.group)  # row groups as in the part, to be read alike
        parts.append(replace(part, added=sorted({*part.added, name})))
    return parts


def _rows_as_bytes(rows: NDArray[Any]) -> pa.Array:
    # Lists of float16 are read 15 times slower.
    content = pa.py_buffer(np.ascontiguousarray(rows, np.float16))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(2 * rows.shape[1]), len(rows), [None, content])


def read_part(folder: Path, file: str) -> tuple[Part, list[str]]:
    """Return a part that was written, and its columns; the sizes of its shards are 0 (`Part.sized`)."""
    opened = pq.ParquetFile(folder / f"{file}.parquet")
    shards = opened.read(["shard"], use_threads=False)["shard"].unique().to_pylist()
    facts = opened.metadata
    part = Part(
        file=file, rows=facts.num_rows, group=facts.row_group(0).num_rows, shards=dict.fromkeys(shards, 0)
    )
    return part, opened.schema_arrow.names


def index_of_pool(path: Path, facts: Mapping[str, Any]) -> Index:
    """Return the index of a pool; ValueError as `read_manifest`."""
    parts = read_manifest(path / facts["manifest"])
    oldest_first = sorted(facts["added"].items(), key=lambda item: (len(item[1]), item[1]))
    return Index(
        path,
        [replace(part, score=facts["first"]) for part in parts] if "first" in facts else parts,
        facts["columns"],
        added=dict(oldest_first),
        ranked_by=SCORE_PREFIX + facts["ranked_by"] if facts["ranked_by"] else SCORE,
        url=copied_from(path) or facts["provenance"].get(SHARDS_AT, ""),
    )


def write_manifest(folder: Path, parts: Sequence[Part]) -> str:
    """Write the manifest, and return its name below the folder."""
    return _write_named(folder, "manifest", "json", json.dumps([asdict(part) for part in parts]).encode())


def write_table(folder: Path, kind: str, table: pa.Table) -> str:
    """Write a table of some kind, named by its content, and return its name below the folder."""
    file = pa.BufferOutputStream()
    pq.write_table(table, file, write_page_checksum=True)
    return _write_named(folder, kind, "parquet", file.getvalue())


def _write_named(folder: Path, kind: str, ending: str, content: bytes | pa.Buffer) -> str:
    name = f"{INDEX}{kind}-{blake2b(content, digest_size=8).hexdigest()}.{ending}"
    (folder / INDEX).mkdir(parents=True, exist_ok=True)
    with new_file(folder / name) as partial:
        partial.write_bytes(content)
    return name


def read_manifest(path: Path) -> list[Part]:
    """Return the parts that a manifest lists; ValueError if it is missing or damaged."""
    try:
        content, reason = path.read_bytes(), "it does not have the hash in its name"
    except OSError as error:
        content, reason = b"", str(error)
    if blake2b(content, digest_size=8).hexdigest() not in path.name:
        raise ValueError(
            f"{path}, which lists the parts of the pool's index, can't be read ({reason}); restore it, or "
            "index the pool again without its pool.json"
        )
    known = {field.name for field in fields(Part)}  # of earlier versions there may be others
    return [Part(**{name: part[name] for name in known & part.keys()}) for part in json.loads(content)]


def _write(path: Path, table: pa.Table, group: int | None = None) -> None:
    with new_file(path) as partial:
        pq.write_table(table, partial, row_group_size=group or ROWS_PER_GROUP, write_page_checksum=True)
