"""Scores of a pool's pairs from what is known: an expression, metadata, or fields of each sample's json."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budgets.names import unknown
from budgets.quality import OF_PAIR
from runners.data.build.build import make_files
from runners.data.build.expression import Expression
from runners.data.build.table_file import MISSING, check_columns, columns_and_rows, read_any_table
from runners.data.index.merge import look_up
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX
from runners.data.pool.pool import Pool
from runners.data.pool.samples import Sample, walk_samples
from runners.data.pool.shards import facts_of, image_kind, score_of
from runners.host.workers import Report, Workers
from runners.store.files import new_file
from runners.store.shard_reader import ShardReader
from runners.store.shared_folder import SCORING, SharedFolder

_TYPES = {"DOUBLE": pa.float64(), "VARCHAR": pa.string(), "BOOLEAN": pa.bool_()}
"""Types that expressions have, by their names in SQL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Columns of another table that were asked for, in the row groups of the index.

    ``of`` names the table in errors, ``there`` are the names of all of its columns, ``kinds`` has the type of
    each that was asked for and is there.
    """

    of: object
    columns: Mapping[str, Iterator[NDArray[Any]]]
    kinds: Mapping[str, str]
    there: Collection[str]

    def numbers(self, column: str) -> Iterator[NDArray[np.float32]]:
        """Yield a column as scores, NaN where there is none, float32, some pairs at a time.

        Raises:
            ValueError: The column is not there, or holds no number.
        """
        if column not in self.kinds:
            raise ValueError(f"{self.of}: {unknown('column', column, self.there)}")
        some, texts = False, list[object]()
        for values in self.columns[column]:
            numbers = values
            if self.kinds[column] != "DOUBLE":
                numbers = np.array([score_of(value) for value in values], np.float64)
                texts = texts or [value for value in values if value is not None][:1]
            some = some or bool(np.isfinite(numbers).any())
            with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, which is not a score
                yield numbers.astype(np.float32)
        if texts and not some:
            name = column if column.isidentifier() else f'"{column}"'
            raise ValueError(
                f"{self.of}: column {column} holds no numbers but texts, such as '{texts[0]}', which "
                f"the condition of an expression can use: --with '=SCORE WHERE {name} = …'"
            )

    def values(self, column: str) -> Iterator[NDArray[Any]]:
        """Yield a column for strategies: texts, on one line each, None for none; or numbers, as `numbers`."""
        if self.kinds.get(column) != "VARCHAR":
            yield from self.numbers(column)
            return
        for some in self.columns[column]:
            yield np.array([" ".join(text.split()) or None if text else None for text in some], object)


def expression_scores(
    pool: Pool, text: str, facts_of: Callable[[Collection[str]], Facts] | None = None
) -> Iterator[NDArray[np.float32]]:
    """Yield a score that is computed from what is known of each pair, float32, some pairs at a time.

    The text is an `Expression` over the names of the pool's scores and subsets, the columns `OF_PAIR`, and
    those of ``facts_of``, which is given all other names, such as
    ``0.5*clip + 0.5*mine WHERE width > 200 AND length(caption) > 5``. The score is NaN where it has no value
    or the condition is not true, as where one of its values is missing.

    Raises:
        ValueError: The expression is not valid, or names what is not known of the pairs.
    """
    expression = Expression(text)
    known = {name: SUBSET_PREFIX + name for name in pool.subsets}
    known |= {name: SCORE_PREFIX + name for name in pool.scores} | {name: name for name in OF_PAIR}
    used = [name for name in known if name in expression.names]
    others = sorted(expression.names.difference(used))
    nothing = Facts(of="", columns={}, kinds={}, there=())
    facts = facts_of(others) if others and facts_of is not None else nothing
    for name in others:
        if name not in facts.kinds:
            raise ValueError(
                f"score '{text}': {unknown('name', name, {*known, *facts.there})}; texts stand in single "
                "quotation marks, names with special characters in double ones"
            )
    # Without any name, a column is read all the same: the pairs are counted by it.
    for part in pool.index.frames([known[name] for name in used] or ["width"]):
        columns = {name: pa.array(_wide(part[known[name]]), from_pandas=True) for name in used}
        for name in others:
            columns[name] = pa.array(next(facts.columns[name]), _TYPES[facts.kinds[name]], from_pandas=True)
        pairs = pa.table(columns or {"width": pa.array(part["width"])})
        yield expression.values(pairs).astype(np.float32)


def _wide(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return numbers with 64 bits, so that sums and products of them do not overflow."""
    return column.astype({"f": np.float64, "i": np.int64, "u": np.int64}.get(column.dtype.kind, column.dtype))


def metadata_facts(pool: Pool, metadata: Path, names: Collection[str]) -> Facts:
    """Return columns of tables of metadata by uid or, without one, by key.

    The tables are one of any kind that `read_any_table` reads, or all parquet files of a folder. Of several
    rows with one id the first counts.

    Raises:
        ValueError: There is no metadata, a pool's pairs cannot be found in them, or a column holds something
            else than numbers, texts, or true and false.
    """
    files, by = _metadata_files(pool, metadata)
    values, kinds = {}, {}
    for field in pq.read_schema(files[0]):
        if field.name not in names:
            continue
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        if not (is_text or is_number or pa.types.is_boolean(field.type)):
            raise ValueError(f"{files[0]}: column {field.name} holds {field.type}, not numbers or texts")
        kind = "VARCHAR" if is_text else "DOUBLE" if is_number else "BOOLEAN"
        for file in files:
            _require_columns(file, by, field.name)
        column = look_up(pool.index.files, by, files, field.name, pool.path, kind=kind)
        kinds[field.name], values[field.name] = kind, pool.index.cut(column, by_group=True)
    return Facts(of=metadata, columns=values, kinds=kinds, there=columns_and_rows(files[0])[0])


def _require_columns(file: Path, by: str, *names: str) -> None:
    """Raise ValueError if ids are numbers, or a column is missing or named like another one in another case.

    DuckDB, which joins the tables, does not tell such columns apart, and finds no number among a pool's ids.
    """
    columns = columns_and_rows(file)[0]
    check_columns(columns, file, by, *names)
    kind = pq.read_schema(file).field(by).type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        raise ValueError(f"{file}: column {by} holds {kind}, but a pool's {by}s are texts")
    for name in (by, *names):
        if other := next((col for col in columns if col != name and col.lower() == name.lower()), None):
            raise ValueError(f"{file}: columns {name} and {other} differ only in case; rename one of them")


def _metadata_files(pool: Pool, metadata: Path) -> tuple[list[Path], str]:
    """Return the files of metadata and the column of their ids.

    Keys of the shards that a pool was built from are an error: the pool has keys of its own.
    """
    files = sorted(metadata.glob("*.parquet")) if metadata.is_dir() else [metadata]
    if not files or not metadata.exists():
        raise ValueError(f"no parquet file of metadata at {metadata}")
    if files[0].suffix != ".parquet":
        table = pool.path / SCORING / f"{metadata.name}.parquet"
        table.parent.mkdir(exist_ok=True)
        read_any_table(metadata, ("uid", "key")).to_parquet(table)
        files = [table]
    if "uid" in columns_and_rows(files[0])[0]:
        return files, "uid"
    made = pool.provenance
    if "source" in made and not made.get("in_place"):
        raise ValueError(
            f"{files[0]} has no column uid. Its keys may be those of the source, but the shards of "
            f"{pool.copy_of or pool.path} have keys of their own. --with column:NAME without --metadata "
            "reads a field of each sample's json, which its source had; or index the source itself with "
            "`data build SOURCE --in-place`"
        )
    return files, "key"


def json_facts(
    pool: Pool, workers: Workers, report: Report, shared: SharedFolder, names: Collection[str]
) -> Facts:
    """Return fields of each sample's json; shards that were read before are not read again.

    A field of which all values are numbers, also those that are written as texts, holds numbers; of mixed
    ones it holds texts.
    """
    shards, names = list(pool.shards), sorted(names)
    facts = json.dumps([names, shards, pool.place.versions(shards)])
    below = f"{SCORING}{blake2b(facts.encode(), digest_size=8).hexdigest()}/"
    files = {shard: f"{below}{number:06d}.parquet" for number, shard in enumerate(shards)}
    task, tables = partial(_keep_fields, replace(pool), names, shared, files), dict(enumerate(files.values()))
    make_files(task, tables, shared, workers, partial(report, "reading"), shards.__getitem__)
    there, kinds = set[str](), dict[str, str]()
    for file in files.values():
        summary = json.loads(pq.read_schema(shared.path / file).metadata[_FOUND])
        there.update(summary["there"])
        for name, kind in summary["kinds"].items():
            kinds[name] = kind if kinds.get(name, kind) == kind else "VARCHAR"
    values = {name: _in_groups(pool, name, kinds[name], shared, files) for name in kinds}
    of = f"the pairs' json in {pool.copy_of or pool.path}"
    return Facts(of=of, columns=values, kinds=kinds, there=there)


_FOUND = b"found"
_READ: Mapping[str, Callable[[str], object]] = {
    "DOUBLE": score_of, "BOOLEAN": {"true": True, "false": False}.get, "VARCHAR": str,
}  # fmt: skip


def _in_groups(
    pool: Pool, name: str, kind: str, shared: SharedFolder, files: Mapping[str, str]
) -> Iterator[NDArray[Any]]:
    """Yield a field of the pairs in the row groups of the index."""

    # The pairs of a shard are adjacent in the index, so each shard is read once.
    @lru_cache(maxsize=1)
    def texts(shard: str) -> "pd.Series[Any]":
        table = pd.read_parquet(shared.path / files[shard], columns=["offset", name])
        return table.set_index("offset")[name].astype(object)

    for part in pool.index.frames(["shard", "offset"]):
        # Keys may repeat, offsets do not.
        series = [
            texts(str(shard)).reindex(rows) for shard, rows in part.groupby("shard", sort=False)["offset"]
        ]
        read = _READ[kind]
        column = [None if pd.isna(text) else read(text) for text in pd.concat(series)]
        yield np.array(column, np.float64 if kind == "DOUBLE" else object)


def _keep_fields(
    pool: Pool, names: Sequence[str], shared: SharedFolder, files: Mapping[str, str], number: int
) -> int:
    """Write the fields of a shard's readable samples, as texts by the offset of the image."""
    shard, file = list(files.items())[number]
    rows = _fields_in(pool.place, shard, pool.shards[shard])
    there, kinds = sorted({name for _, facts in rows for name in facts}), dict[str, str]()
    columns = {"offset": pa.array([offset for offset, _ in rows], pa.int64())}
    for name in names:
        cells = [facts.get(name) for _, facts in rows]
        texts = [
            cell if isinstance(cell, str | None) else json.dumps(cell, ensure_ascii=False) for cell in cells
        ]
        columns[name] = pa.array(texts, pa.string())
        given = [cell for cell in cells if cell is not None and cell != ""]
        if given and all(isinstance(cell, bool) for cell in given):
            kinds[name] = "BOOLEAN"
        elif name in there:
            is_text = any(np.isnan(score_of(cell)) and str(cell) not in MISSING for cell in given)
            kinds[name] = "VARCHAR" if is_text else "DOUBLE"
    table = pa.table(columns, metadata={_FOUND: json.dumps({"there": there, "kinds": kinds})})
    with shared.here() as local:
        with new_file(local.file(file)) as target:
            pq.write_table(table, target)
        local.keep(file)
    return len(rows)


def _fields_in(place: ShardReader, shard: str, size: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the offset of the image, and the json, of each readable sample of a shard."""
    try:
        with place.location.file(shard, size) as path:
            return [
                (sample.members[kind][0], facts_of(sample.members))
                for sample in walk_samples(path)
                if isinstance(sample, Sample) and (kind := image_kind(sample.members)) is not None
            ]
    except FileNotFoundError:
        return []
