"""Time and memory of choosing a subset from an index of 100 million pairs.

Run ``python benchmarks/subset.py`` from the root of the checkout; ``--rows N`` uses a smaller index. The last
lines are name, value, target, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runners.data.pool.subset import rows_in

CHUNK = 1_000_000
CASES = (("top40", 0.25), ("top20", None), ("all", 0.25))


def make_index(path: Path, rows: int) -> None:
    """Write an index like a pool's, without the string columns, which are not read for a subset."""
    rng = np.random.default_rng(0)
    schema = pa.schema([("offset", pa.int64()), ("hash", pa.uint64()), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            columns = [
                np.arange(start, start + count, dtype=np.int64),
                rng.integers(0, 2**64, count, np.uint64),
                # Rounded, like many real scores, so that every threshold has ties.
                (rng.normal(0.28, 0.05, count).round(4)).astype(np.float32),
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=16_384)


def choose(path: str, quality: str, size: str) -> None:
    """Choose one subset; print its number of rows, wall seconds and processor seconds."""
    began, cpu = time.perf_counter(), time.process_time()
    rows = rows_in(Path(path), size=int(size) or None, quality=quality)
    print(len(rows), time.perf_counter() - began, time.process_time() - cpu)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--choose", nargs=3)
    options = parser.parse_args()
    if options.choose:
        choose(*options.choose)
        return 0
    results = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.parquet"
        make_index(path, options.rows)
        print(f"{options.rows:,} rows, {path.stat().st_size / 1e9:.2f} GB")
        for quality, share in CASES:
            size = int(share * options.rows) if share else 0
            command = [sys.executable, __file__, "--choose", str(path), quality, str(size)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None, "it is piped"
            found, wall, cpu = process.stdout.read().split()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            name = f"{quality}_{size or 'whole'}"
            peak = usage.ru_maxrss / 2**20
            took = f"{float(wall):.1f} s wall, {float(cpu):.1f} s processor"
            print(f"{name}: {int(found):,} rows, {took}, {peak:.2f} GiB at most")
            results += [(f"subset_{name}_s", float(wall), 30.0), (f"subset_{name}_gib", peak, 2.0)]
    print()
    for name, value, target in results:
        print(f"{name} {value:.3g} {target:g} {'pass' if value <= target else 'fail'}")
    return int(any(value > target for _, value, target in results))


if __name__ == "__main__":
    sys.exit(main())
