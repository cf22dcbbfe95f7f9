"""Scores of a pool's pairs from what is known: an expression, metadata, or a field of each sample."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from runners.data.build.expression import Expression
from runners.data.build.scan import run
from runners.data.build.table_file import check_columns, table_columns
from runners.data.index.merge import look_up
from runners.data.index.selection import SCORE_PREFIX, SUBSET_PREFIX
from runners.data.pool.pool import FIRST, Pool
from runners.data.pool.samples import Sample, walk_samples
from runners.data.pool.shards import facts_of, image_kind, score_of
from runners.host.workers import Report, Workers
from runners.store.place import Place
from runners.store.shared_folder import SCORING, SharedFolder

OF_PAIR = ("width", "height", "tokens", "caption")
"""Facts of each pair that an expression can use besides its scores and subsets."""


def expression_scores(pool: Pool, text: str, metadata: Path | None = None) -> Iterator[NDArray[np.float32]]:
    """Yield a score that is computed from what the index has of each pair, float32, some pairs at a time.

    The text is ``VALUE`` or ``VALUE if CONDITION``, expressions in pandas' syntax over the names of the
    pool's scores and subsets, the columns ``width``, ``height``, ``tokens`` and ``caption``, and those of
    metadata (a parquet file or a folder of them), such as ``0.5*clip + 0.5*mine if width > 200 and
    caption.str.len() > 5``. The score is NaN where one of its scores is missing or the condition is not met.

    Raises:
        ValueError: The expression is not valid, names a score that the pool lacks, needs other pairs' values,
            or does not give a number for each pair.
    """
    names = {
        name.removeprefix(SCORE_PREFIX): name for name in pool.index.columns if name.startswith(SCORE_PREFIX)
    }
    if not names and pool.scored:
        names = {pool.origin.scorer.name if pool.origin.scorer else FIRST: "score"}
    subsets = {name: SUBSET_PREFIX + name for name in pool.subsets if name not in names}
    # Apart, since pandas' syntax has no conditional expression, and a condition handles what is missing
    # itself.
    value, condition = (Expression(each) for each in text.partition(" if ")[::2])
    known = {*names, *subsets, *OF_PAIR}
    used = (value.names | condition.names) - known
    brought, truths = ({}, ()) if metadata is None else _brought(pool, used, metadata)
    may_lack = [name for name in (*names, *brought) if name in condition.compared]
    also = ", ".join([*subsets, *OF_PAIR, *brought])
    for part in pool.index.frames([*names.values(), *subsets.values(), *OF_PAIR]):
        frame = pd.DataFrame({name: part[column].astype(np.float64) for name, column in names.items()})
        for name, column in subsets.items():
            frame[name] = part[column].astype(np.bool_)
        frame[list(OF_PAIR)] = part[list(OF_PAIR)]
        for name, stretches in brought.items():
            frame[name] = next(stretches)
        try:
            found = value.values(frame)
            true = {name: frame[name].astype("boolean") for name in truths}
            kept = condition.values(frame.assign(**true)) if condition.text else None
        except ValueError as error:
            raise ValueError(
                f"score '{text}': {error}; scores of the pool: {', '.join(names) or 'none'}; also {also}; "
                "quote texts"
            ) from error
        if not pd.api.types.is_numeric_dtype(found) or pd.api.types.is_bool_dtype(found):
            raise ValueError(f"score '{text}' is not a number for each pair")
        found = found.astype(np.float64)
        if kept is not None:
            if not pd.api.types.is_bool_dtype(kept):
                raise ValueError(f"score '{text}': '{condition.text}' is not true or false for each pair")
            # A comparison with a value that a pair lacks says nothing of the pair, `not` and `!=` included.
            found = found.where(kept.fillna(value=False) & frame[may_lack].notna().all(axis=1))
        yield found.to_numpy(np.float32)


def _brought(
    pool: Pool, names: Collection[str], metadata: Path
) -> tuple[dict[str, Iterator[NDArray[Any]]], tuple[str, ...]]:
    """Return the columns of metadata that an expression uses, in the row groups of the index.

    These are name → float64 or objects (texts), NaN or None where there is none; and the names of those that
    hold true (1) and false (0).
    """
    files, by = _metadata_files(pool, metadata)
    found, truths = {}, []
    for field in pq.read_schema(files[0]):
        if field.name in names:
            is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            if pa.types.is_boolean(field.type):
                truths.append(field.name)
            elif not is_text:
                _require_numbers(files[0], field.name)
            for file in files:
                _require_columns(file, by, field.name)
            values = look_up(pool.index.files, by, files, field.name, pool.path, text=is_text)
            found[field.name] = pool.index.cut(values, by_group=True)
    return found, tuple(truths)


def metadata_scores(pool: Pool, column: str, metadata: Path) -> Iterator[NDArray[np.float32]]:
    """Yield scores from tables of metadata by uid or, without one, by key: float32, some pairs at a time.

    Of several rows with one id the first counts; NaN where there is none.

    Raises:
        ValueError: There is no metadata, or no column of numbers of that name.
    """
    files, by = _metadata_files(pool, metadata)
    for file in files:
        _require_columns(file, by, column)
        _require_numbers(file, column)
    return map(_as_scores, look_up(pool.index.files, by, files, column, pool.path))


def _require_columns(file: Path, by: str, *names: str) -> None:
    """Raise ValueError if ids are numbers, or a column is missing or named like another one in another case.

    DuckDB, which joins the tables, does not tell such columns apart, and finds no number among a pool's ids.
    """
    columns = table_columns(file)
    check_columns(columns, file, by, *names)
    kind = pq.read_schema(file).field(by).type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        raise ValueError(f"{file}: column {by} holds {kind}, but a pool's {by}s are texts")
    for name in (by, *names):
        if other := next((each for each in columns if each != name and each.lower() == name.lower()), None):
            raise ValueError(f"{file}: columns {name} and {other} differ only in case; rename one of them")


def _require_numbers(file: Path, column: str) -> None:
    kind = pq.read_schema(file).field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{file}: column {column} holds {kind}, not numbers")


def _metadata_files(pool: Pool, metadata: Path) -> tuple[list[Path], str]:
    """Return the files of metadata and the column of their ids.

    Keys of the shards that a pool was built from are an error: the pool has keys of its own.
    """
    files = sorted(metadata.glob("*.parquet")) if metadata.is_dir() else [metadata]
    if not files or not metadata.exists():
        raise ValueError(f"no parquet file of metadata at {metadata}")
    if files[0].suffix != ".parquet":
        raise ValueError(f"{files[0]} is not a .parquet file: convert it, as metadata are read from parquet")
    if "uid" in table_columns(files[0]):
        return files, "uid"
    made = pool.origin.provenance
    if "source" in made and not made.get("in_place"):
        raise ValueError(
            f"{files[0]} has no column uid. Its keys may be those of the source, but the shards of "
            f"{pool.copy_of or pool.path} have keys of their own. --with column:NAME without --metadata "
            "reads a field of each sample's json, which its source had; or index the source itself with "
            "`data build SOURCE --in-place`"
        )
    return files, "key"


def _as_scores(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, which is not a score
        return numbers.astype(np.float32)


def column_scores(
    pool: Pool, column: str, workers: Workers, report: Report, shared: SharedFolder
) -> Iterator[NDArray[np.float32]]:
    """Yield scores from each sample's json, float32, some pairs at a time, NaN where there is none.

    Shards that were read before are not read again.
    """
    shards = list(pool.shards)
    facts = json.dumps([column, shards, pool.place.versions(shards)])
    below = f"{SCORING}{blake2b(facts.encode(), digest_size=8).hexdigest()}/"
    files = {shard: f"{below}{number:06d}.npy" for number, shard in enumerate(shards)}
    done = shared.names(below)
    todo = [number for number in range(len(shards)) if f"{number:06d}.npy" not in done]
    task = partial(_keep_scores, replace(pool), column, shared, files)
    run(task, todo, workers, partial(report, "reading"), shards.__getitem__, of=len(shards))
    shared.fetch(files.values())
    shard, known = "", dict[int, float]()
    # The pairs of a shard are adjacent in the index, so each shard is read once.
    # Keys may repeat, offsets do not.
    for part in pool.index.frames(["shard", "offset"]):
        scores = np.full(len(part), np.nan, np.float32)
        for place, (name, offset) in enumerate(zip(part["shard"], part["offset"], strict=True)):
            if name != shard:
                shard, known = name, dict(np.load(shared.path / files[name]).tolist())
            scores[place] = known.get(offset, np.nan)
        yield scores


def _keep_scores(pool: Pool, column: str, shared: SharedFolder, files: Mapping[str, str], number: int) -> int:
    """Write the scores of a shard's readable samples as pairs of the image's offset and the score."""
    shard, file = list(files.items())[number]
    found = _scores_in(pool.place, shard, column)
    scores = np.array([*found.items()], [("offset", np.int64), ("score", np.float64)])
    with shared.here() as here:
        here.write_array(file, scores)
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
