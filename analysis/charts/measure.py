"""One measure of the cells of a table: their errors by it, and the laws of their curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.curves import X_COLUMNS
from analysis.cells.table import tidy
from analysis.laws.laws import Law, laws


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """What a figure draws of one metric.

    Attributes:
        metric: ``<evaluation set>/<metric>``.
        draws: The cells with their errors by it.
        laws: Of the curves through these cells, where the figure draws curves.
    """

    metric: str
    draws: CellDraws
    laws: Sequence[Law] = ()


def measure(results: pd.DataFrame, metric: str, *, question: str) -> Measure:
    """Reads one metric of a table and fits every law.

    Args:
        results: In the results schema; trials without the metric are left aside.
        metric: One of its columns.
        question: Names the random stream, see ``bootstrap.cell_draws``.
    """
    draws = cell_draws(tidy(results, metric=metric), question=question)
    fitted = tuple(law for along in X_COLUMNS for law in laws(draws, along=along))
    return Measure(metric=metric, draws=draws, laws=fitted)
