"""Answers of a study as frames of numbers, each column with its meaning and unit; docs/results.md lists them.

Errors are fractions from 0 to 1, or values of a loss; budgets are training FLOPs under ``fixed-compute`` and
samples seen otherwise; intervals are 90 %, NaN when unknown.
"""

from collections.abc import Mapping

import pandas as pd

from analysis.cells.table import CONFIGURATION
from analysis.laws.laws import Law
from analysis.report.analyse import Analysis

ColumnMeanings = Mapping[str, tuple[str, str]]
"""Column → its meaning and its unit."""

_CONFIGURATION: ColumnMeanings = {
    "subset_size": ("Size of the training subset", "pairs"),
    "quality": ("Quality filter of the subset", ""),
    "architecture": ("Architecture, by its catalogue name", ""),
    "strategy": ("Training strategy, by its name", ""),
}
_BUDGET: ColumnMeanings = {
    "regime": ("`fixed-compute`, `one-epoch` or `equal-samples`", ""),
    "budget": ("Budget level", "FLOPs or samples"),
}
_ERROR: ColumnMeanings = {
    "error": ("Mean error of its runs", "fraction"),
    "low": ("Lower end of its interval", "fraction"),
    "high": ("Upper end of its interval", "fraction"),
}
_VERDICT: ColumnMeanings = {
    "probability": ("Share of the draws in which it has the lowest error", ""),
    "runner_up": ("Configuration or value with the second lowest error, in words", ""),
    "runner_up_error": ("Error of the runner-up", "fraction"),
    "gap": ("Error of the runner-up minus error of the best", "fraction"),
    "gap_low": ("Lower end of the interval of the gap", "fraction"),
    "gap_high": ("Upper end of the interval of the gap", "fraction"),
    "verdict": ("`clear`, `tie` or `undecided`", ""),
    "reason": ("Reason of the verdict, in words", ""),
}
_SIZES: ColumnMeanings = {
    "train_flops": ("Training FLOPs of the whole trial", "FLOPs"),
    "train_flops_per_sample": ("Training FLOPs of one pair", "FLOPs"),
    "samples_seen": ("Pairs that pass through training, repeats included", "pairs"),
    "epochs": ("`samples_seen` ÷ `subset_size`", ""),
    "parameters": ("Trainable parameters", "parameters"),
}

FRAMES: Mapping[str, tuple[str, ColumnMeanings]] = {
    "trials": (
        "One row per finished trial with the metric.",
        {
            "trial": ("Id of the trial", ""),
            **_BUDGET,
            **_CONFIGURATION,
            "seed": ("Seed", ""),
            **_SIZES,
            "train_loss": ("Mean training loss of the last tenth of the steps", ""),
            "error": ("1 − the metric, or the loss", "fraction"),
        },
    ),
    "best": (
        "The best configuration at each budget.",
        {
            **_BUDGET,
            **_CONFIGURATION,
            **{name: _SIZES[name] for name in ("train_flops", "samples_seen", "epochs", "parameters")},
            "runs": ("Number of its runs", ""),
            **_ERROR,
            "configurations": ("Number of configurations compared", ""),
            **_VERDICT,
            "verdict": ("`clear`, `tie`, `undecided` or `beaten`", ""),
            "not_run": ("Untried combinations of the leaders' parts, in words", ""),
            "score_flops": ("What the score of its quality cost: training of its models, scoring", "FLOPs"),
        },
    ),
    "contrasts": (
        "Comparisons along one part of the configuration, the others fixed.",
        {
            "axis": ("The part that varies", ""),
            **_BUDGET,
            "held": ("The fixed parts, in words", ""),
            "values": ("The compared values, in words", ""),
            "best": ("The value with the lowest error, in words", ""),
            **_ERROR,
            **_VERDICT,
        },
    ),
    "comparisons": (
        "Two options that differ in one part of the configuration: difference, worth, and where they cross.",
        {
            "axis": ("The part that varies", ""),
            "along": ("`compute`: x is training FLOPs; `data`: x is unique pairs", ""),
            "held": ("The fixed parts, in words", ""),
            "option": ("One value, in words", ""),
            "other": ("The other: plain CLIP if it is one of them, else the one behind at the end", ""),
            "x": ("Where the two are compared, an x of the option", "FLOPs or pairs"),
            "gap": ("Error of the other minus error of the option; NaN beyond the other's x", "fraction"),
            "gap_low": ("Lower end of the interval of the gap", "fraction"),
            "gap_high": ("Upper end of the interval of the gap", "fraction"),
            "probability": ("Share of the draws in which the option has the lower error", ""),
            "verdict": ("`ahead`, `behind` or `undecided`: the option at x", ""),
            "factor": ("k: the other needs k·x for the error of the option at x", ""),
            "factor_low": ("Lower end of the interval of k; 0 if it lies below `lowest`", ""),
            "factor_high": ("Upper end of the interval of k; infinite if it lies above `highest`", ""),
            "lowest": ("Smallest k within the x of the other", ""),
            "highest": ("Largest k within the x of the other", ""),
            "x_from": ("Smallest x that both have", "FLOPs or pairs"),
            "x_to": ("Largest x that both have", "FLOPs or pairs"),
            "crossing": ("`overtakes`, `is overtaken`, `none within the data` or `undecided`", ""),
            "crossing_x": ("Where they cross last", "FLOPs or pairs"),
            "x_low": ("Lower end of its interval; 0 if open", "FLOPs or pairs"),
            "x_high": ("Upper end of its interval; infinite if open", "FLOPs or pairs"),
            "crossings": ("How often they cross", ""),
            "reason": ("Reason of the verdict on the crossing, in words", ""),
        },
    ),
    "laws": (
        "Parameters of the joint law of each regime, see [Method](method.md#joint-law).",
        {
            "regime": _BUDGET["regime"],
            "parameter": ("`E`, `alpha`, `beta`, `gamma`, `epochs` of repeats, or the part of an effect", ""),
            "of": ("The architecture, strategy or quality of an effect; empty otherwise", ""),
            "value": ("Median; an effect is a factor of q", ""),
            "low": ("Lower end of its interval", ""),
            "high": ("Upper end of its interval", ""),
        },
    ),
    "bands": (
        "Curves of cells that differ only in compute or only in data: points of the joint law along them.",
        {
            "along": ("`compute`: x is training FLOPs; `data`: x is unique pairs", ""),
            **_BUDGET,
            **_CONFIGURATION,
            "status": ("`ok`, `no decrease` or `no intervals`; only the first has points", ""),
            "x": ("Place on the curve; NaN without points", "FLOPs or pairs"),
            "y": ("Median of the error there", "fraction"),
            "low": ("Lower end of its interval", "fraction"),
            "high": ("Upper end of its interval", "fraction"),
        },
    ),
    "pareto": (
        "Cells that no other cell beats at equal or lower compute.",
        {
            **_BUDGET,
            **_CONFIGURATION,
            **_SIZES,
            "error": ("Mean error of its runs", "fraction"),
            "runs": ("Number of its runs", ""),
            "probability": ("Share of the draws in which it is on the frontier", ""),
        },
    ),
    "exponents": (
        "How the best model size N (training FLOPs of a sample) and the samples D grow with compute.",
        {
            "regime": _BUDGET["regime"],
            "what": ("`N` or `D`", ""),
            "exponent": ("a in N ∝ C^a, or b in D ∝ C^b", ""),
            "low": ("Lower end of its interval", ""),
            "high": ("Upper end of its interval", ""),
            "sizes": ("Number of model sizes", ""),
            "status": ("`ok`, `undetermined` or `none`", ""),
            "reason": ("Reason of the status, in words; empty if it is `ok`", ""),
        },
    ),
    "cost": (
        "Training FLOPs and device hours by budget level; empty for an imported study.",
        {
            "level": ("Budget level, tuning, earlier declarations or a quality score, in words", ""),
            "trials": ("Number of planned trials", ""),
            "planned": ("Planned training FLOPs", "FLOPs"),
            "spent": ("Training FLOPs spent, waste included", "FLOPs"),
            "wasted": ("The part lost with failed attempts", "FLOPs"),
            "evaluation": ("Forward FLOPs of evaluation, outside the budget", "FLOPs"),
            "hours": ("Hours in trials times the devices of each", "hours"),
        },
    ),
}
"""Name → content and columns of each frame."""


def answer_frame(name: str, found: Analysis) -> pd.DataFrame:
    """Return the frame of a name in `FRAMES`, with exactly its documented columns."""
    columns = list(FRAMES[name][1])
    frame: pd.DataFrame = {
        "trials": lambda: found.trials.frame,
        "best": lambda: found.best,
        "contrasts": lambda: found.contrasts,
        "comparisons": lambda: found.comparisons,
        "laws": lambda: found.parameters,
        "bands": lambda: pd.concat([_curve(law) for law in found.laws] or [pd.DataFrame()]),
        "pareto": lambda: found.pareto,
        "exponents": lambda: found.exponents,
        "cost": lambda: found.levels,
    }[name]()
    return frame.reindex(columns=columns).reset_index(drop=True)


def _curve(law: Law) -> pd.DataFrame:
    """Return the points of a curve, or one row without a point."""
    fixed = {name: law.identity.get(name) for name in ("regime", "budget", *CONFIGURATION)}
    points = law.band if len(law.band) else pd.DataFrame({"x": [float("nan")]})
    return points.assign(along=law.along, status=law.status, **fixed)
