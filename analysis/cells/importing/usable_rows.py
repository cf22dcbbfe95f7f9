"""Derived columns of imported rows, and the reason why a row cannot be fitted."""

import numpy as np
import pandas as pd

from analysis.cells.importing.column_map import ColumnMap
from analysis.cells.table import CELL, NUMBERS, REGIMES, TEXT, levels
from analysis.labels import quality_fraction
from budgets.names import unknown

_ONE_EPOCH = 0.1
"""Largest share of its pairs that a trial of one epoch may see again, or not see."""


def complete(frame: pd.DataFrame, how: ColumnMap) -> pd.DataFrame:
    """Fill in derived numbers, NaN for unknown ones, and the reason of rows that cannot be fitted."""
    for trial, regime in zip(frame["trial"], frame["regime"], strict=True):
        if pd.notna(regime) and regime not in REGIMES:
            raise ValueError(f"{how.at('columns.regime')}{trial}: {unknown('regime', str(regime), REGIMES)}")
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
                f"{how.at(f'columns.{name}')}{row['trial']}: {name} is {row[name]:.4g} where train_flops is "
                f"{row['train_flops']:.4g} and samples_seen {row['samples_seen']:.4g}: {factor[far[0]]:.3g} "
                "times as many FLOPs. Correct the units (times, by)"
            )


def _reasons(frame: pd.DataFrame, how: ColumnMap) -> "pd.Series[str]":
    """Return why each row cannot be fitted; empty for rows that can."""
    reasons = pd.Series("", index=frame.index, dtype=object)
    for name in (name for name in TEXT if name in how.columns):
        reasons[frame[name].isna() & (reasons == "")] = f"no {name}"
    empty = frame["quality"].map(str).map(quality_fraction) == 0
    reasons[empty & (reasons == "")] = "its quality keeps no pair"
    fixed = frame["regime"] == "fixed-compute"
    needed = {
        "subset_size": frame["subset_size"],
        "train_flops": frame["train_flops"],
        # A missing level follows from the FLOPs, so NaN is allowed here.
        "level_flops": frame["level_flops"].where(fixed).fillna(1.0),
        "samples_seen": frame["samples_seen"],
    }
    for name, values in needed.items():
        bad = ~(np.isfinite(values) & (values > 0)) & (reasons == "")
        reasons[bad] = f"{name} is not a finite number above zero"
    reasons[(frame["seed"] % 1 != 0) & (reasons == "")] = "seed is not a whole number"
    # The last batch of an epoch may be left out.
    batch = frame.get("batch_size", pd.Series(0.0, index=frame.index)).fillna(0.0)
    slack = np.maximum(_ONE_EPOCH * frame["subset_size"], batch)
    other = (frame["samples_seen"] - frame["subset_size"]).abs() > slack
    once = frame["regime"] == "one-epoch"
    reasons[once & other & (reasons == "")] = "one-epoch, but its samples_seen are not its subset_size"
    identity = [name for name in (*CELL, "seed") if name != "budget"]
    again = frame.duplicated([*identity, "samples_seen", "train_flops", how.metric]) & (reasons == "")
    reasons[again] = "duplicate of an earlier row"
    return reasons
