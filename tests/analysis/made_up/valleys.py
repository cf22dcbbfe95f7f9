"""Simulated IsoFLOP studies with known best sizes, to measure the coverage of their intervals.

A study has four budgets spaced 3×, five model sizes spaced 2 to 3× and not centred on the best, two or three
seeds, and noise that differs from cell to cell by up to four times. The truth has one of three forms, or a
curvature that differs twofold between both sides of the best size (``lopsided``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws, cell_draws, stream
from analysis.cells.table import tidy
from analysis.laws.best_size import profiles

Kind = Literal["floor", "broken", "shifted"]
Shape = Kind | Literal["lopsided"]
KINDS: tuple[Kind, ...] = ("floor", "broken", "shifted")
SHAPES: tuple[Shape, ...] = (*KINDS, "lopsided")

BUDGETS = 1e12 * 3.0 ** np.arange(4)
SIZES = 5
IMAGES = 1600.0
_GRID = np.geomspace(1e-3, 1e3, 4001)
_UNIT = 2e7
_SHARPNESS = 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """The best size of one profile, with its interval and the true value.

    Attributes:
        given: True if a minimum was marked.
        held: True if its interval contains the truth.
        width: Upper over lower end of the interval; infinite where it is open.
    """

    given: bool
    held: bool
    width: float


def error_of(kind: Shape, generator: np.random.Generator) -> Callable[[Floats, Floats | float], Floats]:
    """Return the true error over relative model size and relative compute."""
    alpha, beta = generator.uniform(0.25, 0.6, 2)
    floor, scale = generator.uniform(0.1, 0.3), generator.uniform(0.06, 0.15)
    of_data = scale * alpha / beta * np.exp(0.1 * generator.standard_normal())
    if kind == "floor":
        return lambda n, c: floor + scale * n**-alpha + of_data * (c / n) ** -beta
    if kind == "broken":
        # A smoothly broken power law (Caballero et al. 2023, eq. 1) in one of the two terms.
        of_size = bool(generator.integers(2))
        at, change = np.exp(generator.uniform(-1.5, 1.5)), generator.uniform(0.2, 0.5)
        change = max(change * generator.choice([-1, 1]), -0.7 * (alpha if of_size else beta))

        def bend(x: Floats | float) -> Floats:
            power = -change * _SHARPNESS
            return np.asarray(((1 + (x / at) ** (1 / _SHARPNESS)) / (1 + at ** (-1 / _SHARPNESS))) ** power)

        return lambda n, c: np.asarray(
            floor
            + scale * n**-alpha * (bend(n) if of_size else 1.0)
            + of_data * (c / n) ** -beta * (1.0 if of_size else bend(c / n))
        )
    if kind == "lopsided":
        ratio, growth = 2.0 ** generator.choice([-0.5, 0.5]), generator.uniform(0.4, 0.6)
        curvature = generator.uniform(0.01, 0.025)

        def lopsided(n: Floats, c: Floats | float) -> Floats:
            t = np.log(n) - growth * np.log(c)
            valley = curvature * np.where(t < 0, ratio, 1 / ratio) * t**2 / (1 + 0.1 * np.abs(t))
            return np.asarray(floor + 2 * scale * c ** (-0.5 * alpha) + valley)

        return lopsided
    size, data = np.exp(generator.uniform(-2, 1, 2))
    alpha, beta = 1.5 * alpha, 1.5 * beta
    return lambda n, c: np.asarray(
        floor + scale * ((n + size) / (1 + size)) ** -alpha + of_data * ((c / n + data) / (1 + data)) ** -beta
    )


def study(kind: Shape, number: int, *, noise: float = 1.0, draws: int = 500) -> tuple[CellDraws, Floats]:
    """Return the cells of one study, and the true best size at each budget in FLOPs per sample.

    Args:
        kind: Form of the truth.
        number: Number of the study.
        noise: Noise of a run before it differs from cell to cell, in units of the noise of counting the
            answers of 1,600 images.
        draws: Number of draws.
    """
    generator = stream(f"valleys/{kind}/{number}", 0)
    compute = BUDGETS / np.sqrt(BUDGETS[0] * BUDGETS[-1])
    while True:
        error = error_of(kind, generator)
        best = np.array([_GRID[error(_GRID, c).argmin()] for c in compute])
        if best.min() == _GRID[0] or best.max() == _GRID[-1]:
            continue
        step = generator.uniform(2, 3)
        middle = np.exp(np.log(best).mean() + generator.uniform(-1, 1) * np.log(step))
        sizes = middle * step ** np.linspace(-(SIZES - 1) / 2, (SIZES - 1) / 2, SIZES)
        truth = np.array([error(sizes, c) for c in compute])
        if (best > sizes[0]).all() and (best < sizes[-1]).all() and (truth < 0.95).all():
            break
    seeds = int(generator.integers(2, 4))
    deviation = (
        noise * np.sqrt(truth * (1 - truth) / IMAGES) * np.exp(generator.uniform(-0.5, 0.9, truth.shape))
    )
    rows = []
    for (level, size), value in np.ndenumerate(truth):
        for seed in range(seeds):
            cost = sizes[size] * _UNIT
            samples = BUDGETS[level] / cost
            rows.append({
                "trial": f"{level}-{size}-{seed}", "regime": "fixed-compute", "subset_size": 1e9,
                "quality": "all", "architecture": f"ViT-{size}", "strategy": "clip", "seed": seed,
                "level_flops": BUDGETS[level], "train_flops": BUDGETS[level], "train_flops_per_sample": cost,
                "evaluation_flops": 0.0, "samples_seen": samples, "epochs": samples / 1e9,
                "parameters": cost / 6, "train_loss": 1.0, "status": "finished", "reason": "",
                "test/top1": 1 - value - deviation[level, size] * generator.standard_normal(),
                "test/count": IMAGES / noise**2,
            })  # fmt: skip
    trials = tidy(pd.DataFrame(rows), metric="test/top1")
    return cell_draws(trials, draws=draws), best * _UNIT


def best_sizes(kind: Shape, number: int, *, noise: float = 1.0, draws: int = 500) -> list[Best]:
    """Return the best size of each budget's profile."""
    cells, truth = study(kind, number, noise=noise, draws=draws)
    return [
        Best(
            given=one.status == "ok",
            held=bool(one.low <= size <= one.high),
            width=one.high / one.low if one.low > 0 else float("inf"),
        )
        for one, size in zip(profiles(cells), truth, strict=True)
    ]
