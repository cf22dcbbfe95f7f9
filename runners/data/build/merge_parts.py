"""Second step of a build: the tables of the scan become parts of an index, a group of tables each.

Duplicates, which DuckDB finds among all pairs, and images of evaluation sets are left out.
"""

import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from runners.data.build.scan import OF_SCAN, damage_of, run
from runners.data.evaluation.look import ALIKE, SAME, Known
from runners.data.index.merge import find_duplicates
from runners.data.index.parts import ROWS_PER_PART
from runners.data.index.writing import write_part
from runners.host.files import new_file
from runners.host.workers import Report, Workers

WORKING = ["kind", "facts"]
"""Columns of the scan that an index does not have."""

_REASONS = ("", "duplicate", ALIKE, SAME)


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """What becomes of the scan's tables.

    Attributes:
        work: Folder for working files.
        parts: Folder of the parts.
        names: Shard's name in each table of the scan, and in the index; none to keep names, and `WORKING`.
        first: Number of the first part.
        known: Images of evaluation sets to leave out.
        before: Tables with the ``hash`` of pairs that the pool already has.
    """

    work: Path
    parts: Path
    names: Sequence[tuple[str, str]] = ()
    first: int = 0
    known: Known | None = None
    before: Sequence[Path] = ()


def merge_parts(files: Sequence[Path], how: Merge, workers: Workers, report: Report) -> list[Path]:
    """Write the parts, and return those that have pairs, without ``.parquet``.

    Args:
        files: The scan's tables, in the order of the source.
        how: Where to, and without what.
        workers: What merges the groups.
        report: Called after each part.
    """
    how.work.mkdir(exist_ok=True)
    find_duplicates(files, how.before, how.work / "duplicates.parquet")
    with new_file(how.work / "known") as file:
        file.write_bytes(pickle.dumps(how.known))
    groups = list(_groups(files))
    for number, mine in enumerate(groups):
        # A task's input is in a file, so that starting one takes the same time for any number of shards.
        told = {
            "first": mine.start,
            "files": [str(file) for file in files[mine.start : mine.stop]],
            "names": dict(how.names[mine.start : mine.stop]),
            "part": str(how.parts / f"{how.first + number:05d}"),
        }
        (how.work / f"{number:05d}.json").write_text(json.dumps(told), encoding="utf-8")
    run(
        partial(_merge_group, how.work),
        range(len(groups)),
        workers,
        partial(report, "merging"),
        "part {} of the index".format,
    )
    found = [how.parts / f"{how.first + number:05d}" for number in range(len(groups))]
    return [part for part in found if part.with_name(f"{part.name}.parquet").exists()]


def left_out_of(work: Path) -> Iterator[pd.DataFrame]:
    """Yield what `merge_parts` left out, and what the scan found damaged, in the order of the source."""
    for file in sorted(work.glob("*.left-out.parquet")):
        yield pd.read_parquet(file)


def _groups(files: Sequence[Path]) -> Iterator[range]:
    """Yield the tables that become one part."""
    start, rows = 0, 0
    for number, file in enumerate(files):
        count = pq.read_metadata(file).num_rows
        if rows and rows + count > ROWS_PER_PART:
            yield range(start, number)
            start, rows = number, 0
        rows += count
    yield range(start, len(files))


def _merge_group(work: Path, number: int) -> int:
    told = json.loads((work / f"{number:05d}.json").read_text(encoding="utf-8"))
    files, first, names = [Path(file) for file in told["files"]], told["first"], told["names"]
    mine = [("part", ">=", first), ("part", "<", first + len(files))]
    repeated = pq.read_table(work / "duplicates.parquet", filters=mine).to_pandas()
    known = _known(work / "known", (work / "known").stat().st_mtime_ns)
    kept, left_out = [], []
    for place, file in enumerate(files, first):
        found = pd.read_parquet(file)
        out = np.zeros(len(found), np.int8)  # position in the reasons
        out[repeated["row"][repeated["part"] == place]] = 1
        if known is not None:
            alike = known.reasons(
                found["image_hash"].to_numpy(), found["pixels"].to_numpy(), found["thumbnail"]
            )
            for reason in (2, 3):
                out[alike == _REASONS[reason]] = reason
        told_of = found[["shard", "key"]].assign(reason=np.array(_REASONS, object)[out])
        left_out += [damage_of(file), told_of[out > 0]]
        kept.append(found[out == 0])
    rows = pd.concat(kept, ignore_index=True).drop(columns=OF_SCAN)
    without = pd.concat(left_out, ignore_index=True).astype("str")
    if names:
        rows = rows.assign(shard=rows["shard"].map(names).astype("str")).drop(columns=WORKING)
        without = without.assign(shard=without["shard"].map(names).astype("str"))
    with new_file(work / f"{number:05d}.left-out.parquet") as target:
        without.to_parquet(target, index=False)
    if len(rows):
        write_part(Path(told["part"]), rows)
    return len(rows)


# A process works on many groups with the same sets.
@lru_cache(maxsize=1)
def _known(path: Path, _changed_ns: int) -> Known | None:
    found: Known | None = pickle.loads(path.read_bytes())  # noqa: S301 - written by this build
    return found
