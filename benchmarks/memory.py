"""Peak memory of the commands on pools, and its growth with each pair, in bytes.

Run ``python benchmarks/memory.py`` from the root of the checkout. Two simulated indices are measured: one of
``--pairs N`` pairs and one of a quarter of them. Each command runs in its own process. The peak is measured
on the larger index, as users run the command. The growth is measured on both indices, with limits that both
reach: a quarter of DuckDB's memory and of the pairs that it takes at once, and 4 open files of the index
instead of 64. Images are left out, because they are read one by one or one shard at a time. The last lines
are name, value, upper limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import at_most, own_peak, printed, verdict
from runners.data.build.build import Build, folders_of, working
from runners.data.build.build_pool import build_pool
from runners.data.build.info import info_lines
from runners.data.build.known_scores import expression_scores, metadata_facts
from runners.data.build.rescore import set_score, set_subset, use_score
from runners.data.build.source import parts_of
from runners.data.index import merge
from runners.data.index import parts as index_parts
from runners.data.index.parts import ROWS_PER_PART
from runners.data.index.writing import write_part
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Origin, Pool, Scorer
from runners.data.pool.shards import content_hash
from runners.store.copies import INDEX

TARGET_GIB, TARGET_BYTES = 2.0, 1.0
LIMIT = "250MB"
PER_SHARD, LENGTH = 10_000, 64
WORDS = 9
WHAT = ("column:NAME", "score:NAME", "uids", "expression", "info", "build")


def made_up(rows: int) -> Iterator[pd.DataFrame]:
    """Yield an index shard by shard, with strings as long and words as varied as in web data."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, PER_SHARD):
        words = rng.zipf(1.2, (PER_SHARD, WORDS)) % 10_000_000
        uids = rng.integers(0, 2**63, (PER_SHARD, 2))
        captions = [" ".join(map(str, each)) for each in words.tolist()]
        yield pd.DataFrame(
            {
                "key": [f"{n:09d}" for n in range(start, start + PER_SHARD)],
                "shard": f"{start // PER_SHARD:05d}.tar",
                "offset": np.arange(PER_SHARD, dtype=np.int64) * LENGTH,
                "length": np.full(PER_SHARD, LENGTH, np.int64),
                "caption": captions,
                "width": np.int32(256),
                "height": np.int32(256),
                "hash": np.array([content_hash(bytes(LENGTH), each) for each in captions], np.uint64),
                "score": rng.normal(0.28, 0.05, PER_SHARD).astype(np.float32),
                "uid": [f"{a:016x}{b:016x}" for a, b in uids.tolist()],
                "tokens": np.int16(12),
            }
        )


def make_pool(folder: Path, rows: int) -> None:
    """Write an index, empty shards, metadata and a file of uids."""
    folder.mkdir()
    for number in range(rows // PER_SHARD):
        with (folder / f"{number:05d}.tar").open("wb") as file:
            file.truncate(PER_SHARD * LENGTH)
    frames, files = made_up(rows), list[str]()
    while some := list(islice(frames, ROWS_PER_PART // PER_SHARD)):
        files.append(f"{INDEX}{len(files):05d}")
        write_part(folder / files[-1], pd.concat(some, ignore_index=True))
    describe_pool(folder, files, Origin(name="made up"))
    uids = pd.concat([part["uid"] for part in Pool.open(folder).index.frames(["uid"])], ignore_index=True)
    metadata = folder.with_name("metadata.parquet")
    pd.DataFrame({"uid": uids, "clip": np.arange(rows, dtype=np.float32)}).to_parquet(metadata)
    known = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids[::3]], "u8,u8")
    np.save(folder.with_name("uids.npy"), np.sort(known))


def make_parts(folder: Path, path: Path) -> None:
    """Write the intermediate files of a build, as if its source had just been read."""
    how = Build(source=folder)
    count = len(list(folder.glob("*.tar")))
    folders = folders_of(path, how, adding=False)
    with working(folders, how, parts_of(folder)):
        parts = folders.shared.path / folders.work / "parts"
        parts.mkdir()
        for number, part in enumerate(made_up(count * PER_SHARD)):
            some = part.assign(
                shard=f"{number:05d}.tar",
                kind="jpg",
                facts='{"similarity": 0.28, "url": "https://example.org/some/picture.jpg", "key": "0"}',
                image_hash=part["hash"],
                reason="",
            )
            some.to_parquet(parts / f"{number:06d}.parquet")


def work(what: str, pool: str) -> None:
    """Run one command on a pool."""
    folder = Path(pool)
    if what == "build":
        build_pool(folder.with_name("built"), Build(source=folder), lambda *_: None)
        return
    opened = Pool.open(folder)
    if what == "info":
        list(info_lines(opened))
    elif what == "score:NAME":
        use_score(opened, "clip")
    elif what == "column:NAME":
        scores = metadata_facts(opened, folder.with_name("metadata.parquet"), ["clip"]).numbers("clip")
        set_score(opened, scores, Scorer(name="clip"))
    elif what == "expression":
        set_score(opened, expression_scores(opened, "2*clip WHERE width > 8"), Scorer(name="twice"))
    elif what == "uids":
        set_subset(opened, "basic", folder.with_name("uids.npy"))


def measure(what: str, pool: Path, *, limited: bool) -> float:
    """Run one command in its own process, perhaps with less memory for DuckDB; return its peak in GiB."""
    if what == "build":
        shutil.rmtree(pool.with_name("built"), ignore_errors=True)
        make_parts(pool, pool.with_name("built"))
    return float(printed(Path(__file__).resolve(), "--do", what, pool, *(["--limited"] if limited else [])))


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--do", nargs=2)
    parser.add_argument("--limited", action="store_true")
    parser.add_argument("--pairs", type=float, default=32e6)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--what", nargs="+", default=WHAT)
    options = parser.parse_args()
    if options.do:
        if options.limited:
            merge._MEMORY, merge._ROWS_AT_ONCE = LIMIT, merge._ROWS_AT_ONCE // 4  # noqa: SLF001 - as documented
            index_parts._opened = lru_cache(maxsize=4)(index_parts._opened.__wrapped__)  # noqa: SLF001 - as well
        work(*options.do)
        print(own_peak())
        return 0
    limited: dict[str, list[float]] = {}
    peak: dict[str, float] = {}
    sizes = [int(options.pairs / 4) // PER_SHARD * PER_SHARD, int(options.pairs) // PER_SHARD * PER_SHARD]
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            pool = Path(name) / "pool"
            make_pool(pool, rows)
            for what in options.what:
                limited.setdefault(what, []).append(measure(what, pool, limited=True))
                print(
                    f"{what}: {rows:,} pairs, {limited[what][-1]:.2f} GiB with {LIMIT} for DuckDB", flush=True
                )
                if rows == sizes[-1]:
                    peak[what] = measure(what, pool, limited=False)
                    print(f"{what}: {rows:,} pairs, {peak[what]:.2f} GiB", flush=True)
    results = []
    for what, (few, many) in limited.items():
        name = what.replace(":NAME", "")
        growth = (many - few) * 2**30 / (sizes[1] - sizes[0])
        results += [
            at_most(f"memory_{name}_gib", peak[what], TARGET_GIB),
            at_most(f"memory_{name}_growth_bytes_a_pair", growth, TARGET_BYTES),
        ]
    return verdict(results)


if __name__ == "__main__":
    sys.exit(main())
