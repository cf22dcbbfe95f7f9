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
    "laws": (
        "One law per curve of cells that differ only in compute or only in data.",
        {
            "along": ("`compute`: x is training FLOPs; `data`: x is unique pairs", ""),
            **_BUDGET,
            **_CONFIGURATION,
            "form": ("Name of its form, see [Method](method.md#forms)", ""),
            "status": ("`ok`, or what the data do not support", ""),
            "floor": ("E: error at infinite x", "fraction"),
            "floor_low": ("Lower end of the interval of E; NaN without E in the form", "fraction"),
            "floor_high": ("Upper end of the interval of E", "fraction"),
            "scale": ("A: error above E at x = `unit`; in a bounded law the error of chance", "fraction"),
            "unit": ("The x at which A is given", "FLOPs or pairs"),
            "shift": (
                "x₀, added to x (0 in a form without it); in a bounded law the x half-way between A and E",
                "FLOPs or pairs",
            ),
            "alpha": ("Exponent α", ""),
            "alpha_low": ("Lower end of the interval of α", ""),
            "alpha_high": ("Upper end of the interval of α", ""),
            "miss": ("Root mean square of measured minus law", "fraction"),
            "levels": ("Number of distinct x", ""),
            "runs": ("Number of runs", ""),
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
        "How the best model size N and the samples D grow with compute, by three approaches.",
        {
            "family": ("Family of architectures", ""),
            "held": ("The fixed parts, in words", ""),
            "approach": ("`lower envelope`, `IsoFLOP minima` or `surface`", ""),
            "what": ("`N` or `D`", ""),
            "exponent": ("a in N ∝ C^a, or b in D ∝ C^b", ""),
            "low": ("Lower end of its interval", ""),
            "high": ("Upper end of its interval", ""),
            "points": ("Number of points behind it", ""),
            "status": ("`ok`, `no interval`, `unstable` or `none`", ""),
            "reason": ("Reason of the status, in words", ""),
            "size": ("What N is, in words", ""),
        },
    ),
    "cost": (
        "Training FLOPs and device hours by budget level; empty for an imported study.",
        {
            "level": ("Budget level, tuning, earlier declarations or other charge, in words", ""),
            "trials": ("Number of planned trials", ""),
            "planned": ("Planned training FLOPs", "FLOPs"),
            "spent": ("Training FLOPs spent, waste included", "FLOPs"),
            "wasted": ("The part lost with failed attempts", "FLOPs"),
            "evaluation": ("Forward FLOPs of evaluation and scoring, outside the budget", "FLOPs"),
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
        "best": lambda: found.frontier,
        "contrasts": lambda: found.contrasts,
        "laws": lambda: pd.DataFrame([_law(law) for law in found.laws]),
        "pareto": lambda: pd.concat([each.pareto for each in found.envelopes] or [pd.DataFrame()]),
        "exponents": lambda: found.exponents,
        "cost": lambda: found.levels,
    }[name]()
    return frame.reindex(columns=columns).reset_index(drop=True)


def _law(law: Law) -> dict[str, object]:
    fit, identity = law.fit, law.identity
    low, high = (law.floor.low, law.floor.high) if fit.form.floor else (float("nan"),) * 2
    return {
        "along": law.along,
        **{name: identity.get(name) for name in ("regime", "budget", *CONFIGURATION)},
        "form": fit.form.name, "status": fit.status,
        "floor": fit.floor, "floor_low": low, "floor_high": high,
        "scale": fit.scale, "unit": fit.unit, "shift": fit.shift,
        "alpha": fit.alpha, "alpha_low": law.alpha.low, "alpha_high": law.alpha.high,
        "miss": fit.miss, "levels": fit.levels, "runs": fit.rows,
    }  # fmt: skip
