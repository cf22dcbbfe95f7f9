"""Simulated grids of many configurations with known answers, to measure the verdicts of adaptive designs.

A grid has eight to fourteen configurations whose curves are power laws with floor, shifted power laws, or
fall fast and end at a plateau. Fast starters have the higher floors, so most grids have crossovers. It has
four levels spaced 3×, three seeds, and noise that differs from configuration to configuration and that the
levels of a seed can share, as those of a trunk do. Two kinds are harder: of ``late``, two in five curves are
flat at first and then fall with a slope of up to 2.5 in ln q, and of ``chance``, all begin near chance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import stream
from analysis.error_unit import chance_error
from tests.analysis.synthetic import METRIC, trial_row

FIRST, LEVELS, SEEDS = 2e11, 4, 3
PAIRS = 8192
CHANCE = chance_error(METRIC)
Kind = Literal["designs", "late", "chance"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A simulated grid.

    Attributes:
        results: Its table, every trial with its result.
        truth: True errors: architecture → error at a number of training FLOPs.
    """

    results: pd.DataFrame
    truth: dict[str, Callable[[float], float]]


def grid(number: int, *, shared: float = 0.0, kind: Kind = "designs") -> Grid:
    """Make a simulated grid; ``shared`` is the correlation of the levels of a trunk, 0 without trunks."""
    generator = stream(kind, number)
    count = int(generator.integers(8, 15))
    rows, truth = [], {}
    for each in range(count):
        name = f"ViT-{each}"
        truth[name] = _curve(generator, kind)
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


def _curve(generator: np.random.Generator, kind: Kind) -> Callable[[float], float]:
    if kind == "chance":
        gain, power = np.exp(generator.uniform(np.log(0.004), np.log(0.02))), generator.uniform(0.5, 1.0)
        return lambda flops: float(CHANCE - 0.6 * (1 - 1 / (1 + gain * (flops / FIRST) ** power)))
    if kind == "late" and generator.uniform() < 0.4:
        return _late(generator)
    speed = generator.uniform(0, 1)  # of the start: the faster, the higher the floor
    floor = 0.3 + 0.25 * speed + generator.uniform(-0.05, 0.05)
    start = 0.95 - 0.3 * speed + generator.uniform(-0.05, 0.03)
    alpha = generator.uniform(0.35, 0.7)
    form = generator.choice(["floor", "shifted", "plateau"])
    shift = generator.uniform(1, 5) if form == "shifted" else 0.0
    end = 3.0 ** generator.uniform(1, 3) if form == "plateau" else np.inf

    def error(flops: float) -> float:
        u = min(flops / FIRST, end)
        return float(floor + (start - floor) * ((u + shift) / (1 + shift)) ** -alpha)

    return error


def _late(generator: np.random.Generator) -> Callable[[float], float]:
    """Return a curve that bends to a slope s: ln q = ln q₀ − s/k·ln(1 + (u/b)^k) − .1·ln u."""
    floor, start = generator.uniform(0.15, 0.35), generator.uniform(0.7, 0.87)
    slope, bend, sharp = (
        generator.uniform(1, 2.5),
        3.0 ** generator.uniform(0.5, 2.2),
        generator.uniform(2, 4),
    )
    first = np.log((start - floor) / (CHANCE - start))

    def error(flops: float) -> float:
        u = flops / FIRST
        q = np.exp(first - slope / sharp * np.log1p((u / bend) ** sharp) - 0.1 * np.log(u))
        return float(floor + (CHANCE - floor) * q / (1 + q))

    return error
