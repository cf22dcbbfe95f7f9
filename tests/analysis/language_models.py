"""Published and simulated runs of language models as cells, and their scaling exponents."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.table import records, tidy
from analysis.laws.surface_forecast import family_surfaces
from analysis.sizes.scaling_exponents import growths, scaling_exponents


def language_models(frame: pd.DataFrame, *, seeds: int = 1, metric: str = "text/loss") -> CellDraws:
    """Return cells from columns of parameters, tokens and loss, each token seen once."""
    compute = 6.0 * frame["parameters"] * frame["tokens"]
    rows = pd.DataFrame({
        "trial": [f"row-{place}" for place in range(len(frame))], "regime": "one-epoch",
        "subset_size": frame["tokens"], "quality": "all", "strategy": "language-model",
        "architecture": [f"transformer-{size:.6g}" for size in frame["parameters"]],
        "level_flops": np.nan, "seed": np.arange(len(frame)) % seeds, "train_flops": compute,
        "train_flops_per_sample": 6.0 * frame["parameters"], "evaluation_flops": 0.0,
        "samples_seen": frame["tokens"], "epochs": 1.0, "parameters": frame["parameters"].astype(float),
        "train_loss": frame["loss"], "status": "finished", "reason": "", metric: frame["loss"],
    })  # fmt: skip
    return cell_draws(tidy(rows, metric=metric), question="laws")


def found_in(draws: CellDraws) -> pd.DataFrame:
    """Return the exponents of all approaches."""
    return scaling_exponents(growths(draws, family_surfaces(draws)))


def exponents_of(what: str, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of N or D by approach."""
    return {str(row["approach"]): row for row in records(table[table["what"] == what])}
