"""The tables of a report: laws, and the answers derived from them."""

from collections.abc import Sequence
from math import isnan

import pandas as pd

from analysis.belief.curves import curve_text
from analysis.cells.intervals import QUANTILE
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import axis_text, budget_text, capital, configuration_text, interval_text
from analysis.laws.holdout import ORIGINS, Holdout
from analysis.laws.laws import Law
from analysis.report.tables import Table


def parameters(found: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return the parameters of the joint law of each regime, from the table of `parameters.parameters`."""
    rows = [
        {
            "Regime": row["regime"],
            "Parameter": _PARAMETER_WORDS.get(row["parameter"], f"effect of the {row['parameter']}"),
            "Of": row["of"] and axis_text(row["parameter"], row["of"]),
            "Value": _parameter_text(row["parameter"], row["value"], unit),
            "Interval": f"[{_parameter_text(row['parameter'], row['low'], unit)}, "
            f"{_parameter_text(row['parameter'], row['high'], unit)}]",
        }
        for row in records(found)
    ]
    note = (
        "error = E + (c − E)·q/(1 + q), c the error of chance (of losses: E + q), and "
        "ln q = γ·ln(a·F^−α + b·D^−β) + effects + drift, with F forward FLOPs of a sample and D samples "
        "seen, of which repeats count for less: they last R* epochs (Muennighoff et al. 2023). One law for "
        "all curves of a regime. Effects: factor of q, at the middle of the data and at equal F and D, to "
        "plain CLIP, to all data, or to the mean of the architectures; only parts that several curves share "
        "have one. Intervals are 90 %; α, β and γ trade off against each other, so that each alone is known "
        "less well than the curves are"
    )
    return Table(name="laws", title="The joint law", note=note, frame=pd.DataFrame(rows))


_PARAMETER_WORDS = {
    "E": "E", "alpha": "α, of size", "beta": "β, of samples", "gamma": "γ", "epochs": "R*, epochs",
}  # fmt: skip


def _parameter_text(name: str, value: float, unit: ErrorUnit) -> str:
    if name == "E":
        return unit.number(value)
    return f"{value:.3g}" if name in _PARAMETER_WORDS else f"×{value:.2f}"


def curves(laws: Sequence[Law], unit: ErrorUnit) -> Table:
    """Return every curve with how far it is from the joint law."""
    mixed = len({law.identity["regime"] for law in laws}) > 1
    rows = [
        {
            "Along": law.along,
            "Curve": curve_text(law, named=mixed),
            "Runs": str(law.runs),
            "Levels": str(law.levels),
            unit.gap_heading_of("Misses"): "–" if isnan(law.miss) else unit.number(law.miss, fine=True),
            unit.gap_heading_of("Noise"): unit.number(law.noise, fine=True),
            "Status": law.status,
        }
        for law in laws
    ]
    note = (
        "misses: root mean square of measured minus law, which along data joins the joint estimates of the "
        "cells by straight lines. Noise: root mean square of the standard errors of the cells' means. No "
        "decrease: the cells fall by no more than their noise"
    )
    return Table(name="curves", title="Curves", note=note, frame=pd.DataFrame(rows))


def holdout(held: Holdout, unit: ErrorUnit) -> Table:
    """Return the scores of the forecasts of held-out levels."""
    rows = [
        {
            "Forecast": row["law"],
            "Held-out cells": str(row["cells"]),
            unit.gap_heading_of("Mean absolute miss"): unit.number(row["error"], fine=True),
            unit.gap_heading_of("Bias"): unit.number(row["bias"], fine=True),
            "Intervals that hold": "–" if isnan(row["held"]) else f"{row['held']:.0%}",
        }
        for row in records(held.scores)
    ]
    note = (
        f"the joint law is refitted without each of the last {ORIGINS} levels of a regime and all above it, "
        f"and forecasts the cells of that level. {capital(held.reason)}".strip()
    )
    return Table(name="holdout", title="Forecasts of held-out levels", note=note, frame=pd.DataFrame(rows))


def exponents(found: pd.DataFrame) -> Table:
    """Return the growth of model size and data with compute, from the table of ``scaling_exponents``."""
    rows = [
        {
            "Regime": size["regime"],
            "a (N ∝ C^a)": "–" if isnan(size["exponent"]) else f"{size['exponent']:.3f}",
            "a interval": interval_text(size["low"], size["high"], ".3f"),
            "b (D ∝ C^b)": "–" if isnan(data["exponent"]) else f"{data['exponent']:.3f}",
            "b interval": interval_text(data["low"], data["high"], ".3f"),
            "Sizes": str(size["sizes"]),
            "Status": size["status"],
            "Reason": size["reason"] or "–",
        }
        for size, data in zip(
            records(found[found["what"] == "N"]), records(found[found["what"] == "D"]), strict=True
        )
    ]
    note = (
        "the size of lowest error at each compute, by the joint law (Hoffmann et al. 2022, §3), for data of "
        "which no pair is seen twice. N: training FLOPs of a sample; D: samples seen; compute is N·D, so "
        "b = 1 − a. Over the computes of the cells"
    )
    return Table(
        name="exponents", title="How model size and data grow with compute", note=note,
        frame=pd.DataFrame(rows),
    )  # fmt: skip


def outliers(found: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return the runs that stand out, from the table of ``outliers.outliers``."""
    middle, reach = found["error"] - found["miss"], QUANTILE * found["deviation"]
    rows = [
        {
            "Trial": row["trial"], "Configuration": configuration_text(row),
            "Budget": budget_text(row["regime"], row["budget"]), unit.heading: unit.number(row["error"]),
            "All others predict": f"{unit.number(row['at'])} {unit.interval(row['low'], row['high'])}",
            unit.gap_heading_of("Off by"): unit.number(row["miss"]),
            "Standard deviations": f"{row['deviations']:.0f}",
        }
        for row in records(found.assign(at=middle, low=middle - reach, high=middle + reach))
    ]  # fmt: skip
    note = "none is left out, but they have little weight in the noise, the law and the errors of their cells"
    return Table(name="outliers", title="Runs that stand out", note=note, frame=pd.DataFrame(rows))
