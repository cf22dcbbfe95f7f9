"""Simulated grids of many configurations with known answers, to measure the verdicts of adaptive designs.

A grid has eight to fourteen configurations whose curves are power laws with floor, shifted power laws, or
fall fast and end at a plateau. Fast starters have the higher floors, so most grids have crossovers. It has
four levels spaced 3×, three seeds, and noise that differs from configuration to configuration and that the
levels of a seed can share, as those of a trunk do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import stream
from tests.analysis.synthetic import trial_row

FIRST, LEVELS, SEEDS = 2e11, 4, 3
PAIRS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A simulated grid.

    Attributes:
        results: Its table, every trial with its result.
        truth: True errors: architecture → error at a number of training FLOPs.
    """

    results: pd.DataFrame
    truth: dict[str, Callable[[float], float]]


def grid(number: int, *, shared: float = 0.0) -> Grid:
    """Make a simulated grid; ``shared`` is the correlation of the levels of a trunk, 0 without trunks."""
    generator = stream("designs", number)
    count = int(generator.integers(8, 15))
    rows, truth = [], {}
    for each in range(count):
        name = f"ViT-{each}"
        truth[name] = _curve(generator)
        noise = float(np.exp(generator.uniform(np.log(0.004), np.log(0.015))))
        common = stream(f"designs/{each}", number).standard_normal(SEEDS)
        for level in FIRST * 3.0 ** np.arange(LEVELS):
            for seed in range(SEEDS):
                own = float(generator.standard_normal())
                off = np.sqrt(shared) * float(common[seed]) + np.sqrt(1 - shared) * own
                error = truth[name](level) + noise * off
                row = trial_row(
                    (PAIRS, "all", "ViT-X", "clip"), level, seed, float(np.clip(error, 0.001, 0.999))
                )
                rows.append(row | {
                    "trial": f"{name}-{level:.3g}-{seed}", "architecture": name, "train_flops": level,
                    "paid_flops": level,
                    "held-out/count": 5000.0, "trunk": f"{name}-{seed}" if shared else "",
                })  # fmt: skip
    return Grid(results=pd.DataFrame(rows), truth=truth)


def _curve(generator: np.random.Generator) -> Callable[[float], float]:
    speed = generator.uniform(0, 1)  # of the start: the faster, the higher the floor
    floor = 0.3 + 0.25 * speed + generator.uniform(-0.05, 0.05)
    start = 0.95 - 0.3 * speed + generator.uniform(-0.05, 0.03)
    alpha = generator.uniform(0.35, 0.7)
    kind = generator.choice(["floor", "shifted", "plateau"])
    shift = generator.uniform(1, 5) if kind == "shifted" else 0.0
    end = 3.0 ** generator.uniform(1, 3) if kind == "plateau" else np.inf

    def error(flops: float) -> float:
        u = min(flops / FIRST, end)
        return float(floor + (start - floor) * ((u + shift) / (1 + shift)) ** -alpha)

    return error
