"""Answers of a study as frames of numbers, each column with its meaning and unit; docs/results.md lists them.

Errors are fractions from 0 to 1, or values of a loss; budgets are training FLOPs under ``fixed-compute`` and
samples seen otherwise; intervals are 90 %, NaN when unknown.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.answers.recommendation import Recommendation
from analysis.cells.table import CONFIGURATION, records
from analysis.laws.laws import Law
from analysis.report.analyse import Analysis
from budgets.cost.flops import CONVENTION
from budgets.quantity import finite_or_none

ColumnMeanings = Mapping[str, tuple[str, str]]
"""Column → its meaning and its unit."""

_X = "FLOPs or pairs"
_MEANINGS: ColumnMeanings = {
    "regime": ("`fixed-compute`, `one-epoch` or `equal-samples`", ""),
    "budget": ("Budget level", "FLOPs or samples"),
    "subset_size": ("Size of the training subset", "pairs"),
    "quality": ("Quality filter of the subset", ""),
    "architecture": ("Architecture, by its catalogue name", ""),
    "strategy": ("Training strategy, by its name", ""),
    "train_flops": ("Training FLOPs of the whole trial", "FLOPs"),
    "train_flops_per_sample": ("Training FLOPs of one pair", "FLOPs"),
    "samples_seen": ("Pairs that pass through training, repeats included", "pairs"),
    "epochs": ("`samples_seen` ÷ `subset_size`", ""),
    "parameters": ("Trainable parameters", "parameters"),
    "runs": ("Number of its runs", ""),
    "by_trunk": ("Whether these are trunk states alone", ""),
    "error": ("Mean error of its runs", "fraction"),
    "low": ("Lower end of its interval", "fraction"),
    "high": ("Upper end of its interval", "fraction"),
    "probability": ("Share of the draws in which it has the lowest error", ""),
    "runner_up": ("Configuration or value with the second lowest error, in words", ""),
    "runner_up_error": ("Error of the runner-up", "fraction"),
    "gap": ("Error of the runner-up minus error of the best", "fraction"),
    "gap_low": ("Lower end of the interval of the gap", "fraction"),
    "gap_high": ("Upper end of the interval of the gap", "fraction"),
    "verdict": ("`clear`, `forecast` (clear by forecast), `tie`, `undecided` or `beaten`", ""),
    "distance": (
        "Factor between its budget, or its epochs, and its own runs; 1 between them, inf without",
        "",
    ),
    "reason": ("Reason of the verdict, in words", ""),
    "axis": ("The part that varies", ""),
    "held": ("The fixed parts, in words", ""),
    "along": ("`compute`: x is training FLOPs; `data`: x is unique pairs", ""),
    "trial": ("Id of the trial", ""),
    "seed": ("Seed", ""),
    "train_loss": ("Mean training loss of the last tenth of the steps", ""),
    "configurations": ("Number of configurations compared", ""),
    "not_run": ("Untried combinations of the leaders' parts, in words", ""),
    "score_flops": ("What the score of its quality cost: training of its models, scoring", "FLOPs"),
    "values": ("The compared values, in words", ""),
    "best": ("The value with the lowest error, in words", ""),
    "option": ("One value, in words", ""),
    "other": ("The other: plain CLIP if it is one of them, else the one behind at the end", ""),
    "factor": ("k: the other needs k·x for the error of the option at x", ""),
    "factor_low": ("Lower end of the interval of k; 0 if it lies below `lowest`", ""),
    "factor_high": ("Upper end of the interval of k; infinite if it lies above `highest`", ""),
    "lowest": ("Smallest k within the x of the other", ""),
    "highest": ("Largest k within the x of the other", ""),
    "x": ("Place on the curve; NaN without points", _X),
    "y": ("Median of the error there", "fraction"),
    "x_from": ("Smallest x that both have", _X),
    "x_to": ("Largest x that both have", _X),
    "crossing": ("`overtakes`, `is overtaken`, `none within the data` or `undecided`", ""),
    "crossing_x": ("Where they cross last", _X),
    "x_low": ("Lower end of its interval; 0 if open", _X),
    "x_high": ("Upper end of its interval; infinite if open", _X),
    "crossings": ("How often they cross", ""),
    "status": ("`ok`, `no decrease` or `no intervals`; only the first has points", ""),
    "parameter": ("`E`, `alpha`, `beta`, `gamma`, `epochs` of repeats, or the part of an effect", ""),
    "of": ("The architecture, strategy or quality of an effect; empty otherwise", ""),
    "value": ("Median; an effect is a factor of q", ""),
    "what": ("`N` or `D`", ""),
    "exponent": ("a in N ∝ C^a, or b in D ∝ C^b", ""),
    "sizes": ("Number of model sizes", ""),
    "level": ("Budget level, tuning, earlier declarations or a quality score, in words", ""),
    "trials": ("Number of planned trials", ""),
    "planned": ("Planned training FLOPs", "FLOPs"),
    "spent": ("Training FLOPs spent, waste included", "FLOPs"),
    "wasted": ("The part lost with failed attempts", "FLOPs"),
    "evaluation": ("Forward FLOPs of evaluation, outside the budget", "FLOPs"),
    "hours": ("Hours in trials times the devices of each", "hours"),
    "name": ("The configuration in words", ""),
    "flops": ("Training FLOPs that it spends", "FLOPs"),
    "serving_flops": ("Forward FLOPs of what it serves over its life, if that was said", "FLOPs"),
    "share": ("The share of the budget for training that it spends", ""),
    "measured": ("Whether it was run there", ""),
}


class AnswerFrame(NamedTuple):
    """The content of a frame in words, and its columns with meaning and unit."""

    content: str
    columns: ColumnMeanings


def _frame(content: str, names: str, **meanings: tuple[str, str]) -> AnswerFrame:
    """Return a frame by the names of its columns, and what some of them mean in it (``meanings``)."""
    every = {**_MEANINGS, **meanings}
    return AnswerFrame(content, {name: every[name] for name in names.split()})


_CELL = f"regime budget {' '.join(CONFIGURATION)}"
_SIZES = "train_flops train_flops_per_sample samples_seen epochs parameters"
_VERDICT = "probability runner_up runner_up_error gap gap_low gap_high verdict distance reason"
_NO_UNIT = {"low": ("Lower end of its interval", ""), "high": ("Upper end of its interval", "")}
FRAMES: Mapping[str, AnswerFrame] = {
    "trials": _frame(
        "One row per finished trial with the metric, without those of trunks.",
        f"trial {_CELL} seed {_SIZES} train_loss error",
        error=("1 − the metric, or the loss", "fraction"),
    ),
    "best": _frame(
        "The best configuration at each budget.",
        f"{_CELL} train_flops samples_seen epochs parameters runs error low high configurations {_VERDICT} "
        "not_run score_flops by_trunk",
    ),
    "recommend": _frame(
        "The configurations that fit a compute and a data budget, the recommended one first.",
        f"name {_CELL.replace('budget ', '')} flops serving_flops share epochs error low high "
        "probability measured by_trunk distance",
        error=("Median of the draws of its error", "fraction"),
        by_trunk=("Whether it is read from its trunk state there", ""),
    ),
    "contrasts": _frame(
        "Comparisons along one part of the configuration, the others fixed.",
        f"axis regime budget held values best error low high {_VERDICT}",
    ),
    "comparisons": _frame(
        "Two options that differ in one part of the configuration: difference, worth, and where they cross.",
        "axis along held option other x gap gap_low gap_high probability verdict factor factor_low "
        "factor_high lowest highest x_from x_to crossing crossing_x x_low x_high crossings reason",
        x=("Where the two are compared, an x of the option", _X),
        gap=("Error of the other minus error of the option; NaN beyond the other's x", "fraction"),
        probability=("Share of the draws in which the option has the lower error", ""),
        verdict=("`ahead`, `behind` or `undecided`: the option at x", ""),
        reason=("Reason of the verdict on the crossing, in words", ""),
    ),
    "laws": _frame(
        "Parameters of the joint law of each regime, see [Method](method.md#joint-law).",
        "regime parameter of value low high",
        **_NO_UNIT,
    ),
    "bands": _frame(
        "Curves of cells that differ only in compute or only in data: points of the joint law along them.",
        f"along {_CELL} status x y low high",
    ),
    "pareto": _frame(
        "Cells that no other cell beats at equal or lower compute.",
        f"{_CELL} {_SIZES} error runs probability",
        probability=("Share of the draws in which it is on the frontier", ""),
    ),
    "exponents": _frame(
        "How the best model size N (training FLOPs of a sample) and the samples D grow with compute.",
        "regime what exponent low high sizes status reason",
        **_NO_UNIT,
        status=("`ok`, `undetermined` or `none`", ""),
        reason=("Reason of the status, in words; empty if it is `ok`", ""),
    ),
    "cost": _frame(
        "Training FLOPs and device hours by budget level; empty for an imported study.",
        "level trials planned spent wasted evaluation hours",
    ),
}
"""Name → content and columns of each frame."""

RECOMMENDATION = _frame(
    "What `recommend --json` prints: one object. Unknown, infinite and not asked for is `null`.",
    f"convention flops pairs least_compute leader error low high {_VERDICT} tied cheaper next candidates",
    convention=("Convention of the FLOPs", ""),
    flops=("Training FLOPs of one trial, with those of serving: asked for or `least_compute`", "FLOPs"),
    pairs=("Pairs of the pool before filtering", "pairs"),
    least_compute=("With `--error`: that `error`, the least `flops` that reach it, their `low`, `high`", ""),
    leader=("The recommended configuration in words", ""),
    error=("Median of the draws of its error", "fraction"),
    runner_up=("The next most probable configuration, in words", ""),
    tied=("All that tie, in words, joined by `; `", ""),
    cheaper=("Which measured cell is lower at a lower cost, in words", ""),
    next=("The run that would decide or confirm the choice, in words", ""),
    candidates=("Objects with the columns of the frame above", ""),
)
"""What ``recommend --json`` prints."""


def answer_frame(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with exactly the documented columns of the frame of a name in `FRAMES`."""
    return rows.reindex(columns=list(FRAMES[name].columns)).reset_index(drop=True)


def recommendation_object(advice: Recommendation) -> dict[str, Any]:
    """Return a recommendation as values for JSON, by the keys of `RECOMMENDATION`."""
    candidates, least = advice.candidates, advice.least
    names = candidates["name"].tolist()
    content = advice.verdict.columns(names) | {
        "convention": CONVENTION, "flops": advice.flops, "pairs": advice.pairs, "leader": names[0],
        "cheaper": advice.cheaper, "next": advice.experiment,
        "least_compute": None if least is None else _plain(asdict(least)),
        "candidates": [_plain(row) for row in records(answer_frame("recommend", candidates))],
    }  # fmt: skip
    return _plain({name: content[name] for name in RECOMMENDATION.columns})


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with values that JSON has."""
    return {
        name: finite_or_none(value.item() if isinstance(value, np.generic) else value)
        for name, value in row.items()
    }


def curve_points(analysis: Analysis) -> pd.DataFrame:
    """Return the points of all curves; one row for a curve without a point."""
    return pd.concat([_curve(law) for law in analysis.laws] or [pd.DataFrame()])


def _curve(law: Law) -> pd.DataFrame:
    fixed = {name: law.identity.get(name) for name in ("regime", "budget", *CONFIGURATION)}
    points = law.band if len(law.band) else pd.DataFrame({"x": [float("nan")]})
    return points.assign(along=law.along, status=law.status, **fixed)
