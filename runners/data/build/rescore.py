"""Additional scores of a pool: stored beside the existing ones, or used to rank its pairs."""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budgets.names import unknown
from runners.data.build.build import Build
from runners.data.build.build_pool import build_pool
from runners.data.build.in_place import name_in, not_indexed, shards_of
from runners.data.build.known_scores import OF_PAIR
from runners.data.index.merge import look_up
from runners.data.index.parts import Index
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX, count_scored
from runners.data.index.writing import VERSIONS, add_column
from runners.data.pool.describe import fingerprints, write_facts
from runners.data.pool.pool import COMPUTED, FIRST, Pool, Scorer
from runners.host.workers import Report, Workers
from runners.store.copies import SHARDS_AT
from runners.store.files import commit_files

_ADDED = "added-"
_UID_DIGITS = 32
_UIDS_AT_ONCE = 1_000_000
_MOST_NAMED = 3


def set_score(
    pool: Pool, scores: NDArray[np.float32] | Iterable[NDArray[np.float32]], scorer: Scorer
) -> Pool:
    """Rank a pool by a new score; older scores are kept in columns of their own.

    The scores, one per pair in the index's order, higher is better, NaN for none, are float32 (pairs,), or
    come some at a time. Scores computed from an older score of this name stay, but no longer stand for their
    expressions. The shards are not changed: subsets are read by offset, in longer runs after
    `rewrite_shards`.

    Raises:
        ValueError: The number of scores is not that of the pairs, all scores are NaN, or the name is that
            of a fact of each pair, or differs from another score's only in case.
    """
    first = _only_scorer(pool)
    _require_apart(scorer.name, [*pool.scorers, *([first.name] if first else [])])
    stretches = [scores] if isinstance(scores, np.ndarray) else scores
    finite = (np.where(np.isfinite(each), each, np.nan).astype(np.float32) for each in stretches)
    column = SCORE_PREFIX + scorer.name
    index = _with_column(pool.index, column, finite)
    if not count_scored(index, column):
        raise ValueError(f"{scorer.name} has no finite score for any pair of {pool.copy_of or pool.path}")
    scorers, rankings = dict(pool.scorers), dict(pool.rankings)
    if first and first.name != scorer.name:  # else the new score takes its place
        index.named[SCORE_PREFIX + first.name] = "score"
        scorers[first.name] = first
        rankings[first.name] = pool.fingerprint, pool.scored
    if scorer.name in scorers:
        used = re.compile(rf"\b{re.escape(scorer.name)}\b")
        scorers |= {
            name: replace(each, convention=each.convention.replace(COMPUTED, "computed from older scores: "))
            for name, each in scorers.items()
            if each.convention.startswith(COMPUTED) and used.search(each.convention.removeprefix(COMPUTED))
        }
    scorers[scorer.name] = scorer
    for name in [name for name in scorers if name not in rankings or name == scorer.name]:
        column = SCORE_PREFIX + name
        rankings[name] = next(fingerprints(index, [column])), count_scored(index, column)
    return _in_force(replace(pool, index=index, scorers=scorers, rankings=rankings), scorer.name)


def _only_scorer(pool: Pool) -> Scorer | None:
    """Return the scorer of a pool whose only score has no column of its own, else None."""
    if not pool.scored or any(name.startswith(SCORE_PREFIX) for name in pool.index.columns):
        return None
    return pool.origin.scorer or Scorer(name=FIRST)


def _require_apart(name: str, names: Iterable[str]) -> None:
    """Raise ValueError if expressions or DuckDB, which ignores case, could not tell a name from others."""
    if name in OF_PAIR:
        raise ValueError(f"{name} names a fact of each pair in expressions; choose another --name")
    if other := next((each for each in names if each != name and each.lower() == name.lower()), None):
        raise ValueError(f"{name} differs from the pool's {other} only in case; choose another --name")


def use_score(pool: Pool, name: str) -> Pool:
    """Rank a pool by a score that it already has; ValueError if it has none of that name."""
    if name not in pool.scorers:
        raise ValueError(
            unknown("score", name, pool.scorers)
            if pool.scorers
            else f"{pool.copy_of or pool.path} has no named scores"
        )
    return _in_force(pool, name)


def _in_force(pool: Pool, name: str) -> Pool:
    """Rank a pool by one of its scores."""
    own = pool.index
    column = SCORE_PREFIX + name
    named = own.named | {"score": own.named.get(column, column)}
    if named["score"] == "score":  # the first score, which is that column itself
        del named["score"]
    index = Index(own.folder, own.parts, own.stored, added=own.added, named=named)
    fingerprint, scored = pool.rankings[name]
    origin = replace(pool.origin, scorer=pool.scorers[name])
    write_facts(replace(pool, origin=origin, index=index, fingerprint=fingerprint, scored=scored))
    return Pool.open(pool.path)


def _with_column(index: Index, name: str, values: Iterable[NDArray[Any]]) -> Index:
    """Add a column to an index, or replace an added one; the former files stay until the next build."""
    numbers = [int(suffix.removeprefix(_ADDED)) for suffix in index.added.values()]
    suffix = f"{_ADDED}{max(numbers, default=0) + 1}"
    parts = add_column(index, name, suffix, index.cut(values))
    named = {each: of for each, of in index.named.items() if each != name}
    return Index(index.folder, parts, index.stored, added=index.added | {name: suffix}, named=named)


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
        found = f"{wanted.dtype} of shape {wanted.shape}" if isinstance(wanted, np.ndarray) else "an archive"
        raise ValueError(f"{uids} holds {found}, not a list of pairs of u8 as DataComp's subset files")
    _require_apart(name, pool.subsets)
    counts = []

    def inside(folder: Path) -> Iterator[NDArray[np.bool_]]:
        """Yield for each pair whether it is in the subset."""
        for found in look_up(pool.index.files, "uid", [_uid_table(uids, wanted, folder)], "inside", folder):
            counts.append(int(np.count_nonzero(found == 1)))
            yield found == 1

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
            digits = some.view("u8").astype(">u8").tobytes().hex().encode()
            ends = np.arange(len(some) + 1, dtype=np.int32) * _UID_DIGITS
            text = pa.Array.from_buffers(
                pa.string(), len(some), [None, pa.py_buffer(ends), pa.py_buffer(digits)]
            )
            writer.write_table(pa.table([text, np.ones(len(some), np.int8)], schema=schema))
    return target


def require_rewritable(pool: Pool) -> None:
    """Raise ValueError unless a pool's shards were written by this project, and are those of its index."""
    made = pool.origin.provenance
    theirs = not all(shard.startswith("shards/") for shard in pool.shards)  # added later
    if theirs or made.get("in_place") or SHARDS_AT in made or not {"source", "generator"} & made.keys():
        raise ValueError(
            f"shards in {pool.path} were not written by `data build` and are not rewritten; "
            f"build another pool from them with `data build NEW --from {pool.path}`"
        )
    if pool.copy_of:
        raise ValueError(
            f"shards in {pool.copy_of} are not rewritten there; build another pool from them with "
            f"`data build NEW --from {pool.copy_of}`"
        )
    if message := not_indexed(pool):
        raise ValueError(f"shards in {pool.path} are not rewritten: {message}")
    names = [name_in(pool.path, shard) for shard in shards_of(pool.path)]
    if being_written := [name for name in names if name not in pool.shards]:
        raise ValueError(
            f"shards in {pool.path} are not rewritten: {len(being_written):,} of them are not in its index, "
            f"the first is {being_written[0]}; repeat the `data build` that was adding them until it was "
            "stopped, or move them away"
        )


def rewrite_shards(pool: Pool, *, workers: Workers, report: Report) -> Pool:
    """Rewrite a pool's shards in the order of its bins; all new shards replace the old ones at the end.

    Raises:
        ValueError: As ``require_rewritable``; or the shards no longer hold exactly the pool's pairs.
    """
    require_rewritable(pool)
    path, new = pool.path, pool.path.with_name(f".{pool.path.name}.rewritten")
    shutil.rmtree(new, ignore_errors=True)
    # Of a name of its own, not a random one: what a killed process leaves is replaced.
    columns = path.with_name(f".{path.name}.columns.parquet")
    try:
        _write_columns(pool, columns)
        written = build_pool(new, Build(source=path, workers=workers, scores=columns), report)
    finally:
        columns.unlink(missing_ok=True)
    if (written.count, _sum_of_hashes(written)) != (pool.count, _sum_of_hashes(pool)):
        difference = _difference(pool, written)
        shutil.rmtree(new)
        raise ValueError(
            f"shards of {path} stay as they are, because rewriting them {difference}; restore the shards "
            f"from a copy, or build another pool of what they hold with `data build NEW --from {path}`"
        )
    for file in (*pool.left_out_files, *([pool.sources] if pool.sources else ())):
        shutil.copy(path / file, new / file)
    write_facts(
        replace(
            written,
            origin=pool.origin,
            scorers=pool.scorers,
            left_out=pool.left_out,
            left_out_files=pool.left_out_files,
            sources=pool.sources,
            subsets=pool.subsets,
        )
    )
    shutil.rmtree(path / VERSIONS, ignore_errors=True)  # of the shards that are replaced
    commit_files(new, path)
    return Pool.open(path)


def _write_columns(pool: Pool, target: Path) -> None:
    """Write the hash, scores and named subsets of a pool's pairs as a table, some at a time."""
    carried = [
        name
        for name in pool.index.columns
        if name.startswith((SCORE_PREFIX, SUBSET_PREFIX)) or name == "score"
    ]
    schema = pa.Schema.from_pandas(next(pool.index.frames(["hash", *carried])))
    with pq.ParquetWriter(target, schema) as writer:
        for part in pool.index.frames(["hash", *carried]):
            writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


def _sum_of_hashes(pool: Pool) -> int:
    """Return a number that differs between pools of other pairs, whatever their order."""
    return sum(int(chunk.sum(dtype=np.uint64)) for chunk in pool.index.chunks("hash")) % 2**64


def _difference(pool: Pool, written: Pool) -> str:
    """Return what a pool would lose and gain by other shards, in words, with the first pairs and reasons."""
    lost, first = 0, list[str]()
    found = look_up(pool.index.files, "hash", written.index.files, "hash", written.path)
    missing = pool.index.cut(map(np.isnan, found), by_group=True)
    for part, gone in zip(pool.index.frames(["shard", "key"]), missing, strict=True):
        rows = part[gone].head(_MOST_NAMED - len(first))
        first += [f"{key} in {shard}" for shard, key in zip(rows["shard"], rows["key"], strict=True)]
        lost += int(np.count_nonzero(gone))
    why = ", ".join(f"{count:,} {reason}" for reason, count in written.left_out.items())
    named = f"{', '.join(first)}{' …' if lost > len(first) else ''}"
    other = written.count - (pool.count - lost)
    words = [
        f"would lose {lost:,} of {pool.count:,} pairs ({why or 'they have changed'}): {named}"
        if lost
        else "",
        f"would take up {other:,} other pairs" if other else "",
    ]
    return ", and ".join(filter(None, words))
