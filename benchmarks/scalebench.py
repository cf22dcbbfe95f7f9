"""Forecasts of a surface from runs chosen for it, compared with the figures that ScaleBench publishes.

Run ``python benchmarks/scalebench.py`` from the root of the checkout; ``--repeats 2`` is a quick version.

Two tasks of ScaleBench (Li et al. 2026, arXiv 2604.22753) by its protocol. Runs are chosen for the forecast
of a region that costs more than any of them, with 1, 5 and 10 % of what all candidates cost (6·N·D). R² of
the region, clipped to [−1, 1], is the mean of 10 repeats; the targets are those that it publishes. Random
choice, with the same law, is beside it, without a target.

The last lines are name, value, target, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.design.surface_design import SurfaceBelief, believe_surface, plan_runs
from analysis.laws.surfaces.repeated import Points
from benchmarks.measured import ROOT, Result, at_least, reported, verdict

PUBLISHED = {"farseer": (0.60, 0.88, 0.93), "data_constrained": (0.73, 0.85, 0.86)}
SHARES = (0.01, 0.05, 0.1)
LEAST_ROUND = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A task of ScaleBench: candidates, then the target region, and the loss of each."""

    places: Points
    loss: np.ndarray
    candidates: int

    @classmethod
    def of(cls, task: str) -> "Region":
        """Read a task."""
        parts = [
            pd.read_parquet(ROOT / "tests" / "data" / "scalebench" / f"{task}_{part}.parquet")
            for part in ("train", "test")
        ]
        both = pd.concat(parts).rename(columns={"N": "params", "D": "tokens"})
        seen = both["tokens"].to_numpy(np.float64)
        unique = both["unique_tokens"].to_numpy(np.float64) if "unique_tokens" in both else seen
        places = Points(n=both["params"].to_numpy(np.float64), unique=unique, seen=seen)
        return cls(places=places, loss=both["loss"].to_numpy(np.float64), candidates=len(parts[0]))

    def beliefs(self, seed: int, design: str) -> Iterator[SurfaceBelief]:
        """Choose runs by a design, in rounds; yield the belief when each share is spent."""
        generator = np.random.default_rng(seed)
        cost = 6 * self.places.n * self.places.seen
        order = generator.permutation(self.candidates)
        free = np.arange(len(self.loss)) < self.candidates
        done = np.array([], dtype=np.intp)
        for share in SHARES:
            while True:
                room = float(share * cost[: self.candidates].sum() - cost[done].sum())
                belief = believe_surface(self.places, done, self.loss[done], generator=generator)
                if design == "random":
                    picks = affordable(order[free[order]], cost, room)
                else:
                    picks = self.planned(belief, cost, free, room)[: max(LEAST_ROUND, len(done) // 3)]
                if not len(picks):
                    break
                done = np.concatenate([done, picks])
                free[picks] = False
            yield belief

    def planned(self, belief: SurfaceBelief, cost: np.ndarray, free: np.ndarray, room: float) -> np.ndarray:
        """Return the runs that say most about the target region, the best first."""
        target = np.arange(self.candidates, len(self.loss))
        weights = np.exp(2 * belief.mean[target])
        return plan_runs(belief, cost=cost, free=free, target=target, weights=weights, room=room)

    def judged(self, belief: SurfaceBelief) -> tuple[float, float]:
        """Return R² of the target region and the error over the standard deviation, by root mean square."""
        true, forecast = self.loss[self.candidates :], belief.mean[self.candidates :]
        spread = np.sqrt(np.diag(belief.covariance)[self.candidates :])
        off = ((true - np.exp(forecast)) ** 2).sum() / ((true - true.mean()) ** 2).sum()
        miss = ((np.log(true) - forecast) / spread) ** 2
        return float(max(-1.0, 1 - off)), float(np.sqrt(miss.mean()))


def affordable(order: np.ndarray, cost: np.ndarray, room: float) -> np.ndarray:
    """Return the runs of an order, each of which is taken if there is still room for it."""
    taken = []
    for run in order:
        if cost[run] <= room:
            taken.append(run)
            room -= cost[run]
    return np.array(taken, dtype=np.intp)


def measure(repeats: int) -> list[Result]:
    """Measure both tasks in random orders; return the lines of the design and of random choice."""
    lines = []
    for task, published in PUBLISHED.items():
        region = Region.of(task)
        for design in ("random", "design"):
            found = [
                [region.judged(belief) for belief in region.beliefs(seed, design)] for seed in range(repeats)
            ]
            fits, misses = np.moveaxis(np.array(found), -1, 0)
            print(
                f"  {task} by {design}: R² {fits.mean(axis=0).round(3)} ± {fits.std(axis=0).round(3)}, "
                f"error over its standard deviation {np.sqrt((misses**2).mean(axis=0)).round(2)}",
                flush=True,
            )
            for share, fit, theirs in zip(SHARES, fits.mean(axis=0), published, strict=True):
                if design == "random":
                    lines.append(reported(f"{task}_random_r2_{share:.0%}", float(fit)))
                else:
                    lines.append(at_least(f"{task}_r2_{share:.0%}", float(fit), theirs))
    return lines


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure forecasts from chosen runs of ScaleBench's tasks.")
    parser.add_argument("--repeats", type=int, default=10, help="repeats of each task (10)")
    return verdict(measure(parser.parse_args().repeats), ".3f")


if __name__ == "__main__":
    sys.exit(main())
