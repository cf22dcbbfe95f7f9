"""Outliers (``analysis.belief.outlying``), by trial and in words."""

from collections.abc import Mapping

import pandas as pd

from analysis.belief.family import Family
from analysis.cells.table import CELL, Trials, records
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, configuration_text
from budgets.quantity import format_number
from runners.results import PHASE, TRUNK

_RUN = ("trial", *CELL, "seed", "error", PHASE)
_COLUMNS = (*_RUN, "miss", "deviation", "deviations")
_NAMED = 3


def outliers(families: Mapping[str, Family], trials: Trials) -> pd.DataFrame:
    """Return the outliers, the farthest first.

    Returns:
        One row per run or trunk state: ``trial``, the columns of ``CELL``, ``seed``, ``error``, ``phase``;
        ``miss``, the error minus what the law and all other runs predict, with its standard ``deviation``,
        and the number of ``deviations``. None if no noise is known.
    """
    rows = []
    for row in records(trials.every.reindex(columns=[*_RUN])):
        family = families[row["regime"]]
        curve, point = family.place_of[row["trial"]]
        run = curve, int((family.measured.errors[curve, :, point] == row["error"]).argmax()), point
        if family.source != "none" and family.belief.aside[run]:
            miss, far = float(family.belief.miss[run]), float(family.belief.far[run])
            rows.append(row | {"miss": miss, "deviation": abs(miss) / far, "deviations": far})
    outlying = pd.DataFrame(rows, columns=[*_COLUMNS])
    return outlying.sort_values("deviations", ascending=False, ignore_index=True)


def outlier_lines(outlying: pd.DataFrame, unit: ErrorUnit) -> tuple[str, ...]:
    """Return a line on each of the first outliers, and one on their number if there are more."""
    lines = [
        f"{row['trial']} stands out ({configuration_text(row)} at {budget_text(row['regime'], row['budget'])}"
        f"{', trunk' if row[PHASE] == TRUNK else ''}): {unit.named(row['error'])}, "
        f"{unit.gap(abs(row['miss']))} {'above' if row['miss'] > 0 else 'below'} the "
        f"{unit.text(row['error'] - row['miss'])} that all other runs predict "
        f"({format_number(row['deviations'], '.0f')} standard deviations)"
        for row in records(outlying.head(_NAMED))
    ]
    more = len(outlying) - len(lines)
    return (*lines, *([f"{more} more outliers; the report lists them"] if more > 0 else []))
