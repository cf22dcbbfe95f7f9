"""Claims and their parts: comparisons between cells of one slice of the measurements."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.labels import count_text

M, B = 1e6, 1e9
ZERO_SHOT, VARIANTS = "zero-shot", "variants"
VARIANT = "variant: "
"""Prefix of the metric in rows of a single evaluation set."""
PROBES = ("probe", "probe, other sets")
FEW_SHOT = ("5-shot", "10-shot")
RETRIEVAL = ("image to text", "text to image")
ONE_EPOCH, EQUAL = "one-epoch", "equal-samples"

SliceKey = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One comparison: an effect that supports the claim when it is not negative.

    Attributes:
        value: Effect in points of error.
        sd: Standard deviation of ``value``.
        at: Cells of the comparison, in words.
    """

    value: float
    sd: float
    at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One claim of the paper.

    Attributes:
        name: Id in ``claims.csv``.
        text: The claim in one sentence.
        part: Part of the claim, if its parts have separate verdicts.
        where: Section and figure.
        compare: Function from a frame of `claim_frame` to its comparisons for the claim.
    """

    name: str
    text: str
    where: str
    compare: Callable[[pd.DataFrame], list[Effect]]
    part: str = ""


def _text(name: str, value: object) -> str:
    if name == "subset_size":
        return f"{count_text(float(str(value)))} pairs"
    if name == "epochs":
        return f"{value:.3g} epochs"
    return f"{value:.0%}" if name == "quality" else str(value)


def at_one_budget(cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the cells of one regime at the budget at which claims are tested.

    Under fixed compute this is the largest budget at which a column has two values to compare. At equal
    samples it is the budget with the most cells, the largest of several such: the very largest may have only
    a few cells, many epochs of the largest sets.
    """
    by_budget = cells.groupby("budget")[column]
    fixed = (cells["regime"] == "fixed-compute").any()
    rank = by_budget.nunique().clip(upper=2) if fixed else by_budget.size()
    best = float(rank[rank == rank.max()].index.max())
    return cells[cells["budget"] == best]


class Slice:
    """A table of errors and their noise, from the rows of one group, metric and regime.

    Args:
        frame: Frame of `claim_frame`.
        row: Column whose values label the rows, such as ``subset_size``.
        column: Column whose values label the columns, such as ``architecture``.
        where: Column → value to keep. In regimes that compare at one budget, only `at_one_budget` is kept.
    """

    def __init__(self, frame: pd.DataFrame, row: str, column: str, **where: object) -> None:
        here = np.ones(len(frame), dtype=bool)
        for name, value in where.items():
            here &= (frame[name] == value).to_numpy(bool)
        kept = frame[here]
        if where.get("regime") in (EQUAL, "fixed-compute"):
            kept = at_one_budget(kept, column)
        self._names = (row, column)
        self._metric = str(where.get("metric", ""))
        self.rows = sorted(set(kept[row]))
        self.columns = sorted(set(kept[column]))
        keys = zip(kept[row], kept[column], strict=True)
        self._cells: dict[SliceKey, tuple[float, float]] = dict(
            zip(keys, zip(kept["error"], kept["sd"], strict=True), strict=True)
        )

    def has(self, *keys: SliceKey) -> bool:
        """Return whether all cells were measured."""
        return all(key in self._cells for key in keys)

    def gap(self, worse: SliceKey, better: SliceKey, slack: float = 0.0) -> list[Effect]:
        """Return error of ``worse`` − error of ``better`` + slack; empty if one was not measured."""
        if not self.has(worse, better):
            return []
        (high, high_sd), (low, low_sd) = self._cells[worse], self._cells[better]
        at = self._place(worse, better)
        return [Effect(value=high - low + slack, sd=float(np.hypot(high_sd, low_sd)), at=at)]

    def within(self, one: SliceKey, other: SliceKey, points: float) -> list[Effect]:
        """Return ``points`` minus the absolute difference of two cells' errors."""
        return [replace(gap, value=points - abs(gap.value)) for gap in self.gap(one, other)]

    def best(self, row: object, column: object, *, sign: float = 1.0, slack: float = 0.0) -> list[Effect]:
        """Return how far a column lies below the lowest other of its row (``sign`` −1: above the highest)."""
        others = [name for name in self.columns if name != column and self.has((row, name))]
        if not others or not self.has((row, column)):
            return []
        nearest = min(others, key=lambda name: sign * self._cells[row, name][0])
        gap = self.gap((row, nearest), (row, column))[0]
        return [replace(gap, value=sign * gap.value + slack)]

    def leads(
        self, column: object, *, low: float = 0.0, high: float = np.inf, sign: float = 1.0, slack: float = 0.0
    ) -> list[Effect]:
        """Return `best` of a column in each row from ``low`` to ``high``."""
        rows = [row for row in self.rows if low <= row <= high]
        return [effect for row in rows for effect in self.best(row, column, sign=sign, slack=slack)]

    def gaps(self, worse: object, better: object, *, low: float = 0.0, high: float = np.inf) -> list[Effect]:
        """Return the `gap` of two columns in each row from ``low`` to ``high``."""
        rows = [row for row in self.rows if low <= row <= high]
        return [effect for row in rows for effect in self.gap((row, worse), (row, better))]

    def _place(self, worse: SliceKey, better: SliceKey) -> str:
        """Return what both cells share and how their rows differ, in words."""
        shared = [self._metric] if self._metric not in ("", ZERO_SHOT) else []
        for name, before, after in zip(self._names, worse, better, strict=True):
            if before == after:
                shared.append(_text(name, before))
            elif name not in ("architecture", "strategy"):
                shared.append(f"{_text(name, before)} → {_text(name, after)}")
        return ", ".join(shared)

    def steps(self, column: object, *, upto: float = np.inf) -> list[tuple[Any, Any]]:
        """Return pairs of neighbouring rows of a column, up to a largest row."""
        rows = [row for row in self.rows if row <= upto and self.has((row, column))]
        return list(pairwise(rows))

    def falls_by_row(self, *, upto: float = np.inf) -> list[Effect]:
        """Return the fall of each column from each row to the next."""
        return [
            effect
            for column in self.columns
            for low, high in self.steps(column, upto=upto)
            for effect in self.gap((low, column), (high, column))
        ]
