"""What a claim is made of: comparisons between cells of one slice of the measurements."""

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
"""A single evaluation set's rows have this before its name."""
PROBES = ("probe", "probe, other sets")
FEW_SHOT = ("5-shot", "10-shot")
RETRIEVAL = ("image to text", "text to image")
ONE_EPOCH, EQUAL = "one-epoch", "equal-samples"

Key = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One comparison: an effect in points that supports the claim when it is not negative.

    Attributes:
        value: In points of error.
        sd: Its standard deviation.
        at: Where it was made, in words.
    """

    value: float
    sd: float
    at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One statement.

    Attributes:
        name: Its id, as in ``claims.csv``.
        text: What is said.
        part: Which part of it, where parts have verdicts of their own.
        where: Section and figure.
        compare: A frame of `statement_frame` → the comparisons that it holds.
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


class Slice:
    """Rows of one group, metric and regime as error by (row, column), with the noise beside it.

    Args:
        frame: Of `statement_frame`.
        row: Column that labels rows, such as ``subset_size``.
        column: Column that labels columns, such as ``architecture``.
        where: Values to keep, by column. Where a regime compares at one budget, the largest is kept.
    """

    def __init__(self, frame: pd.DataFrame, row: str, column: str, **where: object) -> None:
        kept = frame
        for name, value in where.items():
            kept = kept[kept[name] == value]
        if where.get("regime") in (EQUAL, "fixed-compute") and len(kept):
            kept = kept[kept["budget"] == kept["budget"].max()]
        self._names = (row, column)
        self._metric = str(where.get("metric", ""))
        self.rows = sorted(set(kept[row]))
        self.columns = sorted(set(kept[column]))
        keys = zip(kept[row], kept[column], strict=True)
        self._cells: dict[Key, tuple[float, float]] = dict(
            zip(keys, zip(kept["error"], kept["sd"], strict=True), strict=True)
        )

    def has(self, *keys: Key) -> bool:
        """Whether all cells were measured."""
        return all(key in self._cells for key in keys)

    def gap(self, worse: Key, better: Key, slack: float = 0.0) -> list[Effect]:
        """Error of ``worse`` minus that of ``better`` plus a slack, or nothing when one was not measured."""
        if not self.has(worse, better):
            return []
        (high, high_sd), (low, low_sd) = self._cells[worse], self._cells[better]
        at = self._place(worse, better)
        return [Effect(value=high - low + slack, sd=float(np.hypot(high_sd, low_sd)), at=at)]

    def within(self, one: Key, other: Key, points: float) -> list[Effect]:
        """How far inside ``points`` the two lie of each other."""
        return [replace(gap, value=points - abs(gap.value)) for gap in self.gap(one, other)]

    def best(self, row: object, column: object, *, sign: float = 1.0, slack: float = 0.0) -> list[Effect]:
        """By how much a column has the lowest error of its row (highest, with ``sign`` −1)."""
        others = [name for name in self.columns if name != column and self.has((row, name))]
        if not others or not self.has((row, column)):
            return []
        nearest = min(others, key=lambda name: sign * self._cells[row, name][0])
        gap = self.gap((row, nearest), (row, column))[0]
        return [replace(gap, value=sign * gap.value + slack)]

    def _place(self, worse: Key, better: Key) -> str:
        """What both cells share, and how their rows differ."""
        shared = [self._metric] if self._metric not in ("", ZERO_SHOT) else []
        for name, before, after in zip(self._names, worse, better, strict=True):
            if before == after:
                shared.append(_text(name, before))
            elif name not in ("architecture", "strategy"):
                shared.append(f"{_text(name, before)} → {_text(name, after)}")
        return ", ".join(shared)

    def steps(self, column: object, *, upto: float = np.inf) -> list[tuple[Any, Any]]:
        """Neighbouring rows of a column, up to a largest one."""
        rows = [row for row in self.rows if row <= upto and self.has((row, column))]
        return list(pairwise(rows))

    def falls_by_row(self, *, upto: float = np.inf) -> list[Effect]:
        """The fall of each column from each row to the next."""
        return [
            effect
            for column in self.columns
            for low, high in self.steps(column, upto=upto)
            for effect in self.gap((low, column), (high, column))
        ]
