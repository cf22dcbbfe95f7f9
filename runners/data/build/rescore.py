"""Additional scores of a pool: stored beside the existing ones, or used to rank its pairs."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from budgets.names import unknown
from runners.data.build.build_pool import Build, build_pool
from runners.data.build.source import check_columns, table_columns
from runners.data.index.parts import Index
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX, count_scored
from runners.data.index.writing import VERSIONS, add_column
from runners.data.places.copies import SHARDS_AT
from runners.data.places.place import Place
from runners.data.pool.describe import fingerprints, write_facts
from runners.data.pool.pool import FIRST, Pool, Scorer
from runners.data.pool.samples import Sample, walk_samples
from runners.data.pool.shards import facts_of, image_kind, score_of
from runners.host.files import commit_files, new_file
from runners.host.workers import Report, Workers

_ADDED = "added-"
_UID_DIGITS = 32
_OF_PAIR = ("width", "height", "tokens", "caption")


def set_score(pool: Pool, scores: NDArray[np.float32], scorer: Scorer) -> Pool:
    """Rank a pool by a new score; older scores are kept in columns of their own.

    The shards are not changed: subsets are read by offset, in longer runs after ``rewrite_shards``.

    Args:
        pool: The pool.
        scores: One score per pair in the index's order, higher is better, NaN for none, float32 (pairs,).
        scorer: The scorer.

    Raises:
        ValueError: The number of scores is not that of the pairs, or all scores are NaN.
    """
    if scores.shape != (pool.count,):
        raise ValueError(f"{pool.count:,} pairs need one score each, but there are {len(scores):,} scores")
    scores = np.where(np.isfinite(scores), scores, np.nan).astype(np.float32)
    if np.isnan(scores).all():
        raise ValueError(f"{scorer.name} has no finite score for any pair of {pool.path}")
    table = _with_column(pool.table, SCORE_PREFIX + scorer.name, scores)
    scorers, rankings = dict(pool.scorers), dict(pool.rankings)
    if pool.scored and not any(name.startswith(SCORE_PREFIX) for name in pool.columns):
        first = pool.origin.scorer or Scorer(name=FIRST)
        table.named[SCORE_PREFIX + first.name] = "score"
        scorers[first.name] = first
        rankings[first.name] = pool.fingerprint, pool.scored
    scorers[scorer.name] = scorer
    for name in [name for name in scorers if name not in rankings or name == scorer.name]:
        column = SCORE_PREFIX + name
        rankings[name] = next(fingerprints(table, [column])), count_scored(table, column)
    return _in_force(replace(pool, table=table, scorers=scorers, rankings=rankings), scorer.name)


def use_score(pool: Pool, name: str) -> Pool:
    """Rank a pool by a score that it already has.

    Raises:
        ValueError: The pool has no score of that name.
    """
    if name not in pool.scorers:
        raise ValueError(
            unknown("score", name, pool.scorers) if pool.scorers else f"{pool.path} has no named scores"
        )
    return _in_force(pool, name)


def _in_force(pool: Pool, name: str) -> Pool:
    """Rank a pool by one of its scores."""
    own = pool.table
    column = SCORE_PREFIX + name
    named = own.named | {"score": own.named.get(column, column)}
    if named["score"] == "score":
        del named["score"]
    table = Index(own.folder, own.parts, own.stored, added=own.added, named=named)
    fingerprint, scored = pool.rankings[name]
    origin = replace(pool.origin, scorer=pool.scorers[name])
    write_facts(replace(pool, origin=origin, table=table, fingerprint=fingerprint, scored=scored))
    return Pool.open(pool.path)


def _with_column(table: Index, name: str, values: NDArray[np.generic]) -> Index:
    """Add a column to an index, or replace an added one; the former files stay until the next build."""
    numbers = [int(suffix.removeprefix(_ADDED)) for suffix in table.added.values()]
    suffix = f"{_ADDED}{max(numbers, default=0) + 1}"
    stretches = (values[start:stop] for start, stop in pairwise(table.starts.tolist()))
    parts = add_column(table, name, suffix, stretches)
    named = {each: of for each, of in table.named.items() if each != name}
    return Index(table.folder, parts, table.stored, added=table.added | {name: suffix}, named=named)


def expression_scores(pool: Pool, text: str) -> NDArray[np.float32]:
    """Compute a score from what the index has of each pair.

    Args:
        pool: The pool.
        text: ``VALUE`` or ``VALUE if CONDITION``, expressions in pandas' syntax over the names of the pool's
            scores and the columns ``width``, ``height``, ``tokens`` and ``caption``, such as
            ``0.5*clip + 0.5*mine if width > 200 and caption.str.len() > 5``.

    Returns:
        float32 (pairs,), NaN where one of the scores is missing or the condition is not met.

    Raises:
        ValueError: The expression is not valid, names a score that the pool lacks, or is not a number a pair.
    """
    names = {name.removeprefix(SCORE_PREFIX): name for name in pool.columns if name.startswith(SCORE_PREFIX)}
    if not names and pool.scored:
        names = {pool.origin.scorer.name if pool.origin.scorer else FIRST: "score"}
    value, _, condition = text.partition(" if ")
    scores, start = np.full(pool.count, np.nan, np.float32), 0
    for part in pool.parts([*names.values(), *_OF_PAIR]):
        frame = pd.DataFrame({name: part[column].astype(np.float64) for name, column in names.items()})
        frame[list(_OF_PAIR)] = part[list(_OF_PAIR)]
        found = _evaluated(frame, value, text, names)
        if not pd.api.types.is_float_dtype(found):
            raise ValueError(f"score '{text}' is not a number for each pair")
        if condition:
            kept = _evaluated(frame, condition, text, names)
            if not pd.api.types.is_bool_dtype(kept):
                raise ValueError(f"score '{text}': '{condition}' is not true or false for each pair")
            found = found.where(kept)
        scores[start : start + len(part)] = found
        start += len(part)
    return scores


def _evaluated(frame: pd.DataFrame, text: str, whole: str, names: Mapping[str, str]) -> pd.Series:
    try:
        found = frame.eval(text, engine="python")
    except Exception as error:  # pandas' parser raises many types of errors
        known = ", ".join(names) or "none"
        raise ValueError(
            f"score '{whole}': {error}; scores of the pool: {known}; also {', '.join(_OF_PAIR)}"
        ) from error
    return found if isinstance(found, pd.Series) else pd.Series([found] * len(frame), dtype=object)


def set_subset(pool: Pool, name: str, uids: Path) -> Pool:
    """Add a named subset from a file of uids as DataComp publishes them: .npy, two uint64 per pair.

    Raises:
        ValueError: The file has another format, or contains no pair of the pool.
    """
    try:
        wanted = np.load(uids)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read uids from {uids}: {error}") from error
    if wanted.dtype != np.dtype("u8,u8"):
        raise ValueError(f"{uids} has type {wanted.dtype}, not pairs of u8 as DataComp's subset files")
    # Convert to the 16 bytes that the 32 hexadecimal digits of a uid represent.
    known = _as_bytes(np.ascontiguousarray(wanted).view("u8").astype(">u8").tobytes())
    inside = np.zeros(pool.count, bool)
    if "uid" in pool.columns:
        rows, digits = [], []
        start = 0
        for part in pool.parts(["uid"]):
            whole = part["uid"].str.fullmatch(f"[0-9a-fA-F]{{{_UID_DIGITS}}}").to_numpy(bool)
            rows.append(start + np.flatnonzero(whole))
            digits.append(bytes.fromhex("".join(part["uid"][whole])))
            start += len(part)
        inside[np.concatenate(rows)] = pc.is_in(_as_bytes(b"".join(digits)), value_set=known).to_numpy(
            zero_copy_only=False
        )
    if not inside.any():
        raise ValueError(f"none of the {len(wanted):,} uids in {uids} is in {pool.path}")
    table = _with_column(pool.table, SUBSET_PREFIX + name, inside)
    write_facts(replace(pool, table=table, subsets={**pool.subsets, name: int(inside.sum())}))
    return Pool.open(pool.path)


def _as_bytes(content: bytes) -> pa.Array:
    """Return uids as an Arrow array, 16 bytes each."""
    size = _UID_DIGITS // 2
    return pa.Array.from_buffers(pa.binary(size), len(content) // size, [None, pa.py_buffer(content)])


def metadata_scores(pool: Pool, column: str, metadata: Path) -> NDArray[np.float32]:
    """Read existing scores from tables of metadata by uid or, without one, by key; the first row counts.

    Args:
        pool: The pool.
        column: The column.
        metadata: A parquet file or a folder of them.

    Returns:
        float32 (pairs,), NaN where there is none.
    """
    files = sorted(metadata.glob("*.parquet")) if metadata.is_dir() else [metadata]
    if not files or not metadata.exists():
        raise ValueError(f"no parquet file of metadata at {metadata}")
    names = table_columns(files[0])
    by = "uid" if "uid" in names else "key"
    check_columns(names, files[0], by, column)
    codes, uniques = pd.factorize(pd.concat([part[by] for part in pool.parts([by])], ignore_index=True))
    wanted, scores = pd.Index(uniques), np.full(len(uniques), np.nan, np.float32)
    unseen = np.ones(len(uniques), bool)
    for file in files:
        rows = pd.read_parquet(file, columns=[by, column]).drop_duplicates(by)
        place = wanted.get_indexer(pd.Index(rows[by]))
        new = place >= 0
        new[new] = unseen[place[new]]
        scores[place[new]] = _numbers(rows[column], file)[new]
        unseen[place[new]] = False
    if by == "key":  # a key that several pairs have does not tell whose score it is
        scores[np.bincount(codes, minlength=len(uniques)) > 1] = np.nan
    return scores[codes]


def column_scores(pool: Pool, column: str, workers: Workers, report: Report) -> NDArray[np.float32]:
    """Read existing scores from each sample's json; shards that were read before are not read again.

    Args:
        pool: The pool.
        column: The field.
        workers: What reads the shards.
        report: Called after each shard.

    Returns:
        float32 (pairs,), NaN where there is none.
    """
    shards = list(pool.shards)
    facts = json.dumps([column, shards, pool.place.versions(shards)])
    folder = pool.path / ".scoring" / blake2b(facts.encode(), digest_size=8).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    files = {shard: folder / f"{number:06d}.npy" for number, shard in enumerate(shards)}
    todo = [number for number, file in enumerate(files.values()) if not file.exists()]
    task = partial(_keep_scores, replace(pool), column, files)
    for finished, (_, pairs) in enumerate(
        workers.map(task, todo, shards.__getitem__), 1 + len(files) - len(todo)
    ):
        report("reading", finished, len(files), pairs)
    scores, start = np.full(pool.count, np.nan, np.float32), 0
    shard, known = "", dict[int, float]()
    # The pairs of a shard are adjacent in the index, so each shard is read once.
    # Keys may repeat, offsets do not.
    for part in pool.parts(["shard", "offset"]):
        for place, (its, offset) in enumerate(zip(part["shard"], part["offset"], strict=True), start):
            if its != shard:
                shard, known = its, dict(np.load(files[its]).tolist())
            scores[place] = known.get(offset, np.nan)
        start += len(part)
    return scores


def _keep_scores(pool: Pool, column: str, files: Mapping[str, Path], number: int) -> int:
    """Write the scores of a shard's readable samples as pairs of the image's offset and the score."""
    shard, file = list(files.items())[number]
    found = _scores_in(pool.place, shard, column)
    with new_file(file) as partial_file, partial_file.open("wb") as opened:
        np.save(opened, np.array([*found.items()], [("offset", np.int64), ("score", np.float64)]))
    return len(found)


def _scores_in(place: Place, shard: str, column: str) -> dict[int, float]:
    """Return the score of each readable sample of a shard by the offset of its image."""
    try:
        with place.whole(shard) as path:
            return {
                each.members[kind][0]: score_of(facts_of(each.members).get(column))
                for each in walk_samples(path)
                if isinstance(each, Sample) and (kind := image_kind(each.members)) is not None
            }
    except FileNotFoundError:
        return {}


def _numbers(values: pd.Series, file: Path) -> NDArray[np.float32]:
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        raise ValueError(f"{file}: column {values.name} holds {values.dtype}, not numbers")
    numbers: NDArray[np.float32] = values.to_numpy(np.float32, na_value=np.nan)
    return numbers


def rewrite_shards(pool: Pool, *, workers: Workers, report: Report) -> Pool:
    """Rewrite a pool's shards in the order of its bins; all new shards replace the old ones at the end.

    Raises:
        ValueError: The shards were not written by this project, but belong to the user.
    """
    made = pool.origin.provenance
    if made.get("in_place") or SHARDS_AT in made or not {"source", "generator"} & made.keys():
        raise ValueError(
            f"the shards in {pool.path} were not written by `data build` and are not rewritten; "
            f"build another pool from them with `data build NEW --from {pool.path}`"
        )
    path, new = pool.path, pool.path.with_name(f".{pool.path.name}.rewritten")
    carry = [
        name for name in pool.columns if name.startswith((SCORE_PREFIX, SUBSET_PREFIX)) or name == "score"
    ]
    shutil.rmtree(new, ignore_errors=True)
    with TemporaryDirectory(prefix=f".{path.name}.columns-", dir=path.parent) as folder:
        columns = Path(folder) / "columns.parquet"
        with pq.ParquetWriter(columns, pa.Schema.from_pandas(next(pool.parts(["hash", *carry])))) as writer:
            for part in pool.parts(["hash", *carry]):
                writer.write_table(pa.Table.from_pandas(part, writer.schema, preserve_index=False))
        written = build_pool(new, Build(source=path, workers=workers, scores=columns), report)
    for file in pool.left_out_files:
        shutil.copy(path / file, new / file)
    write_facts(
        replace(
            written,
            origin=pool.origin,
            scorers=pool.scorers,
            left_out=pool.left_out,
            left_out_files=pool.left_out_files,
            subsets={name: _count(written, SUBSET_PREFIX + name) for name in pool.subsets},
        )
    )
    shutil.rmtree(path / VERSIONS, ignore_errors=True)  # of the shards that are replaced
    commit_files(new, path)
    return Pool.open(path)


def _count(pool: Pool, column: str) -> int:
    return sum(int(np.count_nonzero(chunk)) for chunk in pool.table.chunks(column))
