"""The runs that stand out (``analysis.belief.outlying``), by trial and in words."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from analysis.belief.family import Family
from analysis.cells.intervals import QUANTILE
from analysis.cells.table import CELL, Trials, records
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, configuration_text

_COLUMNS = ("trial", *CELL, "seed", "error", "expected", "low", "high", "miss", "deviations")
_NAMED = 3


def outliers(families: Mapping[str, Family], trials: Trials) -> pd.DataFrame:
    """Return the runs that stand out, the farthest first.

    Returns:
        One row per run: ``trial``, the columns of ``CELL``, ``seed``, ``error``; ``expected``, what the law
        and all other runs predict, and the 90 % interval of a run, ``low`` to ``high``; ``miss``, the
        difference; and ``deviations``, that in standard deviations. None if no noise is known.
    """
    rows = []
    for row in records(trials.frame[["trial", *CELL, "seed", "error"]]):
        family = families[row["regime"]]
        curve, point = family.place_of[row["trial"]]
        run = curve, int((family.measured.errors[curve, :, point] == row["error"]).argmax()), point
        if family.source != "none" and family.belief.aside[run]:
            miss, reach = float(family.belief.miss[run]), QUANTILE * float(family.belief.deviation[run])
            expected = row["error"] - miss
            rows.append(row | {
                "expected": expected, "low": expected - reach, "high": expected + reach, "miss": miss,
                "deviations": float(family.belief.far[run]),
            })  # fmt: skip
    found = pd.DataFrame(rows, columns=[*_COLUMNS])
    return found.sort_values("deviations", ascending=False, ignore_index=True)


def outlier_lines(found: pd.DataFrame, unit: ErrorUnit) -> tuple[str, ...]:
    """Return a line on each of the first runs that stand out, and one on their number if there are more."""
    lines = [outlier_text(row, unit) for row in records(found.head(_NAMED))]
    more = len(found) - len(lines)
    return (*lines, *([f"{more} more stand out; the report lists them"] if more > 0 else []))


def outlier_text(row: Mapping[str, Any], unit: ErrorUnit) -> str:
    """Return what stands out of a run: its cell, its error and what was expected."""
    cell = f"{configuration_text(row)} at {budget_text(row['regime'], row['budget'])}"
    off = f"{unit.gap(abs(row['miss']))} {'above' if row['miss'] > 0 else 'below'}"
    return (
        f"{row['trial']} stands out ({cell}): {unit.named(row['error'])}, {off} the "
        f"{unit.text(row['expected'])} that all other runs predict "
        f"({row['deviations']:.0f} standard deviations)"
    )
