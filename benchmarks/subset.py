"""Time and memory of choosing subsets from an index of 100 million pairs, and of planning on 3.4 billion.

The last part reads the rows of the index for a window of 1 % of a scattered pool, as each loader worker does.

Run ``python benchmarks/subset.py`` from the root of the checkout; ``--rows N`` takes another number of pairs,
with 12 bytes of disk each, and ``--folder`` another place for them. Each subset is chosen in its own process,
from ten million pairs first and then from all, to see that the time of a pair does not grow. The last lines
are name, value, upper limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import Result, at_most, own_peak, printed, verdict
from runners.data.index.parts import ROWS_PER_GROUP, ROWS_PER_PART, Index, Part
from runners.data.index.selection import Subset, select, subset_of
from runners.data.index.writing import read_manifest, write_manifest
from runners.data.pool.describe import write_facts
from runners.data.pool.pool import Pool, PoolScore, Scorer
from runners.data.reading.order import BLOCK, WINDOW, batch_positions

FEW = 10_000_000
CASES = (("top40", 0.25), ("top20", None), ("all", 0.25))
PLANNED, PER_SHARD, WINDOWS = 3_400_000_000, 10_000, 20
SCATTERED = 4 * ROWS_PER_PART


def make_index(folder: Path, rows: int) -> None:
    """Write an index like a pool's, without the string columns, which are not read for a subset."""
    rng = np.random.default_rng(0)
    parts: list[Part] = []
    (folder / "index").mkdir(parents=True)
    for start in range(0, rows, ROWS_PER_PART):
        count = min(ROWS_PER_PART, rows - start)
        hashes = rng.integers(0, 2**64, count, np.uint64)
        # Rounded, like many real scores, so that every threshold has ties.
        score = (rng.standard_normal(count, np.float32) * np.float32(0.05) + np.float32(0.28)).round(4)
        file = f"index/{len(parts):05d}"
        table, path = pa.table({"hash": hashes, "score": score}), folder / f"{file}.parquet"
        pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
        parts.append(Part(file=file, rows=count))
    (folder / "manifest").write_text(write_manifest(folder, parts), encoding="utf-8")


def open_index(folder: Path) -> Index:
    """Open an index of `make_index`."""
    name = (folder / "manifest").read_text(encoding="utf-8")
    return Index(folder, read_manifest(folder / name), ["hash", "score"])


def choose(folder: Path, quality: str, size: int | None) -> None:
    """Choose one subset and keep it; print its pairs, the bytes of its file, wall and processor seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    subset = select(open_index(folder), size=size, quality=quality)
    took = time.perf_counter() - began, time.process_time() - cpu
    file = folder / f"{quality}-{size}.subset"
    subset.save(file)
    print(len(subset), file.stat().st_size, *took, own_peak())


def read(file: Path, rows: int) -> None:
    """Look up windows of a trial's samples in a kept subset; print its pairs, bytes and seconds a window."""
    subset = Subset.load(file, rows)
    began, cpu = time.perf_counter(), time.process_time()
    step = 16 * 1024
    for start in range(0, WINDOWS * step, step):
        subset[batch_positions(seed=0, count=len(subset), start=start, stop=start + step)]
    wall, cpu = (time.perf_counter() - began) / WINDOWS, time.process_time() - cpu
    print(len(subset), file.stat().st_size, wall, cpu, own_peak())


def make_planned(folder: Path) -> None:
    """Write the manifest of a pool of 3.4 billion pairs, and empty shards."""
    shards = [f"{number:06d}.tar" for number in range(PLANNED // PER_SHARD)]
    for shard in shards:
        (folder / shard).touch()
    parts = [
        Part(
            rows=ROWS_PER_PART,
            file=f"index/{number:05d}",
            shards=dict.fromkeys(shards[start // PER_SHARD : (start + ROWS_PER_PART) // PER_SHARD], 0),
        )
        for number, start in enumerate(range(0, PLANNED, ROWS_PER_PART))
    ]
    left = PLANNED - (len(parts) - 1) * ROWS_PER_PART
    parts[-1] = replace(parts[-1], rows=left)
    pool = Pool(
        path=folder,
        name="made up",
        index=Index(folder, parts, ["hash", "score:drawn"]),
        unranked="none",
        scores={"drawn": PoolScore(scorer=Scorer(name="drawn"), fingerprint="none", pairs=PLANNED)},
        ranked_by="drawn",
    )
    write_facts(pool)


def plan(folder: Path) -> None:
    """Open the pool as a plan does, with a look at all shards; print its pairs and the seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    pool = Pool.open(folder)
    print(pool.count, len(pool.shards), time.perf_counter() - began, time.process_time() - cpu, own_peak())


def make_scattered(folder: Path) -> None:
    """Write parts of an index, all alike, with the strings that a trial reads."""
    rng, numbers = np.random.default_rng(0), np.arange(ROWS_PER_PART)
    columns = {
        "key": np.char.mod("%09d", numbers),
        "shard": np.char.mod("%05d.tar", numbers // PER_SHARD),
        "offset": numbers % PER_SHARD * 40_000,
        "length": rng.integers(1_000, 90_000, ROWS_PER_PART),
        "caption": np.char.mod(
            "a photograph of %06d cats in the street", rng.integers(0, 10**6, ROWS_PER_PART)
        ),
        "hash": rng.integers(0, 2**64, ROWS_PER_PART, np.uint64),
    }
    (folder / "index").mkdir()
    file = folder / "index/00000.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
    for number in range(1, SCATTERED // ROWS_PER_PART):
        shutil.copy(file, folder / f"index/{number:05d}.parquet")


def look_up(folder: Path) -> None:
    """Look up the rows of a window in a random 1 % of the pairs; print the pairs, 0, and seconds a pair."""
    from runners.data.pool.reader import READ_COLUMNS  # noqa: PLC0415 - torch's memory would be measured
    from runners.data.reading.training_data import Source  # noqa: PLC0415 - as above
    from runners.data.reading.training_set import RowsByBlock  # noqa: PLC0415 - as above

    parts = [
        Part(file=f"index/{number:05d}", rows=ROWS_PER_PART) for number in range(SCATTERED // ROWS_PER_PART)
    ]
    index = Index(folder, parts, READ_COLUMNS)
    pool = Pool(path=folder, name="", index=index, unranked="")
    mask = np.random.default_rng(0).random(SCATTERED) < 0.01  # noqa: PLR2004 - 1 %
    source = Source(pool=pool, rows=subset_of([mask]))
    rows = RowsByBlock(source)
    count = len(source.rows)
    order = [
        batch_positions(seed=0, count=count, start=start, stop=start + 256)
        for start in range(0, WINDOW * BLOCK, 256)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    for places in order:
        rows(places)
    took = np.array([time.perf_counter() - began, time.process_time() - cpu]) / (WINDOW * BLOCK)
    print(WINDOW * BLOCK, 0, *took, own_peak())


def measure(*words: object) -> tuple[int, int, float, float, float]:
    """Run this script for one measurement; return what it printed, and its peak memory in GiB."""
    pairs, size, wall, cpu, peak = printed(Path(__file__).resolve(), *words).split()
    print(f"  {float(wall):.2f} s wall, {float(cpu):.2f} s processor, {float(peak):.2f} GiB at most")
    return int(pairs), int(size), float(wall), float(cpu), float(peak)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e8, help="pairs, more than ten million (1e8)")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--choose", nargs=3)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--look-up", type=Path)
    options = parser.parse_args()
    if options.choose:
        folder, quality, size = options.choose
        choose(Path(folder), quality, json.loads(size))
    elif options.read:
        read(options.read, int(options.rows))
    elif options.plan:
        plan(options.plan)
    elif options.look_up:
        look_up(options.look_up)
    elif options.rows <= FEW:
        parser.error(f"--rows must be more than {FEW:,}, with which the time of a pair is compared")
    else:
        return run(int(options.rows), options.folder)
    return 0


def run(rows: int, place: Path | None) -> int:
    """Measure everything, print the lines, and return the exit code."""
    results: list[Result] = []
    processor: dict[tuple[str, int], float] = {}
    with tempfile.TemporaryDirectory(dir=place) as name:
        for count in (FEW, rows):
            folder = Path(name) / f"{count}"
            began = time.perf_counter()
            make_index(folder, count)
            print(f"{count:,} pairs written in {time.perf_counter() - began:.0f} s", flush=True)
            for quality, share in CASES:
                size = int(share * count) if share else None
                case = f"{quality}_{share or 'whole'}"
                print(f"{case} of {count:,}:", flush=True)
                chosen, taken, wall, cpu, peak = measure("--choose", folder, quality, json.dumps(size))
                processor[case, count] = cpu / count
                if count == rows:
                    print(f"  {chosen:,} pairs in {taken / 1e6:.1f} MB")
                    results += [
                        at_most(f"subset_{case}_s", wall, 600.0 * max(rows / 1e9, 0.05)),
                        at_most(f"subset_{case}_gib", peak, 4.0),
                        at_most(f"subset_{case}_growth", processor[case, rows] / processor[case, FEW], 1.3),
                    ]
            print(f"windows of {case}:", flush=True)
            _, _, window, _, peak = measure(
                "--read", folder / f"all-{int(0.25 * count)}.subset", "--rows", count
            )
        # The bits of the subset are mapped: they count as memory of the process, and all share them.
        trial = at_most("subset_trial_gib", peak, 0.3 + rows / 8 / 2**30)
        results += [at_most("subset_window_s", window, 0.1), trial]
    with tempfile.TemporaryDirectory(dir=place) as name:
        make_planned(Path(name))
        print(f"opening {PLANNED:,} pairs:", flush=True)
        _, _, wall, _, peak = measure("--plan", name)
        results += [at_most("pool_of_3.4e9_s", wall, 10.0), at_most("pool_of_3.4e9_gib", peak, 1.0)]
    with tempfile.TemporaryDirectory(dir=place) as name:
        make_scattered(Path(name))
        print("a window of 1 %:", flush=True)
        _, _, _, cpu, _ = measure("--look-up", name)
        results.append(at_most("index_ms_a_pair_of_a_worker", 1e3 * cpu, 0.1))  # 2.24 by row groups alone
    return verdict(results)


if __name__ == "__main__":
    sys.exit(main())
