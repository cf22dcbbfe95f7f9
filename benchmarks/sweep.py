"""Sweeps: the bias of the best of n that is left in simulated ones, and the optimum of a published one.

Run ``python benchmarks/sweep.py`` from the root of the checkout. The simulated sweeps have 1 to 140 runs a
cell, on a grid of rates and batches or at random, with noise of .2 to 2 points, some runs diverged, and the
optimum inside or at the edge; the bias is that of the chosen run's true error, in points. The rate and batch
of Step Law's models are predicted from the other sizes; the value is how far the loss at the nearest run is
above the lowest of its cell, in percent; the target is what Li et al. 2025 (arXiv 2503.04715) report.
"""

import sys
from itertools import product
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import Result, at_most, reported, verdict
from tests.analysis.simulated_sweeps import STEP_LAW, missed, simulate, step_law

BIAS, ABOVE = 0.1, 0.09


def main() -> int:
    """Print the lines and return the exit code."""
    lines: list[Result] = []
    everything = []
    for noise in (0.2, 0.5, 1.0, 2.0):
        scenes = enumerate([*product((True, False), (False, True), (0.0, 0.1))] * 2)
        found = pd.concat([
            missed(simulate(seed, noise=noise, grid=grid, edge=edge, diverged=diverged))
            for seed, (grid, edge, diverged) in scenes
        ])  # fmt: skip
        everything.append(found)
        lines.append(reported(f"bias as measured, noise {noise:g}", abs(found["best"].mean())))
        lines.append(at_most(f"bias left, noise {noise:g}", abs(found["corrected"].mean()), BIAS))
    lines.append(at_most("bias left", abs(pd.concat(everything)["corrected"].mean()), BIAS))
    if STEP_LAW.exists():
        lines.append(at_most("Step Law held out by size", 100 * step_law().mean(), ABOVE))
    return verdict(lines, form=".3f")


if __name__ == "__main__":
    raise SystemExit(main())
