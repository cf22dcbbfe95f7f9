"""Memory of the commands on an index, which does not grow with the number of pairs."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from runners.data.index.writing import write_part
from runners.data.pool.describe import describe_pool
from runners.data.pool.pool import Pool, Scorer

pytestmark = pytest.mark.slow

PART = 131_072

PEAK = """
import sys, tracemalloc
from pathlib import Path
import pyarrow as pa
from runners.data.build.info import _shown, info_lines
from runners.data.build.known_scores import expression_scores, metadata_facts
from runners.data.build.rescore import set_score, set_subset, use_score
from runners.data.pool.pool import Pool, Scorer

path = Path(sys.argv[1])
tracemalloc.start()
pool = Pool.open(path)
pool = set_score(pool, expression_scores(pool, "first + 1 WHERE width > 20"), Scorer(name="mine"))
facts = metadata_facts(pool, path / "metadata.parquet", ["clip"])
pool = set_score(pool, facts.numbers("clip"), Scorer(name="clip"))
pool = use_score(set_subset(pool, "few", path / "uids.npy"), "first")
lines = [*info_lines(pool)]
assert len(_shown(pool)) == 50
print(tracemalloc.get_traced_memory()[1], pa.default_memory_pool().max_memory())
print(*lines, sep="\\n")
"""
"""Prints the peaks of the arrays of numpy and of arrow, in bytes, and what `data info` tells.

DuckDB has its limit.
"""


def make_pool(folder: Path, parts: int) -> Path:
    """Write an index whose parts are copies of one, and metadata and uids of its pairs."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "key": "a",
            "shard": "0.tar",
            "offset": np.arange(PART),
            "length": rng.integers(1_000, 90_000, PART),
            "caption": "",
            "width": rng.integers(10, 1_000, PART).astype(np.int32),
            "height": np.int32(200),
            "hash": rng.integers(0, 2**64, PART, np.uint64),
            "score:first": rng.normal(0.3, 0.05, PART).astype(np.float32),
            "uid": [f"{number:032x}" for number in range(PART)],
            "tokens": np.int16(9),
        }
    )
    folder.mkdir()
    (folder / "0.tar").touch()
    write_part(folder / "index" / "00000", frame)
    files = [f"index/{number:05d}" for number in range(parts)]
    for file in files[1:]:
        for end in ("parquet", "words.parquet"):
            shutil.copy(folder / f"index/00000.{end}", folder / f"{file}.{end}")
    describe_pool(Pool.without_pairs(folder, "large"), files, scorer=Scorer(name="first"))
    pd.DataFrame({"uid": frame["uid"][::2], "clip": frame["score:first"][::2]}).to_parquet(
        folder / "metadata.parquet"
    )
    np.save(folder / "uids.npy", np.array([(0, uid) for uid in range(0, PART, 3)], "u8,u8"))
    return folder


@pytest.mark.timeout(600)
def test_memory_of_scores_subsets_and_summaries_does_not_grow_with_the_pairs(tmp_path: Path) -> None:
    peaks, printed = [], []
    for parts in (2, 8):
        pool = make_pool(tmp_path / str(parts), parts)
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, str(pool)], check=False, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        numbers, *lines = ran.stdout.splitlines()
        assert len(numbers.split()) == 2, ran.stdout
        peaks.append([int(number) for number in numbers.split()])
        printed.append(lines)
        shutil.rmtree(pool)
    # A byte for each of the 786,000 further pairs would add 0.79 MB.
    for small, large in zip(*peaks, strict=True):
        assert large - small < 0.75e6, peaks
    assert "1,048,576 pairs in 1 shard," in printed[1][0]
    assert f"named subset few: {8 * (PART // 3 + 1):,} pairs" in printed[1]
    by_share = [[line.split()[-3:] for line in lines if "pairs from" in line] for lines in printed]
    assert by_share[0] == by_share[1] != []
