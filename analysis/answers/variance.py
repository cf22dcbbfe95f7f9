"""What matters most: the shares of the variance of error that the parts of the configuration explain.

At each budget, in each draw of the cells' true errors, an additive model with an effect of each value of each
part is fitted by least squares. The share of a part is what it adds to R², averaged over all orders in which
the parts can enter (Lindeman, Merenda and Gold 1980), because in an unbalanced design the order counts. The
rest is what the parts do together: their interactions.
"""

from itertools import combinations
from math import factorial

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws
from analysis.cells.intervals import column_intervals
from analysis.cells.table import CONFIGURATION

TOGETHER = "together"
"""Value of ``part`` for the interactions."""


def variance_shares(draws: CellDraws) -> pd.DataFrame:
    """Return the share of each part that differs between the cells of a budget, and of the parts together.

    Returns:
        One row per budget and part: ``regime``, ``budget``, ``cells`` (number), ``deviation`` (of the cells'
        errors, a fraction), ``part`` (a column of ``CONFIGURATION``, or ``TOGETHER``), ``share`` of the
        variance (median of the draws), ``low`` and ``high``, NaN without draws. What parts do together is NaN
        where the additive model has as many effects as there are cells. Budgets whose cells differ in fewer
        than two parts, or have equal errors, have no rows.
    """
    errors = draws.draws if draws.known else draws.column("error")[None, :]
    rows = []
    for (regime, budget), places in draws.groups(["regime", "budget"]):
        group = draws.cells.iloc[places]
        parts = [name for name in CONFIGURATION if len(group[name].unique()) > 1]
        if len(parts) < 2 or not np.ptp(errors[:, places], axis=1).any():  # noqa: PLR2004 (shares are shared by two)
            continue
        codes = np.array([pd.factorize(group[name])[0] for name in parts])
        shapley = shares(errors[:, places], codes)
        low, high = column_intervals(shapley) if draws.known else np.full((2, len(parts) + 1), np.nan)
        deviation = float(np.median(errors[:, places].std(axis=1)))
        rows += [
            {
                "regime": regime, "budget": budget, "cells": len(places), "deviation": deviation,
                "part": part, "share": share, "low": below, "high": above,
            }
            for part, share, below, above in zip(
                [*parts, TOGETHER], np.median(shapley, axis=0), low, high, strict=True
            )
        ]  # fmt: skip
    names = ["regime", "budget", "cells", "deviation", "part", "share", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def shares(errors: Floats, codes: Floats) -> Floats:
    """Return the shares of the variance of errors (draws, cells) by parts (parts, cells), values as numbers.

    Returns:
        Shape (draws, parts + 1), the interactions last, NaN if the cells leave no degree of freedom for them.
    """
    count, cells = codes.shape
    apart = errors - errors.mean(axis=1, keepdims=True)
    total = np.maximum((apart**2).sum(axis=1), np.finfo(float).tiny)
    explained: dict[tuple[int, ...], Floats] = {(): np.zeros(len(errors))}
    rank = 0
    for size in range(1, count + 1):
        for some in combinations(range(count), size):
            effects = np.concatenate([codes[part] == np.unique(codes[part])[:, None] for part in some])
            basis, values, _ = np.linalg.svd((effects - effects.mean(axis=1, keepdims=True)).T)
            rank = int((values > values.max() * cells * np.finfo(float).eps).sum())
            explained[some] = ((apart @ basis[:, :rank]) ** 2).sum(axis=1) / total
    shapley = np.zeros((len(errors), count + 1))
    for some, before in explained.items():
        orders = factorial(len(some)) * factorial(count - len(some) - 1) if len(some) < count else 0
        for part in set(range(count)) - set(some):
            after = explained[tuple(sorted((*some, part)))]
            shapley[:, part] += (after - before) * orders / factorial(count)
    shapley[:, count] = 1 - explained[tuple(range(count))] if rank + 1 < cells else np.nan
    return shapley
