"""The tables of a report: answers, trials and cost. `law_tables` and `tuning_tables` have the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isinf, isnan

import pandas as pd

from analysis.answers.choice import CLEAR_TEXT
from analysis.answers.cost import Cost
from analysis.cells.table import Trials, records
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    configuration_text,
    count_text,
    held_text,
    metric_text,
)  # fmt: skip
from analysis.sizes.size_profile import IsoFlopCurve
from budgets.quantity import format_flops, plural

_AXES = {
    "quality": "quality", "subset_size": "data size", "architecture": "architecture", "strategy": "strategy",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose cells are texts.

    Attributes:
        name: File name without suffix.
        title: Heading.
        note: Meaning of its numbers.
        frame: The cells, with the headings as column names.
    """

    name: str
    title: str
    note: str
    frame: pd.DataFrame


def best(frontier: pd.DataFrame, *, metric: str, explanation: str) -> Table:
    """Return the best configuration at each budget, from the table of ``frontier``."""
    unit = ErrorUnit.of(metric)
    rows = [
        {
            "Budget": row["at"],
            "Architecture": row["architecture"],
            "Strategy": axis_text("strategy", row["strategy"]),
            "Pairs": count_text(row["subset_size"]),
            "Quality": axis_text("quality", row["quality"]),
            "Epochs": f"{row['epochs']:,.1f}",
            unit.heading: unit.number(row["error"]),
            "Interval": unit.interval(row["low"], row["high"]),
            "P(best)": share_text(row["probability"]),
            "Runner-up": row["runner_up"] or "–",
            f"Its {unit.heading.lower()}": unit.number(row["runner_up_error"]),
            "Verdict": row["verdict"],
            "Tried": str(row["configurations"]),
            "Not run": row["not_run"].removesuffix(" was not run").removesuffix(" were not run") or "–",
        }
        for row in records(frontier)
    ]
    note = (
        f"{capital(metric_text(metric))}. P(best) is the share of draws in which the configuration has the "
        f"lowest {unit.word} of its budget. {capital(explanation)}. "
        f"Each interval is of one configuration; the winner's {unit.word} is biased low, because it is the "
        f"lowest of many. {CLEAR_TEXT}; each budget is judged by itself. Beaten: another trial is lower at "
        "no higher cost. "
        "Tried: configurations compared; not run: combinations of the leaders' parts without a trial. Means "
        "exclude runs that diverged or gave no number: a leader with such runs is not called clear."
    )
    return Table(name="best", title="Best configuration at each budget", note=note, frame=pd.DataFrame(rows))


def profiles(curves: Sequence[IsoFlopCurve], unit: ErrorUnit) -> Table:
    """Return every IsoFLOP profile with its minimum, or why none is marked."""
    rows = [
        {
            "Budget": budget_text("fixed-compute", curve.identity["budget"]),
            "Family": str(curve.identity["family"]),
            "Fixed": held_text(curve.identity),
            "Sizes": f"{curve.profile.used} of {len(curve.positions)}",
            "Epochs": f"{curve.epochs[0]:.3g} → {curve.epochs[1]:.3g}",
            "Best size": x_text("compute", curve.profile.size),
            "Interval": x_interval("compute", curve.profile.ends.low, curve.profile.ends.high),
            "BCa": x_interval("compute", curve.profile.ends.bca_low, curve.profile.ends.bca_high),
            unit.gap_heading_of("Form error"): unit.number(curve.profile.form, fine=True),
            "Lack of fit (p)": share_text(curve.profile.chance),
            "Status": curve.profile.status,
            "Reason": curve.profile.reason,
        }
        for curve in curves
    ]
    note = (
        "size is training FLOPs per sample. The curve is a convex parabola in the logarithm of the size, "
        "with a third-order term bounded by exponents between 0 and 1, fitted to the sizes within two of the "
        "lowest measured one. Form error: standard deviation of the misses beyond the noise, common to all "
        "budgets of a family and part of the intervals. Lack of fit: p-value of the misses if noise were "
        "their only cause. Epochs: of the smallest and of the largest model. Intervals: percentile, and "
        "bias-corrected and accelerated (BCa); an end beyond the fitted sizes is open"
    )
    return Table(name="isoflop", title="IsoFLOP profiles", note=note, frame=pd.DataFrame(rows))


def x_text(along: str, x: float) -> str:
    """Return an x of a law with its unit; a dash for NaN."""
    if isnan(x):
        return "–"
    return format_flops(x, digits=3) if along == "compute" else f"{count_text(x)} pairs"


def x_interval(along: str, low: float, high: float) -> str:
    """Return an interval of x with dots for open ends; empty for NaN."""
    if isnan(low) or isnan(high):
        return ""
    return f"[{'…' if low == 0 else x_text(along, low)}, {'…' if isinf(high) else x_text(along, high)}]"


def contrasts(table: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return every comparison along one axis, from the table of ``contrasts``."""
    unfinished = len(table) > 0 and table["lacking"].any()
    rows = [
        {
            "Axis": _AXES[row["axis"]],
            "Budget": budget_text(row["regime"], row["budget"]),
            "Fixed": row["held"],
            "Compared": row["values"],
            f"Lowest {unit.word}": row["best"],
            unit.heading: unit.number(row["error"]),
            unit.gap_heading_of("Ahead by"): unit.number(row["gap"]),
            "Interval": unit.interval(row["gap_low"], row["gap_high"]),
            "P(best)": share_text(row["probability"]),
            "Verdict": row["verdict"],
        }
        | ({"Lacking": row["lacking"] or "–"} if unfinished else {})
        for row in records(table)
    ]
    note = (
        f"ahead by: difference between the lowest and the second lowest {unit.word}. A verdict accounts for "
        f"the configurations of its own comparison, but not for the number of comparisons, {len(rows):,}"
    )
    if unfinished:
        note += "; none is clear while a side of it, or a seed of the lowest, has no result"
    return Table(name="contrasts", title="One choice at a time", note=note, frame=pd.DataFrame(rows))


def cost(levels: pd.DataFrame, totals: Cost) -> Table:
    """Return FLOPs and device hours by budget level and in total."""
    total = {
        "level": "all", "trials": int(levels["trials"].sum()), "planned": totals.planned_flops,
        "spent": totals.spent_flops, "wasted": totals.wasted_flops, "evaluation": totals.evaluation_flops,
        "hours": totals.device_hours,
    }  # fmt: skip
    rows = [
        {
            "Level": row["level"],
            "Trials": str(row["trials"]) if row["trials"] else "–",
            "Planned": format_flops(row["planned"]),
            "Spent": format_flops(row["spent"]),
            "Of it wasted": format_flops(row["wasted"]),
            "Evaluation": format_flops(row["evaluation"]),
            "Device time": duration_text(3600 * row["hours"]) if row["hours"] else "–",
        }
        for row in [*records(levels), total]
    ]
    note = (
        "planned, spent and wasted are training FLOPs, as `status` and the study budget count them; wasted: "
        "lost with attempts that failed. Evaluation: forward FLOPs that no budget counts. Device time: that "
        "in trials, lost attempts and evaluation included, times the devices of each"
    )
    return Table(name="cost", title="Cost", note=note, frame=pd.DataFrame(rows))


def duration_text(seconds: float) -> str:
    """Return seconds as text: ``75`` → ``1 min 15 s``; from 100 hours on, hours alone; a dash for NaN."""
    if isnan(seconds):
        return "–"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours >= 100:  # noqa: PLR2004 (three digits)
        return f"{hours:,} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"  # noqa: PLR2004


def trials(trials: Trials, results: pd.DataFrame) -> Table:
    """Return every finished trial, with its settings from the results that it was read from."""
    settings, unit = {row["trial"]: row for row in records(results)}, ErrorUnit.of(trials.metric)
    rows = [
        {
            unit.heading: unit.number(row["error"]),
            "Budget": budget_text(row["regime"], row["budget"]),
            "Architecture": row["architecture"],
            "Strategy": axis_text("strategy", row["strategy"]),
            "Pairs": count_text(row["subset_size"]),
            "Quality": axis_text("quality", row["quality"]),
            "Seed": str(int(row["seed"])),
            "Learning rate": _known(settings[row["trial"]].get("lr_peak"), "{:g}".format),
            "Batch": _known(settings[row["trial"]].get("batch_size"), "{:g}".format),
            "Parameters": _known(row.get("parameters"), count_text),
            "Training loss": _known(row["train_loss"], "{:.3f}".format),
            "Samples": count_text(row["samples_seen"]),
            "Epochs": f"{row['epochs']:,.1f}",
            "FLOPs": format_flops(row["train_flops"]),
            "Trial": row["trial"],
        }
        for row in records(trials.frame)
    ]
    note = f"{metric_text(trials.metric)}; training loss: mean of the last tenth of the training"
    return Table(name="trials", title="All finished trials", note=note, frame=pd.DataFrame(rows))


def _known(value: float | None, text: Callable[[float], str]) -> str:
    return "–" if value is None or isnan(value) else text(value)


def robustness(found: pd.DataFrame) -> Table:
    """Return the effective robustness of each group, from the table of ``robustness.robustness``."""
    rows = [
        {
            "Shifted set": row["shifted"],
            "Line through plain CLIP": f"slope {row['slope']:.2f}, r² {row['r2']:.2f}",
            "Of": axis_text(row["axis"], row["value"]),
            "Cells": str(row["cells"]),
            "Above the line by": PERCENT.number(row["points"]),
            "Interval": PERCENT.interval(row["low"], row["high"]),
            "Verdict": row["verdict"],
        }
        for row in records(found)
    ]
    note = (
        "points of top-1 on the shifted set above the value predicted from top-1 on the plain set, by a line "
        "on logit scales through the plain CLIP cells; architectures are compared by their plain CLIP cells"
    )
    return Table(name="robustness", title="Effective robustness", note=note, frame=pd.DataFrame(rows))


def missing(found: pd.DataFrame) -> Table:
    """Return the planned trials without a result, from the table of ``study_frames.missing``."""
    rows = [
        {
            "Budget": budget_text(row["regime"], row["budget"]),
            "Configuration": configuration_text(row),
            "Seeds": row["seeds"],
            "Reason": row["reason"],
        }
        for row in records(found)
    ]
    note = f"{plural(int(found['trials'].sum()), 'planned trial')} without a result"
    return Table(name="missing", title="What is missing", note=note, frame=pd.DataFrame(rows))


def left_out(cells: pd.DataFrame) -> Table:
    """Return the cells left out of the plan, with the reason."""
    rows = [
        {
            "Budget": budget_text(row["regime"], row["level_flops"])
            if row["regime"] == "fixed-compute"
            else row["regime"],
            "Configuration": configuration_text(row),
            "Reason": str(row["reason"]),
        }
        for row in records(cells)
    ]
    return Table(
        name="left-out", title="Cells left out of the plan", note="as planned", frame=pd.DataFrame(rows)
    )


def unread_rows(rows: pd.DataFrame) -> Table:
    """Return the rows of an imported table that were not read, counted by reason."""
    counts = rows["reason"].value_counts()
    frame = pd.DataFrame({"Rows": [f"{count:,}" for count in counts], "Reason": list(counts.index)})
    note = "dropped.parquet beside the report lists each of them"
    return Table(name="left-out", title="Table rows that were not read", note=note, frame=frame)


def share_text(probability: float) -> str:
    """Return a probability with two digits; near 0 and 1, beyond the precision of the draws, as a bound."""
    if isnan(probability):
        return "–"
    return ">.99" if probability > 0.995 else ("<.01" if probability < 0.005 else f"{probability:.2f}")  # noqa: PLR2004
