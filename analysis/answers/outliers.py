"""Outliers (``analysis.belief.outlying``), by trial and in words."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.belief.family import Family
from analysis.belief.verdict import named
from analysis.cells.table import CELL, CONFIGURATION, Trials, records
from analysis.error_unit import ErrorUnit
from analysis.labels import axis_text, budget_text, configuration_text
from budgets.quantity import format_number
from runners.results import PHASE, TRUNK

_RUN = ("trial", *CELL, "seed", "error", PHASE)
_COLUMNS = (*_RUN, "miss", "deviation", "deviations")
_LEVEL = ["regime", "budget"]
_PARTS = (_LEVEL, *([name] for name in CONFIGURATION))
_NAMED = 3


def outliers(families: Mapping[str, Family], trials: Trials) -> pd.DataFrame:
    """Return the outliers, the farthest first.

    Returns:
        One row per run or trunk state: ``trial``, the columns of ``CELL``, ``seed``, ``error``, ``phase``;
        ``miss``, the error minus what the law and all other runs predict, with its standard ``deviation``,
        the number of ``deviations``, and what it ``shares`` with other outliers, in words. None if no noise
        is known.
    """
    rows = []
    for row in records(trials.every.reindex(columns=[*_RUN])):
        family = families[row["regime"]]
        curve, point = family.place_of[row["trial"]]
        run = curve, int((family.measured.errors[curve, :, point] == row["error"]).argmax()), point
        if family.source != "none" and family.belief.aside[run]:
            miss, far = float(family.belief.miss[run]), float(family.belief.far[run])
            rows.append(row | {"miss": miss, "deviation": abs(miss) / far, "deviations": far})
    outlying = pd.DataFrame(rows, columns=[*_COLUMNS]).sort_values(
        "deviations", ascending=False, ignore_index=True
    )
    return outlying.assign(shares=_shares(outlying, trials.every))


def _shares(outlying: pd.DataFrame, every: pd.DataFrame) -> list[str]:
    """Return the level and parts that each outlier shares with others on the same side, in words.

    Only those count that at most half of all runs have. What most of them share is taken first, and each
    outlier but once.
    """
    rows, texts, left = (
        records(outlying),
        [""] * len(outlying),
        outlying.assign(side=np.sign(outlying["miss"])),
    )
    usual = [every.groupby(part)["trial"].transform("size").gt(len(every) / 2) for part in _PARTS]
    rare = [~left["trial"].isin(every["trial"][of]) for of in usual]
    while len(left):
        groups = [
            group
            for part, of in zip(_PARTS, rare, strict=True)
            for _, group in left[of.loc[left.index]].groupby([*part, "side"])
        ]
        most = max(groups, key=len, default=left[:0])
        if len(most) <= 1:
            break
        same = [
            part for part, of in zip(_PARTS, rare, strict=True) if of[most.index[0]] and _alike(most, part)
        ]
        for place in most.index:
            texts[place] = _shared_text(rows[place], same)
        left = left.drop(index=most.index)
    return texts


def _alike(rows: pd.DataFrame, part: list[str]) -> bool:
    return len(rows[part].drop_duplicates()) == 1


def _shared_text(row: Mapping[str, Any], same: list[list[str]]) -> str:
    parts = ", ".join(axis_text(part[0], row[part[0]]) for part in same if part != _LEVEL)
    level = f"at {budget_text(row['regime'], row['budget'])}" if _LEVEL in same else ""
    return " ".join(filter(None, [parts and f"of {parts}", level]))


def outlier_lines(outlying: pd.DataFrame, unit: ErrorUnit) -> tuple[str, ...]:
    """Return a line on each of the first outliers, or on those that share something, and one on the rest."""
    # Of those that share something only one may be among these, which then speaks for itself.
    alone = ~outlying.duplicated("shares", keep=False) | outlying["shares"].eq("")
    groups = outlying.groupby(outlying["shares"].where(~alone, outlying["trial"]), sort=False)
    lines = [line for _, rows in groups for line in _lines(rows, unit)][:_NAMED]
    more = len(outlying) - sum(len(rows) for _, rows in [*groups][:_NAMED])
    return (*lines, *([f"{more} more outliers; the report lists them"] if more > 0 else []))


def _lines(rows: pd.DataFrame, unit: ErrorUnit) -> Iterator[str]:
    first, side = records(rows)[0], "above" if rows["miss"].iloc[0] > 0 else "below"
    if len(rows) == 1:
        yield (
            f"{first['trial']} stands out ({configuration_text(first)} at "
            f"{budget_text(first['regime'], first['budget'])}{', trunk' if first[PHASE] == TRUNK else ''}): "
            f"{unit.named(first['error'])}, {unit.gap(abs(first['miss']))} {side} the "
            f"{unit.text(first['error'] - first['miss'])} that all other runs predict "
            f"({format_number(first['deviations'], '.0f')} standard deviations)"
        )
    else:
        low, high = rows["miss"].abs().min(), rows["miss"].abs().max()
        yield (
            f"{len(rows)} runs {first['shares']} stand out: {unit.number(low)} to {unit.gap(high)} {side} "
            f"what all other runs predict ({named(rows['trial'].tolist())})"
        )
