"""A simulated study of forty configurations, to look at pages and figures that have much to show."""

from itertools import product

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import stream
from analysis.cells.study_frames import StudyFrames
from tests.analysis.synthetic import GIGA, METRIC, frames_around, trial_row

ARCHITECTURES = {
    "ViT-Ti-8": 9e6, "ViT-Ti-4": 31e6, "ViT-S-8": 34e6, "ViT-S-4": 121e6, "ConvNeXt-N-4": 48e6,
}  # fmt: skip
"""Architecture → training FLOPs per sample under plain CLIP."""
STRATEGIES = {"clip": 1.0, "flip-50": 0.65}
"""Strategy → its cost per sample relative to plain CLIP."""
SIZES, QUALITIES = (4096, 16384), {"top40": 0.0, "all": 0.06}
LEVELS = tuple(200 * GIGA * 3.0**level for level in range(4))
SEEDS, NOISE = 2, 0.008


def true_error(size: int, quality: str, cost: int, samples: int) -> float:
    """Return the error without noise of a configuration that sees some samples at a cost per sample.

    Hoffmann et al. 2022, eq. 2, with pairs that are worth less the more often they are repeated.
    """
    useful = size * (1 - np.exp(-samples / (6 * size))) * 6
    return float(0.16 + QUALITIES[quality] + 40.0 * cost**-0.32 + 6.0 * useful**-0.34)


def forty_configurations() -> StudyFrames:
    """Return the frames of a whole grid: 5 architectures, 2 strategies, 2 sizes, 2 qualities, 4 levels."""
    generator, rows = stream("forty"), []
    grid = product(SIZES, QUALITIES, ARCHITECTURES, STRATEGIES, LEVELS, range(SEEDS))
    for size, quality, architecture, strategy, level, seed in grid:
        cost = round(ARCHITECTURES[architecture] * STRATEGIES[strategy])
        samples = 64 * int(level // (64 * cost))
        error = true_error(size, quality, cost, samples)
        row = trial_row((size, quality, "ViT-X", strategy), level, seed, 0.5)
        error = float(np.clip(error + NOISE * generator.standard_normal(), 0.01, 0.99))
        rows.append(row | {
            "trial": f"{architecture}-{strategy}-{quality}-{size}-{level / GIGA:g}G-s{seed}".lower(),
            "architecture": architecture, "train_flops": float(samples * cost),
            "train_flops_per_sample": cost, "samples_seen": samples, "epochs": samples / size,
            "steps": samples // 64, "parameters": round(cost / 40), "train_loss": 4.2 * error,
            METRIC: 1 - error, "style/top1": 0.5 * (1 - error),
        })  # fmt: skip
    return frames_around(pd.DataFrame(rows))
