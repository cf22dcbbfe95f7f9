"""Time and size of reports: of the embedded study and of a simulated study of 1,005 trials.

Run ``python benchmarks/report.py`` from the root of the checkout. The simulated study has 67 configurations,
5 levels and 3 seeds. Each report is written in its own process. A time is the best of a few runs; the
processor time beside it depends less on other load, and excludes the processes that draw figures. The last
lines are name, value, target, and pass or fail; the exit code is 1 if one fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.report.report import write_report
from tests.analysis.synthetic import (
    GIGA,
    PER_SAMPLE,
    POOL,
    QUALITIES,
    STRATEGY_COST,
    frames_around,
    trial_row,
    true_error,
)

ROOT = Path(__file__).resolve().parents[1]
RUNS = 3
LEVELS = tuple(200 * GIGA * 3**step for step in range(5))
CONFIGURATIONS = 67
SEEDS = 3


def big_report(folder: str) -> None:
    """Write the report of the simulated study."""
    sizes = [(int(POOL * share), quality) for quality, share in QUALITIES.items()]
    data = [*sizes, (512, "top40"), (1024, "top40")]
    grid = (
        (size, quality, architecture, strategy)
        for architecture, strategy, (size, quality) in product(PER_SAMPLE, STRATEGY_COST, data)
    )
    rows = [
        trial_row(cell, level, seed, true_error(level, *cell) + 0.004 * (seed - 1))
        for cell, level, seed in product(islice(grid, CONFIGURATIONS), LEVELS, range(SEEDS))
    ]
    frames = replace(frames_around(pd.DataFrame(rows)), name="big")
    write_report(
        Path(folder),
        frames,
        declaration_text="name: big\n",
        provenance={},
        processes=len(os.sched_getaffinity(0)),
    )


def main() -> int:
    """Run the benchmark and return the exit code."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "results" / "small-full", Path(scratch) / "small-full")
        embedded = [sys.executable, "-m", "study", "report", "small-full", "--results", scratch]
        # Import it instead of running this file: its drawing processes would import, and so run, this file.
        code = "import sys; from benchmarks.report import big_report; big_report(sys.argv[1])"
        big = [sys.executable, "-c", code, str(Path(scratch) / "big")]
        for name, command, page, target in (
            ("embedded", embedded, "small-full/report/report.html", 10.0),
            ("1000_trials", big, "big/report.html", 20.0),
        ):
            took = _best(command)
            size = (Path(scratch) / page).stat().st_size / 1e6
            print(f"{name}: best of {RUNS} {took[0]:.1f} s wall, {took[1]:.1f} s processor; {size:.2f} MB")
            results += [(f"report_{name}_s", took[0], target), (f"report_{name}_mb", size, 5.0)]
    print()
    for name, value, target in results:
        print(f"{name} {value:.3g} {target:g} {'pass' if value <= target else 'fail'}")
    return int(any(value > target for _, value, target in results))


def _best(command: list[str]) -> tuple[float, float]:
    """Run a process a few times; return best wall and processor seconds."""
    walls, cpus = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(time.perf_counter() - began)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        cpus.append(usage.ru_utime + usage.ru_stime)
    return min(walls), min(cpus)


if __name__ == "__main__":
    sys.exit(main())
