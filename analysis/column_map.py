"""Anyone's table → the results schema, by a map that says what each column is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.table import CELL, NUMBERS, TEXT, is_loss
from budgets.names import unknown

Floats = NDArray[np.float64]

REQUIRED = ("regime", "subset_size", "quality", "architecture", "strategy", "samples_seen", "train_flops")
OPTIONAL = (
    "level_flops", "seed", "train_flops_per_sample", "evaluation_flops", "epochs", "parameters", "train_loss",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What one column of the results schema is made of.

    Attributes:
        source: Column of the table; None for a constant.
        value: The constant.
        times: Factor of a number.
        by: A column that a number is multiplied by.
        over: A column that a number is divided by.
        names: Values of the table → values of the schema; a value that is not named here is an error.
    """

    source: str | None = None
    value: str = ""
    times: float = 1.0
    by: str | None = None
    over: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnMap:
    """How a table is read.

    Attributes:
        title: What the table is and where it comes from.
        rows: Which rows are read: the values that a column may have, by column; all others are left aside.
        columns: By name of the results schema: all of ``REQUIRED``, any of ``OPTIONAL``.
        metric: ``<evaluation set>/<metric>`` of the study; one that ends with ``/loss`` is lower-better and
            no fraction.
        metric_column: What it is made of.
        better: Which way the table's metric is better; a lower-better fraction becomes 1 − itself.
        images: Evaluation images or texts behind the metric; 0 when unknown.
    """

    title: str
    rows: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, Column]
    metric: str
    metric_column: Column
    better: Literal["higher", "lower"]
    images: int = 0


def import_table(table: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """Reads a table into the results schema, one row a trial.

    A row without a finite number where one is needed, and the second of two equal rows, becomes a failed
    trial with the reason: it is counted and reported, not fitted.

    Raises:
        ValueError: The map lacks a column or names an unknown one; the table lacks a column that the map
            reads, or no row is left.
    """
    for name in REQUIRED:
        if name not in how.columns:
            raise ValueError(f"the column map lacks '{name}'; needed: {', '.join(REQUIRED)}")
    for name in how.columns:
        if name not in (*REQUIRED, *OPTIONAL):
            raise ValueError(unknown("column of the results schema", name, (*REQUIRED, *OPTIONAL)))
    kept = _select(table, how.rows)
    found = {name: _column(kept, name, column) for name, column in how.columns.items()}
    frame = pd.DataFrame(found, index=kept.index)
    value = _numbers(kept, how.metric_column, how.metric)
    frame[how.metric] = 1.0 - value if how.better == "lower" and not is_loss(how.metric) else value
    if how.images:
        frame[f"{how.metric.rpartition('/')[0]}/count"] = float(how.images)
    return _complete(frame.reset_index(drop=True), how)


def _select(table: pd.DataFrame, rows: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    kept = table
    for name, allowed in rows.items():
        _check(table, name)
        texts = kept[name].map(_text)
        there = sorted(set(texts))
        kept = kept[texts.isin(allowed)]
        if kept.empty:
            raise ValueError(f"no row has {name} {' or '.join(allowed)}; there: {', '.join(there[:20])}")
    return kept


def _column(table: pd.DataFrame, name: str, column: Column) -> NDArray[np.generic]:
    if name not in TEXT:
        return _numbers(table, column, name)
    if column.source is None:
        return np.full(len(table), column.value, dtype=object)
    _check(table, column.source)
    return np.array([_named(value, column, name) for value in table[column.source]], dtype=object)


def _numbers(table: pd.DataFrame, column: Column, name: str) -> Floats:
    if column.source is None:
        values = np.full(len(table), float(column.value))
    else:
        _check(table, column.source)
        listed = table[column.source].tolist()
        if column.names:
            listed = [_named(value, column, name) for value in listed]
        try:
            values = np.array([np.nan if value is None else float(value) for value in listed])
        except (TypeError, ValueError) as error:
            raise ValueError(f"column '{column.source}' must hold numbers for {name}: {error}") from None
    values = values * column.times
    for other, power in ((column.by, 1), (column.over, -1)):
        if other is not None:
            values = values * _numbers(table, Column(source=other), name) ** power
    return np.asarray(values, dtype=np.float64)


def _named(value: object, column: Column, name: str) -> str:
    text = _text(value)
    if column.names and text not in column.names:
        raise ValueError(f"column '{column.source}': " + unknown(f"{name} of the map", text, column.names))
    return column.names.get(text, text)


def _text(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, (int, float)) else str(value)


def _check(table: pd.DataFrame, name: str) -> None:
    if name not in table:
        raise ValueError(unknown("column", name, map(str, table.columns)))


def _complete(frame: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """What can be derived is, what is unknown is NaN, and rows that cannot be fitted get their reason."""
    frame["epochs"] = frame.get("epochs", frame["samples_seen"] / frame["subset_size"])
    frame["train_flops_per_sample"] = frame.get(
        "train_flops_per_sample", frame["train_flops"] / frame["samples_seen"]
    )
    for name, value in (("seed", 0.0), ("evaluation_flops", 0.0)):
        frame[name] = frame.get(name, pd.Series(value, index=frame.index))
    for name in NUMBERS:
        frame[name] = frame.get(name, pd.Series(np.nan, index=frame.index))
    reasons = pd.Series("", index=frame.index, dtype=object)
    level = frame["level_flops"].where(frame["regime"] == "fixed-compute", frame["samples_seen"])
    needed = {"subset_size": frame["subset_size"], "train_flops": frame["train_flops"], "level": level}
    for name, values in needed.items():
        bad = ~(np.isfinite(values) & (values > 0)) & (reasons == "")
        reasons[bad] = f"{name} is not a finite number above zero"
    identity = [name for name in (*CELL, "seed") if name != "budget"]
    again = frame.duplicated([*identity, "samples_seen", "train_flops", how.metric]) & (reasons == "")
    reasons[again] = "the same row stands in the table twice"
    frame["status"] = np.where(reasons == "", "finished", "failed")
    frame["reason"] = reasons
    frame["trial"] = [f"row-{place + 1}" for place in range(len(frame))]
    return frame
