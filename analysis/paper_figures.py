"""The report's figures of somebody else's tables: those of "Scaling (Down) CLIP", as it was digitised."""

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis import compute_figures, run_figures, size_figures, worth_figures
from analysis.bootstrap import cell_draws
from analysis.equivalence import equivalences
from analysis.figure_data import FigureData, Missing
from analysis.frontier import frontier
from analysis.laws import X_COLUMNS, laws
from analysis.table import tidy

PARTS: Mapping[str, Sequence[str]] = {
    "one epoch": ("paper-one-epoch",),
    "models": ("paper-one-epoch", "paper-equal-samples"),
    "strategies": ("paper-strategies",),
    "quality": ("paper-quality",),
}
"""Part of the paper → column maps that read its figures. Two parts may hold the same cell, one does not."""


def paper_figures(tables: Mapping[str, pd.DataFrame], *, metric: str) -> tuple[FigureData | Missing, ...]:
    """The figures in the order of the report.

    Args:
        tables: Column map → what it read, in the results schema; all maps of ``PARTS``.
        metric: Of all of them.
    """
    draws, fitted = {}, {}
    for part, maps in PARTS.items():
        parts = [tables[name].assign(trial=name + "-" + tables[name]["trial"].astype(str)) for name in maps]
        trials = tidy(pd.concat(parts, ignore_index=True), metric=metric)
        draws[part] = cell_draws(trials, question=f"paper/{part}")
        fitted[part] = tuple(law for along in X_COLUMNS for law in laws(draws[part], along=along))
    compute = [law for law in fitted["one epoch"] if law.along == "compute"]
    data = [law for law in fitted["strategies"] if law.along == "data"]
    worth = equivalences(draws["strategies"], fitted["strategies"], along="data")
    return (
        compute_figures.over_compute(
            draws["one epoch"], compute, frontier(draws["one epoch"]), axis="architecture", metric=metric
        ),
        size_figures.over_data(draws["strategies"], data, metric=metric),
        size_figures.by_architecture(draws["models"], fitted["models"], metric=metric),
        run_figures.quality_trade(draws["quality"], metric=metric),
        worth_figures.equivalence(draws["strategies"], worth, along="data"),
    )
