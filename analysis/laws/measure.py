"""One measure of a study: the errors of its cells by one metric, and the laws of their curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.curves import X_COLUMNS
from analysis.cells.table import tidy
from analysis.laws.laws import Law, laws


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """The data of one metric that figures draw.

    Attributes:
        metric: ``<evaluation set>/<metric>``.
        draws: Cells with their errors by the metric.
        laws: Laws of the curves through these cells; empty for figures without curves.
    """

    metric: str
    draws: CellDraws
    laws: Sequence[Law] = ()

    def along(self, along: str) -> list[Law]:
        """Return the laws along ``compute`` or ``data``."""
        return [law for law in self.laws if law.along == along]


def measure(results: pd.DataFrame, metric: str, *, question: str) -> Measure:
    """Read one metric of a results table and fit every law.

    Args:
        results: Results in the results schema; trials without the metric are excluded.
        metric: Column of the metric.
        question: Name of the random stream, see ``bootstrap.cell_draws``.
    """
    draws = cell_draws(tidy(results, metric=metric), question=question)
    fitted = tuple(law for along in X_COLUMNS for law in laws(draws, along=along))
    return Measure(metric=metric, draws=draws, laws=fitted)
