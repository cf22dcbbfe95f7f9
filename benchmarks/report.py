"""Time and size of reports: of the embedded study and of a simulated study of 1,005 trials.

Run ``python benchmarks/report.py`` from the root of the checkout. The simulated study has 67 configurations,
5 levels and 3 seeds. Each report is written in its own process. A time is the best of a few runs; the
processor time beside it depends less on other load, and excludes the processes that draw figures. Beside
them are the import of a report, and the analysis of 10,000 trials. The last lines are name, value, upper
limit, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.report.report import write_report
from benchmarks.measured import ROOT, at_most, best_of, printed, verdict
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

RUNS = 3
LEVELS = tuple(200 * GIGA * 3**step for step in range(5))
CONFIGURATIONS = 67
SEEDS = 3
WHOLE = """
from study.cli import save_processor_time
save_processor_time()
import time
import numpy as np, pandas as pd
from analysis.report.analyse import analyse
from analysis.cells.study_frames import StudyFrames
from tests.analysis.synthetic import study

base = study(levels=tuple(np.geomspace(2e11, 1e13, 6))).results
copies = [
    base.assign(trial=base["trial"] + f"-{k}", subset_size=base["subset_size"] + 10_000 * k)
    for k in range(51)
]
many = pd.concat(copies, ignore_index=True).iloc[:10_000]
began = time.process_time()
analyse(StudyFrames(name="many", metric="held-out/top1", results=many))
print(time.process_time() - began)
"""


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
    cores = len(os.sched_getaffinity(0))
    write_report(Path(folder), frames, declaration_text="name: big\n", provenance={}, processes=cores)


def main() -> int:
    """Run the benchmark and return the exit code."""
    argparse.ArgumentParser(description="Measure the time and size of reports.").parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "results" / "small-full", Path(scratch) / "small-full")
        embedded = [sys.executable, "-m", "study", "report", "small-full", "--results", scratch]
        # Import it instead of running this file: its drawing processes would import, and so run, this file.
        code = (
            "import sys; from study.cli import save_processor_time; save_processor_time(); "
            "from benchmarks.report import big_report; big_report(sys.argv[1])"
        )
        big = [sys.executable, "-c", code, str(Path(scratch) / "big")]
        for name, command, page, target in (
            ("embedded", embedded, "small-full/report/report.html", 10.0),
            ("1000_trials", big, "big/report.html", 20.0),
        ):
            wall_s, cpu_s, _ = best_of(RUNS, command)
            size = (Path(scratch) / page).stat().st_size / 1e6
            print(f"{name}: best of {RUNS} {wall_s:.1f} s wall, {cpu_s:.1f} s processor; {size:.2f} MB")
            results += [at_most(f"report_{name}_s", wall_s, target), at_most(f"report_{name}_mb", size, 5.0)]
    results += [
        at_most("import_s", best_of(RUNS, [sys.executable, "-c", "import analysis.report.report"])[1], 1.0),
        at_most("analyse_10000_trials_s", float(printed("-c", WHOLE)), 30.0),
    ]
    return verdict(results)


if __name__ == "__main__":
    sys.exit(main())
