"""A bench of made-up studies with known answers: how often do the 90 % intervals hold them?

Each repeat is a study of two architectures along six budgets and of five model sizes at one budget, three
seeds each, and a table of 60 single runs over model size and data. Noise is that of a small evaluation set.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws, cell_draws, stream
from analysis.crossover import crossovers
from analysis.intervals import Interval, intervals
from analysis.laws import laws
from analysis.size_profile import profile
from analysis.surface import fit, fit_draws, resample
from analysis.table import tidy
from tests.analysis.synthetic import trial_row

Floats = NDArray[np.float64]

LEVELS = np.geomspace(2e11, 2e13, 6)
SIZES = np.geomspace(5e6, 8e7, 5)
BEST_SIZE = 2.2e7
ALPHA = 0.4
NOISE = 0.008
SEEDS = 3
N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 10), np.geomspace(1e7, 1e10, 6)))
SURFACE_ALPHA = 0.35
COMPUTE = 1e18
NAMES = tuple(
    f"{name}{kind}"
    for name in ("exponent", "crossover", "optimum", "surface_exponent", "surface_optimum")
    for kind in ("", "_bca")
)
"""Percentile intervals and corrected ones."""


def small(level: Floats) -> Floats:
    return np.asarray(0.44 + 0.28 * (level / 2e11) ** -ALPHA, dtype=np.float64)


def large(level: Floats) -> Floats:
    return np.asarray(0.26 + 0.56 * (level / 2e11) ** -ALPHA, dtype=np.float64)


CROSSING = 2e11 * ((0.56 - 0.28) / (0.44 - 0.26)) ** (1 / ALPHA)


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """One made-up study.

    Attributes:
        held: Whether each interval holds its truth, by its name; None where none was given.
        found: Whether the laws that were made were found.
        invented: Whether a law was found in noise.
    """

    held: dict[str, bool | None]
    found: bool
    invented: bool


def repeat(number: int, *, draws: int = 400) -> Repeat:
    """Makes and analyses one study."""
    generator = stream(f"coverage/{number}", 0)
    found = _draws(_curves(generator), draws)
    fitted = tuple(laws(found, along="compute"))
    alpha = next(law.alpha for law in fitted if law.identity["architecture"] == "ViT-M")
    cross = crossovers(found, fitted, along="compute").iloc[0]
    crossing = Interval(**{name: float(cross[name]) for name in ("low", "high", "bca_low", "bca_high")})
    held = (
        _held("exponent", alpha, ALPHA) | _held("crossover", crossing, CROSSING)
        | _held("optimum", _isoflop(generator, draws), BEST_SIZE) | _surface(generator, draws)
    )  # fmt: skip
    noise = laws(_draws(_flat(generator), draws), along="compute")[0]
    return Repeat(held=held, found=all(law.fit.supported for law in fitted), invented=noise.fit.supported)


def share(held: Iterable[bool | None]) -> tuple[float, int]:
    """Share of the given intervals that hold the truth, and how many were given."""
    given = [one for one in held if one is not None]
    return (float(np.mean(given)) if given else float("nan")), len(given)


def _held(name: str, ends: Interval, truth: float) -> dict[str, bool | None]:
    given = {name: (ends.low, ends.high), f"{name}_bca": (ends.bca_low, ends.bca_high)}
    return {
        kind: None if np.isnan(low) or np.isnan(high) else bool(low <= truth <= high)
        for kind, (low, high) in given.items()
    }


def _flat(generator: np.random.Generator) -> pd.DataFrame:
    """Four levels at which the error is the same but for the noise."""
    return pd.DataFrame([
        _row("ViT-X", level, seed, 0.5 + NOISE * float(generator.standard_normal()))
        for level in LEVELS[:4]
        for seed in range(SEEDS)
    ])  # fmt: skip


def _curves(generator: np.random.Generator) -> pd.DataFrame:
    rows = []
    for architecture, law in (("ViT-X", small), ("ViT-M", large)):
        for level in LEVELS:
            rows += [
                _row(
                    architecture, level, seed, float(law(level)) + NOISE * float(generator.standard_normal())
                )
                for seed in range(SEEDS)
            ]
    return pd.DataFrame(rows)


def _row(architecture: str, level: float, seed: int, error: float) -> dict[str, object]:
    # x exactly at the level, and so many images that counting them is not the noise.
    row = trial_row((8192, "all", architecture, "clip"), level, seed, error)
    return row | {"train_flops": level, "held-out/count": 50_000.0}


def _draws(results: pd.DataFrame, draws: int) -> CellDraws:
    return cell_draws(tidy(results, metric="held-out/top1"), question="laws", draws=draws)


def _isoflop(generator: np.random.Generator, draws: int) -> Interval:
    rows = []
    for place, size in enumerate(SIZES):
        error = 0.5 + 0.03 * np.log(size / BEST_SIZE) ** 2
        for seed in range(SEEDS):
            row = _row("ViT-X", LEVELS[3], seed, error + NOISE * float(generator.standard_normal()))
            rows.append(
                row | {"trial": f"{place}-{seed}", "architecture": f"ViT-{place}", "subset_size": 100 + place}
            )
    found = _draws(pd.DataFrame(rows), draws)
    ordered = np.argsort(found.cells["subset_size"].to_numpy(), kind="stable")
    here = found.take(ordered)
    runs = here.cells["runs"].to_numpy(np.int64)
    return profile(SIZES, here.resampled(), refits=here.refits, runs=runs, source=here.source).ends


def _surface(generator: np.random.Generator, draws: int) -> dict[str, bool | None]:
    truth = 0.2 + 30 * N**-SURFACE_ALPHA + 60 * D**-0.3
    y = truth * np.exp(0.01 * generator.standard_normal(len(N)))
    around = fit(N, D, y)
    weights = [np.ones((1, len(y))), resample(len(y), draws, generator), 1.0 - np.eye(len(y))]
    stack = fit_draws(N, D, y[None, :], weights=np.concatenate(weights), around=around)
    best = (SURFACE_ALPHA * 30 / (0.3 * 60)) ** (1 / 0.65) * (COMPUTE / 6) ** (0.3 / 0.65)
    exponent = _held("surface_exponent", intervals(stack.alpha, draws), SURFACE_ALPHA)
    return exponent | _held("surface_optimum", intervals(stack.optimum(COMPUTE), draws), best)
