"""Published and simulated runs of language models as cells."""

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.cells.table import tidy


def language_models(frame: pd.DataFrame, *, seeds: int = 1, draws: int = 1000) -> CellDraws:
    """Return cells from columns of parameters, tokens and loss, each token seen once."""
    compute = 6.0 * frame["parameters"] * frame["tokens"]
    rows = pd.DataFrame({
        "trial": [f"row-{place}" for place in range(len(frame))], "regime": "one-epoch",
        "subset_size": frame["tokens"], "quality": "all", "strategy": "language-model",
        "architecture": [f"transformer-{size:.6g}" for size in frame["parameters"]],
        "level_flops": np.nan, "seed": np.arange(len(frame)) % seeds, "train_flops": compute,
        "train_flops_per_sample": 6.0 * frame["parameters"], "evaluation_flops": 0.0,
        "samples_seen": frame["tokens"], "epochs": 1.0, "parameters": frame["parameters"].astype(float),
        "train_loss": frame["loss"], "status": "finished", "reason": "", "text/loss": frame["loss"],
    })  # fmt: skip
    return cell_draws(tidy(rows, metric="text/loss"), draws=draws)
