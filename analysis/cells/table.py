"""Validation of a results table into tidy trials, which the rest of the analysis reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.error_unit import is_loss
from budgets.cost.architecture import Architecture, family_of
from budgets.declaration.sections import Regime
from budgets.names import unknown
from runners.results import AVERAGE, PHASE, TRUNK, VERSION

CONFIGURATION = ("subset_size", "quality", "architecture", "strategy")
"""Columns of a configuration: the choices that a budget is spent on."""

CELL = ("regime", "budget", *CONFIGURATION)
"""Columns of a cell: trials of one cell differ only in their seed."""

TEXT = ("trial", "regime", "quality", "architecture", "strategy", "status", "reason")
NUMBERS = (
    "subset_size", "level_flops", "seed", "train_flops", "train_flops_per_sample", "evaluation_flops",
    "samples_seen", "epochs", "parameters", "train_loss",
)  # fmt: skip
REGIMES: tuple[str, ...] = get_args(Regime)
BATCH_ROUNDING = 0.03
"""Largest relative difference between trials of one level, used where the batch size is unknown."""
READING_ERROR = "reading_error"
"""Last part of the column name ``<evaluation set>/reading_error``."""
STATUSES = ("finished", "diverged", "failed")
KEPT = (
    "trial", *CELL, "family", "seed", "train_flops", "train_flops_per_sample", "evaluation_flops",
    "samples_seen", "epochs", "parameters", "train_loss", "error", "images", "reading_error", "lost", "trunk",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """The finished trials of a study, and the excluded ones.

    Attributes:
        frame: One row per trial: ``trial``, the columns of ``CELL``, ``family`` (of its architecture, see
            `budgets.cost.architecture.family_of`), ``seed``, the compute columns of the
            results schema, ``error`` (1 − metric, a fraction; a loss stays as it is), ``images`` (number that
            the metric was counted over, NaN when unknown), ``reading_error`` (standard deviation with which
            a published value was read off, 0 for exact values), ``lost`` (number of runs of its cell that
            were lost) and ``trunk`` (id of the trunk that it shares with other levels; empty without one).
            ``budget`` is the training FLOPs of the level under fixed compute and the samples seen otherwise,
            see `budgets`.
        metric: Results column that ``error`` was computed from, such as ``held-out/top1``.
        excluded: ``trial``, ``status`` and ``reason`` of each row of the results that is not in ``frame``.
        lost: Of those, the runs that were lost, with the columns of ``frame``: they diverged or gave no
            number. Runs that failed otherwise are missing, not lost.
        trunks: Finished trials of trunks, evaluated at constant rate where the run of their cell and seed
            cools down, with the columns of ``frame``. ``error`` is that of the weight average where it was
            measured.
    """

    frame: pd.DataFrame
    metric: str
    excluded: pd.DataFrame
    lost: pd.DataFrame
    trunks: pd.DataFrame

    @property
    def every(self) -> pd.DataFrame:
        """All finished trials; of trunks there is a column that tells them apart, see `of_trunks`."""
        if self.trunks.empty:
            return self.frame
        return pd.concat([self.frame, self.trunks.assign(**{PHASE: TRUNK})], ignore_index=True)

    @property
    def sound(self) -> pd.DataFrame:
        """Rows of ``frame`` whose cell lost no run: the survivors of the others are a biased sample."""
        return self.frame[self.frame["lost"] == 0]


def tidy(
    results: pd.DataFrame, *, metric: str, own: Mapping[str, Architecture] = MappingProxyType({})
) -> Trials:
    """Check a results table, one row per trial in the results schema, and keep its finished trials.

    The metric is a fraction in [0, 1], better when higher, or a loss (``…/loss``), better when lower.
    ``own`` are the study's own architectures, whose names need not say their family.

    Raises:
        ValueError: A column is missing or holds invalid values; a trial, or a seed of a cell, appears twice.
    """
    if results.empty:
        texts = {*TEXT, "family", "trunk"}
        nothing = pd.DataFrame({name: pd.Series(dtype=object if name in texts else float) for name in KEPT})
        excluded = pd.DataFrame(columns=["trial", "status", "reason"], dtype=object)
        return Trials(frame=nothing, metric=metric, excluded=excluded, lost=nothing, trunks=nothing)
    if metric not in results and "status" in results and not (results["status"] == "finished").any():
        results = results.assign(**{metric: np.nan})  # all trials failed
    _check_columns(results, metric)
    finished = (results["status"] == "finished").to_numpy(bool)
    constant, value = of_trunks(results), _numbers(results, metric)
    if metric + AVERAGE in results:
        averaged = _numbers(results, metric + AVERAGE)
        value = np.where(constant & np.isfinite(averaged), averaged, value)
    measured = finished & np.isfinite(value)
    if not is_loss(metric):
        _check_fraction(results, metric, value, measured)

    excluded = results[["trial", "status", "reason"]][~measured]
    reasons = [
        f"the metric {metric} is not a finite number"
        if status == "finished"
        else f"{status}: {reason}".rstrip(": ")
        for status, reason in zip(excluded["status"], excluded["reason"], strict=True)
    ]
    count, reading = (f"{metric.rpartition('/')[0]}/{last}" for last in ("count", READING_ERROR))
    lost = ((results["status"] == "diverged").to_numpy(bool) | (finished & ~measured)) & ~constant
    cells = results.assign(budget=budgets(results), lost=lost.astype(np.float64))
    if lost.any():
        cells["lost"] = cells.groupby(list(CELL), dropna=False)["lost"].transform("sum")
    cells = cells.assign(
        family=results["architecture"].map(lambda name: family_of(str(name), own)),
        error=value if is_loss(metric) else 1.0 - value,
        images=_numbers(results, count) if count in results else np.nan,
        reading_error=np.nan_to_num(_numbers(results, reading)) if reading in results else 0.0,
        trunk=results["trunk"].fillna("") if "trunk" in results else "",
    )[[*KEPT]]
    place = results.get("line", results["trial"])
    frame, trunks = (
        _ordered(cells[rows], place[rows]) for rows in (measured & ~constant, measured & constant)
    )
    return Trials(
        frame=frame, trunks=trunks, metric=metric,
        excluded=excluded.assign(reason=reasons).reset_index(drop=True),
        lost=cells[lost].assign(error=np.nan).reset_index(drop=True),
    )  # fmt: skip


def _ordered(frame: pd.DataFrame, places: "pd.Series[str]") -> pd.DataFrame:
    """Return checked trials, whose places in the table are given, by cell and seed."""
    _check_cells(frame)
    cell = group_numbers(frame, CELL)
    _check_seeds(frame, cell, places)
    return frame.iloc[np.lexsort((frame["seed"], cell))].reset_index(drop=True)


def of_trunks(table: pd.DataFrame) -> Mask:
    """Return which rows of results or a plan are trials of trunks, evaluated without a cooldown."""
    return np.asarray(table[PHASE] == TRUNK) if PHASE in table else np.zeros(len(table), dtype=bool)


def cooled(table: pd.DataFrame) -> pd.DataFrame:
    """Return results or a plan without the trials of trunks: one row for each cell and seed."""
    return table[~of_trunks(table)] if PHASE in table else table


def repeated(results: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each trial with several attempts, by the id of the first one.

    The last is the attempt that is used: the newest with a result, diverged or not.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    if "attempt" in results and (results["attempt"] > 1).any():
        for row in records(
            results.assign(ended=results["status"] != "failed").sort_values(["ended", "attempt"])
        ):
            rows.setdefault(row["trial"].removesuffix(f"-{row['attempt']}"), []).append(row)
    return {
        first: attempts for first, attempts in rows.items() if any(row["attempt"] > 1 for row in attempts)
    }


def used_attempts(table: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the attempts that are not used; the used one has the id of the first.

    Of a user's strategy only the newest version is used, which comes first in the results.
    """
    if VERSION in results:
        newest = results.groupby("strategy")[VERSION].transform("first")
        former = results["trial"][results[VERSION] != newest]
        table, results = (frame[~frame["trial"].isin(former)] for frame in (table, results))
    several = repeated(results)
    if not several:
        return table
    unused = {row["trial"] for attempts in several.values() for row in attempts[:-1]}
    first = {attempts[-1]["trial"]: name for name, attempts in several.items()}
    used = table[~table["trial"].isin(unused)]
    return used.assign(trial=used["trial"].replace(first))


def first_attempts(plan: pd.DataFrame) -> pd.DataFrame:
    """Return a plan with each trial once, however often it is run."""
    return plan[plan["attempt"] == 1] if "attempt" in plan else plan


def budgets(trials: pd.DataFrame) -> Floats:
    """Return the budget of each trial: FLOPs of its level under fixed compute, samples seen otherwise.

    Trials of one declared budget may stop at different whole batches; they still have one budget. A missing
    level is derived from the FLOPs in the same way. ``batch_size`` is used if there is one.
    """
    names = ("level_flops", "samples_seen", "train_flops", "train_flops_per_sample")
    level, samples, flops, per_sample = (_numbers(trials, name) for name in names)
    batch = _numbers(trials, "batch_size") if "batch_size" in trials else np.full(len(trials), np.nan)
    fixed = (trials["regime"] == "fixed-compute").to_numpy(bool)
    budget = np.where(fixed, level, np.nan)
    for regime in REGIMES:
        missing = (trials["regime"] == regime).to_numpy(bool) & np.isnan(budget)
        value, step = (flops, batch * per_sample) if regime == "fixed-compute" else (samples, batch)
        given = budget[(trials["regime"] == regime).to_numpy(bool) & ~missing]
        budget[missing] = levels(value[missing], step[missing], np.unique(given).tolist())
    return budget


def with_budgets(plan: pd.DataFrame, trials: Trials) -> pd.DataFrame:
    """Return the plan with columns ``budget``, equal to that of finished trials, and ``ended``.

    Finished and lost trials have ended. Further attempts are no trials of the plan.
    """
    plan = first_attempts(plan)
    if plan.empty:
        return plan
    budget = budgets(plan)
    # The budget of trials that were declared alike is that of the largest one, which an unfinished study may
    # lack. So the measured budget replaces the planned one in all trials that share the latter.
    measured = trials.frame.set_index("trial")["budget"].reindex(plan["trial"]).to_numpy(np.float64)
    known = np.isfinite(measured)
    same = dict(zip(budget[known], measured[known], strict=True))
    ended = {*trials.every["trial"], *trials.lost["trial"]}
    return plan.assign(
        budget=[same.get(value, value) for value in budget], ended=[trial in ended for trial in plan["trial"]]
    )


def levels(values: Floats, step: Floats, given: Sequence[float] = ()) -> Floats:
    """Return the level of each value: a given one, or the largest value that it may be rounded down from.

    Args:
        values: Samples seen, or FLOPs; NaN stays NaN.
        step: A value lies less than this far below its level. NaN when unknown: `BATCH_ROUNDING` of the
            level is used instead.
        given: Levels that other trials declare, rising.
    """
    reach = np.where(np.isnan(step), values / (1.0 - BATCH_ROUNDING), np.nextafter(values + step, 0.0))
    above = np.append(given, np.inf)[np.searchsorted(given, values)]
    joins = above <= reach
    rounded, level = np.where(joins, above, values), np.inf
    # Go from the largest value down. A level takes the values that reach up to it, and only those: a chain of
    # close values is not merged into one level.
    for place in np.argsort(-values, kind="stable"):
        if joins[place]:
            continue
        if not values[place] <= level <= reach[place]:
            level = values[place]
        rounded[place] = level
    return rounded


def group_numbers(frame: pd.DataFrame, columns: Sequence[str]) -> Indices:
    """Return the number of each row's group: rows with equal values in all columns, in sorted order."""
    # On the thousand rows of a study three to ten times as fast as `groupby(…).ngroup()`.
    rows = list(zip(*(frame[name].tolist() for name in columns), strict=True))
    number = {row: number for number, row in enumerate(sorted(set(rows)))}
    return np.array([number[row] for row in rows], dtype=np.intp)


def curve_numbers(cells: pd.DataFrame) -> Indices:
    """Return the number of each cell's curve: cells of one regime and configuration at any budget.

    In the one-epoch regime more compute means more pairs, so its curves span subset sizes.
    """
    size = cells["subset_size"].where(cells["regime"] != "one-epoch", 0)
    held = ("regime", "architecture", "strategy", "quality", "subset_size")
    return group_numbers(cells.assign(subset_size=size), held)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dictionaries."""
    # Ten times as fast as `to_dict("records")`, which goes through columns of text value by value.
    names = list(map(str, frame.columns))
    return [dict(zip(names, row, strict=True)) for row in frame.to_numpy(dtype=object).tolist()]


def metrics(results: pd.DataFrame) -> tuple[str, ...]:
    """Return the names of a results table's metric columns, ``<evaluation set>/<metric>``.

    Image counts, standard errors, reading errors and metrics of weight averages are not among them.
    """
    beside = ("/count", "_se", AVERAGE, f"/{READING_ERROR}")
    return tuple(name for name in map(str, results.columns) if "/" in name and not name.endswith(beside))


def _numbers(frame: pd.DataFrame, column: str) -> Floats:
    try:
        return frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"results column '{column}' must hold numbers; found {frame[column].dtype}"
        ) from error


def _check_columns(results: pd.DataFrame, metric: str) -> None:
    for name in (*TEXT, *NUMBERS):
        if name not in results:
            raise ValueError(f"results have no column '{name}'; needed: {', '.join((*TEXT, *NUMBERS))}")
    if metric not in results:
        raise ValueError(unknown("metric", metric, metrics(results)))
    # A failed row of an imported table may lack its regime.
    regimes = results.loc[results["status"] != "failed", "regime"]
    for name, values, allowed in (("regime", regimes, REGIMES), ("status", results["status"], STATUSES)):
        strange = sorted(set(map(str, values.unique())) - set(allowed))
        if strange:
            raise ValueError(f"results column '{name}': " + unknown(name, strange[0], allowed))
    repeated = results.loc[results["trial"].duplicated(), "trial"]
    if len(repeated):
        raise ValueError(
            f"results column 'trial' must name each trial once; found '{repeated.iloc[0]}' twice"
        )
    for name in NUMBERS:
        _numbers(results, name)


def _check_fraction(results: pd.DataFrame, metric: str, value: Floats, measured: Mask) -> None:
    outside = np.flatnonzero(measured & ((value < 0) | (value > 1)))
    if len(outside):
        raise ValueError(
            f"results column '{metric}' must hold fractions in [0, 1]; "
            f"found {value[outside[0]]:g} in trial '{results['trial'].iloc[outside[0]]}'"
        )


def _check_cells(frame: pd.DataFrame) -> None:
    for name in ("quality", "architecture", "strategy"):
        missing = frame.loc[frame[name].isna(), "trial"]
        if len(missing):
            raise ValueError(f"results column '{name}' has no value in trial '{missing.iloc[0]}'")
    for name in ("budget", "train_flops", "subset_size"):
        value = _numbers(frame, name)
        if not (np.isfinite(value) & (value > 0)).all():
            column = "level_flops" if name == "budget" else name
            raise ValueError(f"results column '{column}' must be above zero in finished trials")


def _check_seeds(frame: pd.DataFrame, cell: Indices, places: "pd.Series[str]") -> None:
    """Refuse a seed that appears twice in a cell, given each trial's number of its cell, and its place."""
    runs = pd.DataFrame({"cell": cell, "seed": frame["seed"].to_numpy()})
    repeated = runs.duplicated(keep=False).to_numpy(bool)
    if repeated.any():
        same = (runs == runs[repeated].iloc[0]).all(axis=1).to_numpy(bool)
        first, second, *_ = places[same]
        one, other, *_ = frame.loc[same, "train_flops"]
        remedy = "remove one of them or give it another seed"
        if places.name == "line":
            remedy += "; if they are runs of a sweep, name what they differ in under sweep: in the map"
        if one != other:
            remedy = (
                f"their {one:.4g} and {other:.4g} FLOPs count as one budget, rounded to whole batches: give "
                f"level_flops or batch_size if they are two; otherwise {remedy}"
            )
        raise ValueError(f"trials '{first}' and '{second}' have the same cell and seed; {remedy}")
