"""Simulated studies of two configurations of unequal noise, a known distance apart."""

import numpy as np
import pandas as pd

from analysis.belief.verdict import judge
from tests.analysis.synthetic import METRIC, cells_of, trial_row

LEVELS = np.geomspace(2e11, 5.4e12, 4)
TWO = pd.DataFrame([
    trial_row((1024, "all", architecture, "clip"), float(level), seed, 0.5)
    for architecture in ("ViT-X", "ViT-S")
    for level in LEVELS
    for seed in range(3)
]).assign(**{"held-out/count": 1e6})  # fmt: skip
NOISE = 0.01


def share_of_clear(
    ratio: float, *, gap: float = 0.0, repeats: int = 100, by_level: tuple[float, ...] = (1, 1, 1, 1)
) -> float:
    """Return how often one of two configurations, ``gap`` times the noise apart, is clear at a level.

    Args:
        ratio: Noise of one of them, in units of that of the other.
        gap: In the same units.
        repeats: Studies of four levels and three seeds.
        by_level: Noise of each level, in the same units; only the noisiest levels are counted.
    """
    at_level = TWO["level_flops"].map(dict(zip(LEVELS, by_level, strict=True))).to_numpy()
    counted = np.flatnonzero(np.array(by_level) == max(by_level))
    generator = np.random.default_rng(int(10 * ratio))
    first = (TWO["architecture"] == "ViT-X").to_numpy(bool)
    clear = []
    for _ in range(repeats):
        noise = NOISE * at_level * np.where(first, ratio, 1.0) * generator.standard_normal(len(TWO))
        results = TWO.assign(**{METRIC: 0.5 - np.where(first, 0.0, gap * NOISE) + noise})
        draws = cells_of(results, draws=500)
        levels = [places for _, places in draws.groups(["budget"])]
        clear += [
            judge(draws.draws[:, levels[level]], ("one", "other"), distance=np.ones(2)).kind == "clear"
            for level in counted
        ]
    return float(np.mean(clear))
