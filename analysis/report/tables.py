"""The tables of a report: answers, trials and cost. `law_tables` and `tuning_tables` have the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isinf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.cost import Cost, score_costs, score_text
from analysis.answers.crossing import PAIR
from analysis.belief.verdict import clear_text
from analysis.cells.table import Trials, records, repeated
from analysis.error_unit import PERCENT, ErrorUnit, is_loss
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    configuration_text,
    count_text,
    epochs_text,
    held_text,
    interval_text,
    metric_text,
)  # fmt: skip
from analysis.laws.best_size import Profile
from budgets.planning.scoring import score_charges
from budgets.quantity import format_flops, plural

_MOST_COMPARED = 300  # rows of two options each, beyond which one row a pair is shown
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


def best(best: pd.DataFrame, spent: Cost, *, metric: str, explanation: str, confidence: float) -> Table:
    """Return the best configuration at each budget, from the table of ``best_at_budgets``."""
    unit, scored = ErrorUnit.of(metric), best["score_flops"].any()
    rows = [
        {
            "Budget": row["at"],
            "Architecture": row["architecture"],
            "Strategy": axis_text("strategy", row["strategy"]),
            "Pairs": count_text(row["subset_size"]),
            "Quality": axis_text("quality", row["quality"]),
            "Epochs": epochs_text(row["epochs"]),
            unit.heading: unit.number(row["error"]),
            "Interval": unit.interval(row["low"], row["high"]),
            "P(best)": share_text(row["probability"]),
            "Runner-up": row["runner_up"] or "–",
            f"Its {unit.heading.lower()}": unit.number(row["runner_up_error"]),
            "Verdict": row["verdict"],
            "Compared": str(row["configurations"]),
            "Run here": str(row["measured"]),
            "Untried": row["not_run"] or "–",
            **({"Its score cost": score_text(row["score_flops"], spent) or "–"} if scored else {}),
        }
        for row in records(best)
    ]
    note = (
        f"{capital(metric_text(metric))}. P(best) is the share of draws in which the configuration has the "
        f"lowest {unit.word} of its budget. {capital(explanation)}. "
        f"{clear_text(confidence)}; each budget is judged by itself. Beaten: a cheaper trial is lower. "
        "Compared: the configurations that can be run at the budget, run or not; untried: combinations of "
        "the leaders' parts that are not among them. A configuration that lost runs there (they diverged or "
        "gave no number) is not ranked, and no law rests on its other runs there."
    )
    return Table(name="best", title="Best configuration at each budget", note=note, frame=pd.DataFrame(rows))


def profiles(found: Sequence[Profile]) -> Table:
    """Return every IsoFLOP profile with its minimum, or why none is marked."""
    rows = [
        {
            "Budget": budget_text("fixed-compute", one.identity["budget"]),
            "Family": str(one.identity["family"]),
            "Fixed": held_text(one.identity),
            "Sizes": f"{one.used} of {len(one.positions)}",
            "Epochs": f"{one.epochs[0]:.3g} → {one.epochs[1]:.3g}",
            "Best size": x_text("compute", one.size),
            "Interval": x_interval("compute", one.low, one.high),
            "Status": one.status,
            "Reason": one.reason,
        }
        for one in found
    ]
    note = (
        "size is training FLOPs per sample. The curve of each draw is a polynomial in the logarithm of the "
        "size, through the joint estimates of the sizes within two of the lowest. Epochs: of the smallest "
        "and of the largest model. Intervals are 90 %; an end beyond these sizes is open"
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


def comparisons(found: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return every two options at each x, from the table of ``crossing.comparisons``."""
    last = (~found.duplicated([*PAIR], keep="last")).to_numpy(bool) if len(found) else np.zeros(0, dtype=bool)
    shown = last | (len(found) <= _MOST_COMPARED)
    rows = [
        {
            "Axis": _AXES[row["axis"]],
            "Fixed": row["held"],
            "Option": row["option"],
            "Against": row["other"],
            "At": x_text(row["along"], row["x"]),
            unit.gap_heading_of("Ahead by"): unit.number(row["gap"]),
            "Interval": unit.interval(row["gap_low"], row["gap_high"]),
            "P(ahead)": share_text(row["probability"]),
            "Verdict": row["verdict"],
            "Worth": _factor(row["factor"], row),
            "Its interval": _factors(row),
            "Crossing": _crossing(row) if end else "",
        }
        for row, end in zip(records(found[shown]), last[shown], strict=True)
    ]
    note = (
        f"ahead by: {unit.word} of the other minus that of the option. Worth ×k: the option at x has the "
        f"{unit.word} of the other at k·x, so ×2 means that half of the compute, or data, suffices; < and >: "
        "beyond what the other measured. Crossing: the last one within the x of both, in the row of the "
        "largest x; an end beyond is open"
    )
    if not shown.all():
        note += f". Of {len(found):,} rows the largest x of each pair; the frame `comparisons` has all"
    return Table(
        name="comparisons", title="Two options over compute and data", note=note, frame=pd.DataFrame(rows)
    )


def _crossing(row: Mapping[str, Any]) -> str:
    if isnan(row["crossing_x"]):
        return str(row["crossing"])
    times = f", the last of {row['crossings']}" if row["crossings"] > 1 else ""
    ends = x_interval(row["along"], row["x_low"], row["x_high"])
    return f"{row['crossing']} at {x_text(row['along'], row['crossing_x'])} {ends}{times}"


def _factors(row: Mapping[str, Any]) -> str:
    ends = (row["factor_low"], row["factor_high"])
    return "" if isnan(ends[0]) else f"[{_factor(ends[0], row)}, {_factor(ends[1], row)}]"


def _factor(factor: float, row: Mapping[str, Any]) -> str:
    """Return a factor as text; the end of an interval that was cut at a bound lies beyond it as well."""
    if factor <= row["lowest"]:
        return f"<×{row['lowest']:.2g}"
    return f">×{row['highest']:.2g}" if factor >= row["highest"] else f"×{factor:.2f}"


def pareto(found: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return the Pareto frontier over compute, from the table of ``comparison.pareto``."""
    rows = [
        {
            "FLOPs": format_flops(row["train_flops"]),
            "Configuration": configuration_text(row),
            unit.heading: unit.number(row["error"]),
            "P(on the frontier)": share_text(row["probability"]),
        }
        for row in records(found)
    ]
    note = "cells that no other cell beats at equal or lower cost"
    return Table(name="pareto", title="Pareto frontier over compute", note=note, frame=pd.DataFrame(rows))


def quality_trades(found: pd.DataFrame) -> Table:
    """Return the change of the best kept fraction, from the table of ``crossing.quality_trades``."""
    rows = [
        {
            "As this grows": "compute" if row["along"] == "budget" else "the pool",
            "Fixed": f"{row['architecture']}, {axis_text('strategy', row['strategy'])}, "
            + (
                budget_text(row["regime"], row["budget"])
                if row["along"] == "pool"
                # Of two digits: pools that differ by less count as one.
                else f"a pool of about {count_text(float(format(row['pool'], '.2g')))} pairs"
            ),
            "Best fraction": ", ".join(f"{fraction:.0%}" for fraction in row["fractions"]),
            "Slope": f"{row['slope']:+.2f}",
            "Interval": interval_text(row["low"], row["high"], "+.2f"),
            "Verdict": row["verdict"],
            "Reason": row["reason"],
        }
        for row in records(found)
    ]
    note = "slope: of the logarithm of the best fraction over the logarithm of the compute or of the pool"
    return Table(name="quality-trade", title="How much to filter", note=note, frame=pd.DataFrame(rows))


def cost(levels: pd.DataFrame, totals: Cost, scores: pd.DataFrame) -> Table:
    """Return FLOPs and device hours by budget level and in total, then scores outside the budget."""
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
    outside = () if scores.empty or scores["counted"].any() else score_charges(score_costs(scores))
    for charge in outside:
        row = dict.fromkeys(rows[-1], "–")
        rows.append(row | {"Level": f"not in all: {charge.what}", "Spent": format_flops(charge.flops)})
    note = (
        "planned, spent and wasted are training FLOPs, as `status` and the study budget count them; wasted: "
        "lost with attempts that failed. Evaluation: forward FLOPs that no budget counts. Device time: that "
        "in trials, lost attempts and evaluation included, times the devices of each. Training and scoring "
        "of quality scores have rows of their own, which the study budget and all count if declared so"
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


def trials(trials: Trials, results: pd.DataFrame, again: Mapping[str, str]) -> Table:
    """Return every finished trial, with its settings from the results, and what `attempts` says of it."""
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
            "Epochs": epochs_text(row["epochs"]),
            "FLOPs": format_flops(row["train_flops"]),
            "Trial": row["trial"],
        }
        | ({"Attempts": again.get(row["trial"], "–")} if again else {})
        for row in records(trials.frame)
    ]
    note = f"{metric_text(trials.metric)}; training loss: mean of the last tenth of the training"
    note = ". ".join([note, *(f"Trial {trial} was run again: {words}" for trial, words in again.items())])
    return Table(name="trials", title="All finished trials", note=note, frame=pd.DataFrame(rows))


def attempts(results: pd.DataFrame, metric: str) -> dict[str, str]:
    """Return the values of the attempts of each trial that has several, in words, by the id of the first."""
    unit = ErrorUnit.of(metric)

    def words(row: Mapping[str, Any]) -> str:
        value = row.get(metric, nan)
        value = row["status"] if isnan(value) else unit.named(value if is_loss(metric) else 1 - value)
        return f"attempt {row['attempt']}: {value}"

    return {first: f"{', '.join(map(words, rows))} (used)" for first, rows in repeated(results).items()}


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
