"""Import of any table into the results schema, by a map that defines each column."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype

from analysis.arrays import Floats
from analysis.cells.study_frames import TUNED_COLUMN
from analysis.cells.sweeps import choose
from analysis.cells.table import CELL, NUMBERS, READING_ERROR, REGIMES, TEXT, levels
from analysis.error_unit import is_loss
from analysis.labels import quality_fraction
from budgets.names import unknown
from budgets.quantity import parse_quantity
from runners.data.build.table_file import MISSING

REQUIRED = ("regime", "subset_size", "quality", "architecture", "strategy", "samples_seen", "train_flops")
OPTIONAL = (
    "level_flops", "seed", "batch_size", "train_flops_per_sample", "evaluation_flops", "epochs", "parameters",
    "train_loss",
)  # fmt: skip
_PERCENT = 100.0
_ONE_EPOCH = 0.1
"""Largest share of its pairs that a trial of one epoch may see again, or not see."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Definition of one column of the results schema.

    Attributes:
        source: Column of the table; None for a constant.
        value: The constant.
        times: Factor that numbers are multiplied by.
        by: Column that numbers are multiplied by.
        over: Column that numbers are divided by.
        names: Values of the table → values of the schema; any other value is an error.
    """

    source: str | None = None
    value: str = ""
    times: float = 1.0
    by: str | None = None
    over: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnMap:
    """Definition of how a table is read.

    Attributes:
        title: Name and origin of the table.
        rows: Selected rows: column → allowed values. All other rows are dropped.
        columns: Column of the results schema → its definition: all of ``REQUIRED``, any of ``OPTIONAL``.
        metric: ``<evaluation set>/<metric>`` of the study. A metric that ends with ``/loss`` is better when
            lower and need not be a fraction.
        metric_column: Definition of the metric.
        better: Direction in which the table's metric is better; a fraction that is better when lower becomes
            1 − itself.
        images: Number of evaluation images or texts behind the metric, or its column; 0 when unknown.
        reading_error: Standard deviation with which the metric was read off a figure, in its own unit.
        sweep: Hyper-parameters that the runs of a cell differ in → their definitions; without any, a cell's
            runs are seeds.
        mean: Take the mean of a sweep instead of its best run.
        run: Column that names the run of a row, in a log with several rows a run.
        take: Rows of each run that are read, of those with a metric: the last one, the best one, or each, as
            checkpoints of one run, which share its noise.
        where: Part of the map (``columns.NAME``, ``rows.NAME``) → its file and line, for error messages.
    """

    title: str
    rows: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, Column]
    metric: str
    metric_column: Column
    better: Literal["higher", "lower"]
    images: int | Column = 0
    reading_error: Column | None = None
    sweep: Mapping[str, Column] = field(default_factory=dict)
    mean: bool = False
    run: str | None = None
    take: Literal["last", "best", "each"] = "last"
    where: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str) -> str:
        """Return the file and line of a part of the map, as a prefix of an error message."""
        return f"{self.where[name]}: " if name in self.where else ""


def import_table(table: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """Read a table into the results schema, as `import_sweeps`, which also tells what was tried."""
    return import_sweeps(table, how)[0]


def import_sweeps(table: pd.DataFrame, how: ColumnMap) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a table into the results schema, and reduce sweeps to a trial per cell and seed (`sweeps.choose`).

    Each trial is named after its row in the table (``row-1``); ``line`` is the row's place in the file, if
    the table is indexed by places.

    A row without a required name or number, and the second of two equal rows, become failed trials with a
    reason: they are counted and reported, but not fitted. Under fixed compute a missing level follows from
    the FLOPs, see `table.budgets`; in the one-epoch regime the pairs are rounded to their level likewise.

    Returns:
        The results, and what was tried in each cell; empty if the map has no sweep.

    Raises:
        ValueError: The table lacks a column that the map reads, a value cannot be read, or no row is
            selected.
    """
    table = table.reset_index(drop=True) if is_integer_dtype(table.index) else table
    selected = (_unselected(table, how) == "").to_numpy()
    rows = table[selected]
    frame = pd.DataFrame(index=rows.index)
    for name, column in how.columns.items():
        read = _names if name in TEXT else _numbers
        frame[name] = read(rows, column, name, how.at(f"columns.{name}"))
    value = _numbers(rows, how.metric_column, how.metric, how.at("metric"))
    _check_metric(value, rows, how)
    frame[how.metric] = 1.0 - value if how.better == "lower" and not is_loss(how.metric) else value
    evaluated = how.metric.rpartition("/")[0]
    if how.images:
        images = how.images if isinstance(how.images, Column) else Column(value=str(how.images))
        count = _numbers(rows, images, "images", how.at("images"))
        _check_known(f"{how.at('images')}the number of images", count, value, rows, least=1)
        frame[f"{evaluated}/count"] = count
    if how.reading_error is not None:
        error = _numbers(rows, how.reading_error, READING_ERROR, how.at(READING_ERROR))
        _check_known(f"{how.at(READING_ERROR)}the reading error", error, value, rows, least=0)
        frame[f"{evaluated}/{READING_ERROR}"] = error
    for name, column in how.sweep.items():
        frame[f"{TUNED_COLUMN}{name}"] = _setting(rows, name, column, how.at(f"sweep.{name}"))
    if how.run is not None and how.take == "each":
        frame["trunk"] = [_name_text(value) for value in rows[how.run]]
    frame["trial"] = [f"row-{place + 1}" for place in np.flatnonzero(selected)]
    frame["line"] = [_line(rows, place) for place in range(len(rows))]
    results = complete(frame.reset_index(drop=True), how)
    return choose(results, metric=how.metric, mean=how.mean) if how.sweep else (results, pd.DataFrame())


def unselected(table: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """Return the rows that a map does not select: ``trial`` (``row-7``), ``line`` and ``reason``."""
    reasons = _unselected(table, how).to_numpy()
    rows = [(f"row-{place + 1}", _line(table, place)) for place in range(len(table))]
    frame = pd.DataFrame(rows, columns=["trial", "line"]).assign(reason=reasons)
    return frame[frame["reason"] != ""].reset_index(drop=True)


def _line(table: pd.DataFrame, place: int) -> str:
    label = table.index[place]
    return label if isinstance(label, str) else f"row {label + 1}"


def _setting(table: pd.DataFrame, name: str, column: Column, at: str) -> NDArray[np.generic]:
    """Read a hyper-parameter: numbers if all of its values are, else names."""
    try:
        return _numbers(table, column, name, at)
    except ValueError:
        if column.times != 1 or column.by or column.over:
            raise
        return _names(table, column, name, at)


def _unselected(table: pd.DataFrame, how: ColumnMap) -> "pd.Series[str]":
    """Return why each row is not selected; empty for selected rows."""
    reasons = pd.Series("", index=table.index, dtype=object)
    for name, allowed in how.rows.items():
        _check(table, name, how.at(f"rows.{name}"))
        left = reasons == ""
        values = table[name].tolist()
        chosen = pd.Series([_find_name(value, allowed) is not None for value in values], index=table.index)
        if not (left & chosen).any():
            there = ", ".join(
                sorted({_name_text(value) for value, is_left in zip(values, left, strict=True) if is_left})
            )
            raise ValueError(
                f"{how.at(f'rows.{name}')}no row has {name} {' or '.join(allowed)}; found: {there[:400]}"
            )
        reasons[left & ~chosen] = f"not selected: its {name} is not listed under rows:"
    if how.run is not None:
        _check(table, how.run, how.at("run"))
        open_rows = (reasons == "").to_numpy()
        reasons[open_rows] = _untaken(table[open_rows], how, how.run)
    return reasons


def _untaken(rows: pd.DataFrame, how: ColumnMap, run: str) -> NDArray[np.object_]:
    """Return why each row of a log is not the one of its run; empty for those that are read."""
    value = pd.Series(_numbers(rows, how.metric_column, how.metric, how.at("metric")))
    runs = pd.Series([_name_text(name) for name in rows[run]])
    measured = value[np.isfinite(value)]
    ends = runs[~runs.isin(runs[measured.index])].drop_duplicates(keep="last").index  # without any metric
    reasons = np.full(len(rows), f"a row of a log without {how.metric}", dtype=object)
    if how.take == "each":
        taken = measured.index
    else:
        order = measured.iloc[::-1] if how.take == "last" else measured.sort_values(
            ascending=how.better == "lower", kind="stable"
        )  # fmt: skip
        taken = runs[order.index].drop_duplicates().index
        reasons[measured.index] = f"not the {how.take} row of its run"
    reasons[taken.union(ends)] = ""
    return reasons


def _names(table: pd.DataFrame, column: Column, name: str, at: str) -> NDArray[np.object_]:
    if column.source is None:
        return np.full(len(table), column.value, dtype=object)
    return _each(table, column.source, _reader(column, name), at)


def _numbers(table: pd.DataFrame, column: Column, name: str, at: str) -> Floats:
    if column.source is None:
        values = np.full(len(table), _scaled_number(column.value, column.times))
    else:
        named = _reader(column, name) if column.names else None
        values = _each(
            table,
            column.source,
            lambda value: _scaled_number(value if named is None else named(value), column.times),
            at,
            f" must hold numbers for {name}",
        ).astype(np.float64)
    for other, power in ((column.by, 1), (column.over, -1)):
        if other is not None:
            with np.errstate(divide="ignore"):  # the row of an infinite value is dropped
                values = values * _numbers(table, Column(source=other), name, at) ** power
    return values


def _each(
    table: pd.DataFrame, source: str, read: Callable[[object], object], at: str, what: str = ""
) -> NDArray[np.object_]:
    """Read a column value by value; an error names the column and the row."""
    _check(table, source, at)
    values = np.empty(len(table), dtype=object)
    for place, value in enumerate(table[source].tolist()):
        try:
            values[place] = read(value)
        except ValueError as error:
            line = _line(table, place)
            raise ValueError(f"{at}column '{source}'{what}; {line}: {error}") from None
    return values


def _reader(column: Column, name: str) -> Callable[[object], str | None]:
    """Return a reader of names, which translates them if the map does; an absent name becomes None."""

    def read(value: object) -> str | None:
        known = _find_name(value, column.names)
        if known is not None:
            return column.names[known]
        if _is_absent(value):
            return None
        if column.names:
            raise ValueError(unknown(f"{name} of the map", _name_text(value), column.names))
        return _name_text(value)

    return read


def _scaled_number(value: object, times: float) -> float:
    """Return a value as a number times a factor; NaN if it is missing."""
    if _is_absent(value) or value == "None":
        return float("nan")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) * times
    number = parse_quantity(str(value))
    if times != 1 and isinstance(value, str) and value.rstrip().endswith("%"):
        raise ValueError(f"'{value}' is read as {number:g}; leave out times: {times:g}")
    return number * times


def _find_name(value: object, names: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """Return the map's text for a value, also ``true`` for True and ``4e8`` for 400000000."""
    if str(value) in names:
        return str(value)
    text = _name_text(value)
    if text in names:
        return text
    if text.lower() in {"true", "false"}:
        return next((name for name in names if name.lower() == text.lower()), None)
    if isinstance(value, (int, float)):
        return next((name for name in names if _same_number(name, value)), None)
    return None


def _same_number(name: str, value: float) -> bool:
    try:
        return parse_quantity(name) == value
    except ValueError:
        return False


def _name_text(value: object) -> str:
    """Return a value as text: 400000000 instead of 4e+08, 20 for 20.0, 1.4, True, and no spaces around it."""
    if isinstance(value, float) and np.isfinite(value):
        if value.is_integer():
            return str(int(value))
        return np.format_float_positional(value, precision=12, fractional=False, trim="-")
    return str(value).strip()


def _is_absent(value: object) -> bool:
    """Return whether a value is missing."""
    if isinstance(value, str):
        return value.strip() in MISSING
    return value is None or value is pd.NaT or value is pd.NA or value != value  # noqa: PLR0124 (NaN)


def _check(table: pd.DataFrame, name: str, at: str) -> None:
    if name not in table:
        raise ValueError(at + unknown("column", name, map(str, table.columns)))


def _check_known(what: str, numbers: Floats, value: Floats, table: pd.DataFrame, *, least: int) -> None:
    """Check a number that every row with a value must have.

    A single row without it would make it unknown for all of them.
    """
    wrong = np.flatnonzero(np.isfinite(value) & ~(np.isfinite(numbers) & (numbers >= least)))
    if len(wrong):
        line, number = _line(table, wrong[0]), numbers[wrong[0]]
        shown = "none" if np.isnan(number) else f"{number:g}"
        raise ValueError(f"{what} of {line} must be {least} or more; found {shown}")


def _check_metric(value: Floats, table: pd.DataFrame, how: ColumnMap) -> None:
    loss, source, finite = is_loss(how.metric), how.metric_column.source, value[np.isfinite(value)]
    outside = np.flatnonzero((value < 0) if loss else np.isfinite(value) & ((value < 0) | (value > 1)))
    if not len(outside):
        return
    line, allowed = f"{_line(table, outside[0])}: ", "0 or more" if loss else "a fraction in [0, 1]"
    where = line if loss else f"column '{source}', {line}" if source else ""
    percents = not loss and finite.min() >= 0 and finite.max() <= _PERCENT
    hint = "; if these are percents, add `times: 0.01`" if percents else ""
    problem = f"{how.metric} must be {allowed}; found {value[outside[0]]:g}{hint}"
    raise ValueError(f"{how.at('metric')}{where}{problem}")


def complete(frame: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """Fill in derived numbers, NaN for unknown ones, and the reason of rows that cannot be fitted."""
    for line, regime in zip(frame["line"], frame["regime"], strict=True):
        if pd.notna(regime) and regime not in REGIMES:
            raise ValueError(f"{how.at('columns.regime')}{line}: {unknown('regime', str(regime), REGIMES)}")
    once = (frame["regime"] == "one-epoch").to_numpy(bool)
    pairs = frame["subset_size"].to_numpy(np.float64, copy=True)
    step = frame.get("batch_size", pd.Series(np.nan, index=frame.index)).to_numpy(np.float64)
    pairs[once] = levels(pairs[once], np.asarray(step[once], dtype=np.float64))
    frame["subset_size"] = pairs
    for name, derived in (
        ("epochs", frame["samples_seen"] / frame["subset_size"]),
        ("train_flops_per_sample", frame["train_flops"] / frame["samples_seen"]),
    ):
        given = frame.get(name, derived)
        frame[name] = given.where(np.isfinite(given) & (given > 0), derived)
    for name in ("seed", "evaluation_flops"):
        frame[name] = frame.get(name, pd.Series(0.0, index=frame.index))
    for name in NUMBERS:
        frame[name] = frame.get(name, pd.Series(np.nan, index=frame.index))
    frame["parameters"] = frame["parameters"].where(frame["parameters"] > 0)
    _check_units(frame, how)
    frame["reason"] = _reasons(frame, how)
    frame["status"] = np.where(frame["reason"] == "", "finished", "failed")
    return frame.fillna({name: "" for name in TEXT if name in how.columns})


def _check_units(frame: pd.DataFrame, how: ColumnMap) -> None:
    """Refuse columns that contradict the training FLOPs by far, as in other units.

    Raises:
        ValueError: A level, or the FLOPs of the samples seen, are ten times the training FLOPs or a tenth.
    """
    by_sample = frame["train_flops_per_sample"] * frame["samples_seen"]
    for name, flops in (("level_flops", frame["level_flops"]), ("train_flops_per_sample", by_sample)):
        factor = (flops / frame["train_flops"]).to_numpy(np.float64)
        far = np.flatnonzero(np.isfinite(factor) & (factor > 0) & (np.abs(np.log10(factor.clip(1e-300))) > 1))
        if len(far):
            row = frame.iloc[far[0]]
            raise ValueError(
                f"{how.at(f'columns.{name}')}{row['line']}: {name} is {row[name]:.4g} where train_flops is "
                f"{row['train_flops']:.4g} and samples_seen {row['samples_seen']:.4g}: {factor[far[0]]:.3g} "
                "times as many FLOPs. Correct the units (times, by)"
            )


def _reasons(frame: pd.DataFrame, how: ColumnMap) -> "pd.Series[str]":
    """Return why each row cannot be fitted; empty for rows that can."""
    settings = [f"{TUNED_COLUMN}{name}" for name in how.sweep]
    needed = [*(name for name in TEXT if name in how.columns), *settings]
    causes = {f"no {name.removeprefix(TUNED_COLUMN)}": frame[name].isna() for name in needed}
    causes["its quality keeps no pair"] = frame["quality"].map(str).map(quality_fraction) == 0
    fixed = frame["regime"] == "fixed-compute"
    # A missing level follows from the FLOPs, so NaN is allowed here.
    above = frame.assign(level_flops=frame["level_flops"].where(fixed).fillna(1.0))
    for name in ("subset_size", "train_flops", "level_flops", "samples_seen"):
        bad = ~(np.isfinite(above[name]) & (above[name] > 0))
        causes[f"{name} is not a finite number above zero"] = bad
    causes["seed is not a whole number"] = frame["seed"] % 1 != 0
    # The last batch of an epoch may be left out.
    batch = frame.get("batch_size", pd.Series(0.0, index=frame.index)).fillna(0.0)
    slack = np.maximum(_ONE_EPOCH * frame["subset_size"], batch)
    other = (frame["samples_seen"] - frame["subset_size"]).abs() > slack
    once = frame["regime"] == "one-epoch"
    causes["one-epoch, but its samples_seen are not its subset_size"] = once & other
    identity = [name for name in (*CELL, "seed") if name != "budget"]
    again = frame.duplicated([*identity, *settings, "samples_seen", "train_flops", how.metric])
    causes["duplicate of an earlier row"] = again
    reasons = np.select([*causes.values()], [*causes], "")  # the first that holds
    return pd.Series(reasons, index=frame.index, dtype=object)
