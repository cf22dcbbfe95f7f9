"""Simulated studies with known curves.

A study has two architectures whose curves cross, and a strategy that is worth a known factor of compute. Its
curves are of one of three forms: a power law with floor, a smoothly broken power law (Caballero et al. 2023,
eq. 1) or a shifted one. It has four to six levels spaced 3×, two or three seeds, noise that differs by up to
three times from configuration to configuration, and one cell is missing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import stream
from tests.analysis.made_up.valleys import Kind
from tests.analysis.synthetic import trial_row

Truth = Callable[[Floats], Floats]

FIRST = 2e11
PAIRS = 8192
IMAGES = 50_000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A simulated study.

    Attributes:
        results: Its table.
        truth: Architecture and strategy → the true error at a compute in units of ``FIRST``.
        worth: The factor of compute that the strategy is worth.
        alpha: The true exponent; NaN where a broken law has several.
        levels: Training FLOPs.
    """

    results: pd.DataFrame
    truth: Mapping[tuple[str, str], Truth]
    worth: float
    alpha: float
    levels: Floats

    def at(self, identity: Mapping[str, object], flops: Floats) -> Floats:
        """Return the true errors of a configuration."""
        return self.truth[str(identity["architecture"]), str(identity["strategy"])](flops / FIRST)


def study(kind: Kind, number: int, *, shared: float = 0.0) -> Study:
    """Make a simulated study; ``shared`` is the correlation of the levels of a trunk, 0 for none."""
    generator = stream(f"coverage/{kind}", number)
    alpha = float(generator.uniform(0.3, 0.55)) * (1.5 if kind == "shifted" else 1.0)
    floor, scale = generator.uniform(0.3, 0.45), generator.uniform(0.25, 0.4)
    small = _curve(kind, generator, floor, scale, alpha)
    large = _curve(
        kind, generator, floor - generator.uniform(0.1, 0.18), scale + generator.uniform(0.2, 0.3), alpha
    )
    worth = float(np.exp(generator.uniform(-0.7, 0.9)))
    truth: dict[tuple[str, str], Truth] = {
        ("ViT-X", "clip"): small, ("ViT-M", "clip"): large, ("ViT-X", "flip-50"): lambda u: small(worth * u),
    }  # fmt: skip
    count = int(generator.integers(4, 7))
    levels = np.geomspace(FIRST, FIRST * 3.0 ** (count - 1), count)
    seeds, missing = int(generator.integers(2, 4)), int(generator.integers(3 * len(levels)))
    rows = []
    for place, (name, line) in enumerate(truth.items()):
        noise = float(np.exp(generator.uniform(np.log(0.004), np.log(0.012))))
        common = stream(f"coverage/{kind}/{place}", number).standard_normal(seeds)
        for level in range(len(levels)):
            own = generator.standard_normal(seeds)
            errors = float(line(levels[[level]] / FIRST)[0]) + noise * (
                np.sqrt(shared) * common + np.sqrt(1 - shared) * own
            )
            if place * len(levels) + level != missing:
                rows += [
                    row_at(*name, levels[level], seed, error) | {"trunk": f"{name}-{seed}" if shared else ""}
                    for seed, error in enumerate(errors)
                ]
    return Study(
        results=pd.DataFrame(rows), truth=truth, worth=worth, levels=levels,
        alpha=float("nan") if kind == "broken" else alpha,
    )  # fmt: skip


def _curve(kind: Kind, generator: np.random.Generator, floor: float, scale: float, alpha: float) -> Truth:
    if kind == "floor":
        return lambda u: np.asarray(floor + scale * u**-alpha)
    if kind == "shifted":
        shift = generator.uniform(1, 6)
        return lambda u: np.asarray(floor + scale * ((u + shift) / (1 + shift)) ** -alpha)
    change, at = generator.uniform(0.3, 0.8), 10 ** generator.uniform(0.5, 1.8)
    bend = change * alpha
    return lambda u: np.asarray(
        floor + scale * u ** (-0.4 * alpha) * ((1 + (u / at) ** 2) / (1 + at**-2)) ** -bend
    )


def row_at(architecture: str, strategy: str, level: float, seed: int, error: float) -> dict[str, object]:
    """Return a row of the results schema, exactly at a level."""
    # x exactly at the level, and so many images that counting them is not the noise.
    row = trial_row((PAIRS, "all", architecture, strategy), level, seed, float(np.clip(error, 0.001, 0.999)))
    return row | {"train_flops": level, "paid_flops": level, "held-out/count": IMAGES}
