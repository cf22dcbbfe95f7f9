"""Additional scores, subsets and columns of a pool: stored beside the existing ones."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budgets.names import unknown
from budgets.quality import check_score_name
from runners.data.build.build import NOT_INDEXED
from runners.data.index.merge import look_up
from runners.data.index.parts import Index
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX
from runners.data.index.writing import add_column
from runners.data.pool.describe import score_of_column, write_facts
from runners.data.pool.pool import COMPUTED, AddedColumn, Pool, Scorer

_ADDED = "added-"
_UID_DIGITS = 32
_UIDS_AT_ONCE = 1_000_000


def set_score(
    pool: Pool, scores: NDArray[np.float32] | Iterable[NDArray[np.float32]], scorer: Scorer
) -> Pool:
    """Add a score to a pool, or replace that of its name, and rank the pool by it.

    The scores, one per pair in the index's order, higher is better, NaN for none, are float32 (pairs,), or
    come some at a time. Scores computed from an older score of this name stay, but no longer stand for their
    expressions. The shards are not changed: subsets are read by offset.

    Raises:
        ValueError: The number of scores is not that of the pairs, all scores are NaN, or the name can't be
            that of a score, or differs from another score's only in case.
    """
    require_score_name(pool, scorer.name)
    stretches = [scores] if isinstance(scores, np.ndarray) else scores
    finite = (np.where(np.isfinite(stretch), stretch, np.nan).astype(np.float32) for stretch in stretches)
    index = _with_column(pool.index, SCORE_PREFIX + scorer.name, finite)
    score = score_of_column(index, scorer)
    if not score.pairs:
        raise ValueError(f"{scorer.name} has no finite score for any pair of {pool.copy_of or pool.path}")
    known = dict(pool.scores)
    if scorer.name in known:
        used = re.compile(rf"\b{re.escape(scorer.name)}\b")
        for name, other in known.items():
            how = other.scorer.convention
            if how.startswith(COMPUTED) and used.search(how.removeprefix(COMPUTED)):
                older = replace(
                    other.scorer, convention=how.replace(COMPUTED, "computed from older scores: ")
                )
                known[name] = replace(other, scorer=older)
    known[scorer.name] = score
    return use_score(replace(pool, index=index, scores=known), scorer.name)


def set_column(
    pool: Pool, columns: Mapping[str, Iterable[NDArray[Any]]], scorer: Scorer | None = None
) -> Pool:
    """Add columns for strategies to a pool's index, or replace such columns, one after the other.

    Their values come some pairs at a time, in the index's order: numbers or texts, (pairs,), or arrays,
    (pairs, width), which become float16. ``scorer`` is the model that computed them.

    Raises:
        ValueError: The number of values is not that of the pairs, or a name is that of another column,
            perhaps of one that tables of pairs have while shards are written.
    """
    index, known = pool.index, dict(pool.columns)
    for name, stretches in columns.items():
        others = [*NOT_INDEXED, *(column for column in index.columns if column not in known)]
        if taken := next((column for column in others if column.lower() == name.lower()), None):
            raise ValueError(
                f"{pool.copy_of or pool.path} has a column {taken}; choose another name than {name}"
            )
        digest, widths = blake2b(digest_size=8), set[int]()

        def hashed(
            stretches: Iterable[NDArray[Any]] = stretches, digest: blake2b = digest, widths: set[int] = widths
        ) -> Iterator[NDArray[Any]]:
            for chunk in stretches:
                digest.update(repr(chunk.tolist()).encode() if chunk.dtype == object else chunk.tobytes())
                widths.add(0 if chunk.dtype == object else chunk[:1].size)
                yield chunk

        index = _with_column(index, name, hashed())
        known[name] = AddedColumn(content=digest.hexdigest(), width=max(widths), scorer=scorer)
    write_facts(replace(pool, index=index, columns=known))
    return Pool.open(pool.path)


def require_score_name(pool: Pool, name: str) -> None:
    """Raise ValueError for a name that a new score of a pool can't have."""
    _require_apart(check_score_name(name, "--name"), pool.scores)


def _require_apart(name: str, names: Iterable[str]) -> None:
    """Raise ValueError if DuckDB, which ignores case, could not tell a name from others."""
    if other := next((known for known in names if known != name and known.lower() == name.lower()), None):
        raise ValueError(f"{name} differs from the pool's {other} only in case; choose another --name")


def use_score(pool: Pool, name: str) -> Pool:
    """Rank a pool by a score that it already has; ValueError if it has none of that name."""
    if name not in pool.scores:
        raise ValueError(f"{pool.copy_of or pool.path}: {unknown('score', name, pool.scores)}")
    write_facts(replace(pool, ranked_by=name))
    return Pool.open(pool.path)


def _with_column(index: Index, name: str, values: Iterable[NDArray[Any]]) -> Index:
    """Add a column to an index, or replace an added one; the former files stay until the next build."""
    numbers = [int(suffix.removeprefix(_ADDED)) for suffix in index.added.values()]
    suffix = f"{_ADDED}{max(numbers, default=0) + 1}"
    parts = add_column(index, name, suffix, index.cut(values))
    return replace(index, parts=parts, added=index.added | {name: suffix})


def set_subset(pool: Pool, name: str, uids: Path) -> Pool:
    """Add a named subset from a file of uids as DataComp publishes them: .npy, two uint64 per pair.

    Raises:
        ValueError: The file has another format, or contains no pair of the pool.
    """
    try:
        wanted = np.load(uids, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read uids from {uids}: {error}") from error
    if not isinstance(wanted, np.memmap) or wanted.dtype != np.dtype("u8,u8") or wanted.ndim != 1:
        kind = f"{wanted.dtype} of shape {wanted.shape}" if isinstance(wanted, np.ndarray) else "an archive"
        raise ValueError(f"{uids} holds {kind}, not a list of pairs of u8 as DataComp's subset files")
    _require_apart(name, pool.subsets)
    counts = []

    def inside(folder: Path) -> Iterator[NDArray[np.bool_]]:
        """Yield for each pair whether it is in the subset."""
        for marks in look_up(pool.index.files, "uid", [_uid_table(uids, wanted, folder)], "inside", folder):
            counts.append(int(np.count_nonzero(marks == 1)))
            yield marks == 1

    if "uid" not in pool.index.columns:
        raise ValueError(
            f"the pairs of {pool.copy_of or pool.path} have no uids, by which {uids} selects them"
        )
    with TemporaryDirectory(prefix=".uids-", dir=pool.path) as folder:
        index = _with_column(pool.index, SUBSET_PREFIX + name, inside(Path(folder)))
    if not sum(counts):
        raise ValueError(f"none of the {len(wanted):,} uids in {uids} is in {pool.copy_of or pool.path}")
    write_facts(replace(pool, index=index, subsets={**pool.subsets, name: sum(counts)}))
    return Pool.open(pool.path)


def _uid_table(file: Path, uids: np.memmap, folder: Path) -> Path:
    """Write the uids of a file as a table of their 32 hexadecimal digits, some at a time."""
    target = folder / "uids.parquet"
    schema = pa.schema({"uid": pa.string(), "inside": pa.int8()})
    with pq.ParquetWriter(target, schema) as writer:
        for start in range(0, len(uids), _UIDS_AT_ONCE):
            # Of a file that is mapped, all that was read would count as memory of this process.
            count = min(_UIDS_AT_ONCE, len(uids) - start)
            some = np.fromfile(file, uids.dtype, count, offset=uids.offset + start * uids.itemsize)
            digits = pa.py_buffer(some.view("u8").astype(">u8").tobytes().hex().encode())
            text = pa.Array.from_buffers(pa.binary(_UID_DIGITS), count, [None, digits]).cast(pa.string())
            writer.write_table(pa.table([text, np.ones(count, np.int8)], schema=schema))
    return target
