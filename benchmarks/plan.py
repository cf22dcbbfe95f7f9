"""Time and memory of planning 100,000 cells, the paper's grid, and of ``--help``.

Run ``python benchmarks/plan.py`` from the root of the checkout. A time is the best of a few runs; processor
time is shown beside it, because it depends less on other load. The last lines are name, value, upper limit,
and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import Result, at_most, best_of, own_peak, verdict
from budgets.declaration.data_sections import DeclaredPool
from budgets.declaration.declaration import Declaration
from budgets.declaration.sections import Budget, GridBlock, Training
from budgets.planning.facts import EvaluationFacts, PoolFacts
from budgets.planning.plan import Plan
from budgets.planning.planner import make_plan
from study.cli import save_processor_time

RUNS = 5
CELLS = 100_000


def big_plan() -> Plan:
    """Plan 100,000 cells: 10 levels, 125 sizes, 4 qualities, 5 architectures, 4 strategies."""
    names = ("ViT-Ti-16", "ViT-S-32", "ViT-S-16", "ViT-B-32", "ViT-B-16")
    declaration = Declaration(
        name="big",
        pool=DeclaredPool(name="big", pairs=10**9, scored=True),
        budget=Budget(levels=tuple(10**17 * 2**step for step in range(10)), study_flops=10**26),
        grid=(
            GridBlock(
                architectures=names,
                strategies=("clip", "clip-randaugment", "flip-50", "slip"),
                sizes=tuple(800_000 * step for step in range(1, 126)),
                quality=("top20", "top40", "top80", "all"),
            ),
        ),
        seeds=(0,),
        training=Training(lr_peak=dict.fromkeys(names, 1e-3), batch_size=4096),
        metric="imagenet/top1",
    )
    return make_plan(
        declaration,
        pool=PoolFacts(name="big", pairs=10**9, scored=True),
        evaluation=EvaluationFacts(names=("imagenet",), images=50_000, texts=80_000),
    )


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the time and memory of planning.")
    parser.add_argument("part", nargs="?", choices=("cells",), help="plan the 100,000 cells only, once")
    if parser.parse_args().part:
        return _plan_cells()
    cells, output = _timed("plan_100000_cells_s", 2.0, __file__, "cells")
    planned, inner_wall, peak_gib = output.split()
    print(f"  {int(planned):,} of {CELLS:,} cells became trials; without Python's start {inner_wall} s")
    memory = at_most("plan_100000_cells_mib", float(peak_gib) * 1024, 500.0)
    paper, _ = _timed("plan_paper_s", 2.0, "-m", "study", "plan", "paper")
    helped, _ = _timed("help_s", 0.5, "-m", "study", "--help")
    return verdict([cells, memory, paper, helped])


def _timed(name: str, target: float, *words: str) -> tuple[Result, str]:
    """Return the line of the wall time that Python takes with some arguments, and what it prints."""
    wall, cpu, output = best_of(RUNS, [sys.executable, *words])
    print(f"{name}: best of {RUNS} {wall:.3f} s wall, {cpu:.3f} s processor")
    return at_most(name, wall, target), output


def _plan_cells() -> int:
    save_processor_time()  # as `study plan` does
    began = time.perf_counter()
    plan = big_plan()
    took = time.perf_counter() - began
    if len(plan.trials) + len(plan.left_out) != CELLS:
        raise SystemExit("some cells are neither trials nor left out")
    print(len(plan.trials), f"{took:.3f}", own_peak())
    return 0


if __name__ == "__main__":
    sys.exit(main())
