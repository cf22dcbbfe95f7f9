"""The tables of a report: laws, and the answers derived from them."""

from collections.abc import Sequence
from math import isinf, isnan
from typing import Any

import pandas as pd

from analysis.answers.envelope import Envelope
from analysis.answers.quality_trade import QualityTrade
from analysis.cells.curves import curve_text
from analysis.cells.intervals import FEWEST
from analysis.cells.table import records
from analysis.error_unit import ErrorUnit
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    configuration_text,
    count_text,
    interval_text,
    listed,
)  # fmt: skip
from analysis.laws.holdout import Holdout
from analysis.laws.law_fit import LawFit
from analysis.laws.laws import Law
from analysis.laws.surface_forecast import FamilySurface
from analysis.report.tables import Table, share_text, x_interval, x_text
from analysis.sizes.scaling_exponents import differences
from budgets.quantity import format_flops


def fits(laws: Sequence[Law], unit: ErrorUnit) -> Table:
    """Return every curve with its law, or why it has none."""
    rows, mixed = [], len({law.identity["regime"] for law in laws}) > 1
    for law in laws:
        fit, shown = law.fit, law.fit.supported
        rows.append({
            "Along": law.along,
            "Curve": curve_text(law, named=mixed),
            "Runs": str(fit.rows),
            "Levels": str(fit.levels),
            "Form": fit.form.name,
            unit.heading_of("E"): unit.number(fit.floor) if shown and fit.form.floor else "–",
            "E interval": unit.interval(law.floor.low, law.floor.high) if fit.form.floor else "–",
            "E BCa": unit.interval(law.floor.bca_low, law.floor.bca_high) if fit.form.floor else "–",
            unit.heading_of("A"): unit.number(fit.scale) if shown else "–",
            "at": x_text(law.along, fit.unit) if shown and not fit.form.bounded else "–",
            "Shift x₀": x_text(law.along, fit.shift) if shown and fit.form.shift else "–",
            "α": f"{fit.alpha:.3f}" if shown else "–",
            "α interval": interval_text(law.alpha.low, law.alpha.high),
            "α BCa": interval_text(law.alpha.bca_low, law.alpha.bca_high),
            unit.gap_heading_of("Misses"): unit.number(fit.miss, fine=True) if fit.freedom else "–",
            unit.gap_heading_of("Noise"): unit.number(fit.noise, fine=True),
            "Lack of fit (p)": f"{fit.lack_of_fit:.2g}" if fit.lack_of_fit == fit.lack_of_fit else "–",
            unit.gap_heading_of("Discrepancy"): unit.number(law.discrepancy.sd, fine=True),
            "Starts agreeing": f"{fit.agreement} of {fit.starts}" if fit.starts else "–",
            "Status": fit.status,
        })  # fmt: skip
    note = (
        "x: training FLOPs of a trial (compute) or unique pairs (data). A: error above E at the given x; in "
        "a bounded law the error of chance. Least squares of the error, weighted by runs. Misses: root mean "
        "square of measured minus law. Lack of fit: p-value of the misses if noise were their only cause. "
        "Discrepancy: misses of a family's laws beyond the noise; part of every interval. Intervals: "
        f"percentile, and bias-corrected and accelerated (BCa, from {FEWEST} runs on). "
        f"{_held_text(laws, unit)}"
    )
    return Table(name="fits", title="Fitted laws", note=note, frame=pd.DataFrame(rows))


def _held_text(laws: Sequence[Law], unit: ErrorUnit) -> str:
    families = {(law.along, str(law.identity["regime"])): law.choice for law in laws}
    said = [
        f"over {along}, {regime}: {choice.form.name}, with a held-out error of {unit.gap(choice.error)}"
        if choice.tested
        else f"over {along}, {regime}: {choice.form.name}; {choice.reason}"
        for (along, regime), choice in families.items()
    ]
    return f"Each family of curves has one form, chosen by held-out error: {'; '.join(said)}" if said else ""


def surfaces(found: Sequence[FamilySurface], unit: ErrorUnit) -> Table:
    """Return the surface of each family with its decays, or what the data do not determine."""
    rows = []
    for one in found:
        law, shown = one.fit.surface, one.fit.surface.supported
        regime, quality, strategy, family = one.key
        rows.append({
            "Family": family,
            "Fixed": f"{regime}, {axis_text('strategy', strategy)}, {axis_text('quality', quality)}",
            "Runs": str(law.rows),
            unit.heading_of("E"): unit.number(law.floor) if shown else "–",
            "α": f"{law.alpha:.3f}" if shown else "–",
            "α interval": interval_text(one.alpha.low, one.alpha.high),
            "α BCa": interval_text(one.alpha.bca_low, one.alpha.bca_high),
            "β": f"{law.beta:.3f}" if shown else "–",
            "β interval": interval_text(one.beta.low, one.beta.high),
            "β BCa": interval_text(one.beta.bca_low, one.beta.bca_high),
            "R* of data": f"{one.fit.decay:.3g}" if one.fit.status == "ok" else "–",
            "R* of size": "–" if isinf(one.fit.size_decay) else f"{one.fit.size_decay:.3g}",
            "Starts agreeing": f"{law.agreement} of {law.starts}" if law.starts else "–",
            "Status": law.status,
            "Reason": _surface_reason(one),
        })  # fmt: skip
    note = (
        "error = E + A·N^-α + B·D^-β, with N training FLOPs per sample and D samples seen. The worth of a "
        "repeated pair decays over about R* repetitions, as does that of parameters beyond the best size for "
        "the pairs (Muennighoff et al. 2023). Huber loss of the logarithm, weighted by runs; R* is fixed in "
        "the draws"
    )
    return Table(name="surfaces", title="Surfaces", note=note, frame=pd.DataFrame(rows))


def _surface_reason(one: FamilySurface) -> str:
    if not one.fit.surface.supported:
        return one.fit.surface.reason
    said = [one.fit.surface.reason] if one.fit.surface.status != "ok" else []
    said += [f"R* of data: {one.fit.reason}"] if one.fit.status != "ok" else []
    said += [f"R* of size: {one.fit.size_reason}"] if isinf(one.fit.size_decay) else []
    return "; ".join(said)


def holdout(held: Holdout, unit: ErrorUnit) -> Table:
    """Return the held-out forecasts of every law."""
    rows = [
        {
            "Law": row["law"],
            "Curves": str(row["curves"]),
            "Held-out cells": str(row["points"]),
            unit.gap_heading_of("Error"): unit.number(row["error"], fine=True),
            unit.gap_heading_of("Bias"): unit.number(row["bias"], fine=True),
            "Use": _forecasts(held, row, unit),
        }
        for row in records(held.scores)
    ]
    note = (
        "each law is refitted without the largest quarter of a curve's levels (at least one) and scored on "
        f"these; error: root mean square of forecast minus measured. {_chosen_text(held)}"
    )
    return Table(name="holdout", title="Held-out forecasts", note=note, frame=pd.DataFrame(rows))


def _chosen_text(held: Holdout) -> str:
    if held.reason:
        return f"{capital(held.reason)}."
    return " ".join(
        f"{capital(regime)}: {choice.form.name}, {choice.reason}." for regime, choice in held.choices.items()
    )


def _forecasts(held: Holdout, row: dict[str, Any], unit: ErrorUnit) -> str:
    regimes = [regime for regime, choice in held.choices.items() if choice.form.name == row["law"]]
    if regimes:
        return f"form of the curves: {listed(regimes)}"
    families = [one for one in held.surfaces.values() if one.law == row["law"]]
    if families:
        errors = ", ".join(unit.gap(one.error, fine=True) for one in families)
        return f"forecasts {len(families)} of the families with lower error than the curves: {errors}"
    return "" if row["compared"] else "too few cells to compare"


def crossovers(found: pd.DataFrame) -> Table:
    """Return the crossovers of architectures and strategies."""
    rows = [
        {
            "Along": row["along"],
            "Fixed": row["held"],
            "Behind at the end": row["behind"],
            "Ahead at the end": row["ahead"],
            "From": x_text(row["along"], row["x_low"]),
            "To": x_text(row["along"], row["x_high"]),
            "Verdict": row["verdict"],
            "Crossover": x_text(row["along"], row["x"]),
            "Interval": x_interval(row["along"], row["low"], row["high"]),
            "BCa": x_interval(row["along"], row["bca_low"], row["bca_high"]),
            "P(ahead) first": share_text(row["ahead_first"]),
            "P(ahead) last": share_text(row["ahead_last"]),
            "Reason": row["reason"],
        }
        for row in records(found)
    ]
    note = (
        "pairs of curves that differ only in architecture or strategy, read by their laws if both have one, "
        "otherwise by the best so far between their cells; an end beyond the measured range is open"
    )
    return Table(name="crossovers", title="Crossovers", note=note, frame=pd.DataFrame(rows))


def equivalences(found: pd.DataFrame) -> Table:
    """Return the worth of each strategy in data or compute."""
    rows = [
        {
            "Along": row["along"],
            "Fixed": row["held"],
            "Strategy": row["strategy"],
            "At": x_text(row["along"], row["x"]),
            "Worth": _ratio(row["ratio"], row["bound"]),
            "Interval": _ratios(row["low"], row["high"], row["bound"]),
            "BCa": _ratios(row["bca_low"], row["bca_high"], row["bound"]),
            "Verdict": row["verdict"],
        }
        for row in records(found)
    ]
    note = (
        "×k: the strategy at x has the error of plain CLIP at k·x; ×2 along data means that half of the data "
        "suffice. Curves are read by their laws if both have one, otherwise by the best so far between their "
        "cells. < and >: beyond the measured range of plain CLIP"
    )
    return Table(name="equivalence", title="What a strategy is worth", note=note, frame=pd.DataFrame(rows))


def envelope(found: Sequence[Envelope], unit: ErrorUnit) -> Table:
    """Return the Pareto frontier over compute, with the law of the envelope."""
    rows = [
        {
            "FLOPs": format_flops(row["train_flops"]),
            "Configuration": configuration_text(row),
            unit.heading: unit.number(row["error"]),
            "P(on the frontier)": share_text(row["probability"]),
        }
        for one in found
        for row in records(one.pareto)
    ]
    said = [_envelope_text(one, unit) for one in found]
    note = f"cells that no other cell beats at equal or lower cost. {' '.join(said)}".strip()
    return Table(name="envelope", title="Pareto frontier over compute", note=note, frame=pd.DataFrame(rows))


def _envelope_text(one: Envelope, unit: ErrorUnit) -> str:
    law = one.fit
    if not law.supported:
        return f"{capital(one.regime)}: no law of the envelope: {law.reason}."
    ends = interval_text(one.alpha.low, one.alpha.high)
    return (
        f"{capital(one.regime)}: the lowest curve at each compute follows {law_text(law, unit)}, "
        f"α = {law.alpha:.3f} {ends and ends + ' '}({law.status})."
    )


def law_text(law: LawFit, unit: ErrorUnit) -> str:
    """Return a law over compute C as a formula of its form, with α left as a symbol."""
    floor = f"{unit.number(law.floor)} + " if law.form.floor else ""
    if law.form.bounded:
        above = unit.number(law.scale - law.floor)
        return f"{floor}{above}·q/(1 + q){unit.sign} with q = (C/{law.shift:.3g})^-α"
    base = f"(C + {law.shift:.3g})/{law.unit + law.shift:.3g}" if law.form.shift else f"C/{law.unit:.3g}"
    return f"{floor}{unit.number(law.scale)}·({base})^-α{unit.sign}"


def exponents(found: pd.DataFrame) -> Table:
    """Return the growth of model size and data with compute, from the table of ``scaling_exponents``."""
    rows = [
        {
            "Family": size["family"],
            "Fixed": size["held"],
            "Approach": size["approach"],
            "a (N ∝ C^a)": "–" if isnan(size["exponent"]) else f"{size['exponent']:.3f}",
            "a interval": interval_text(size["low"], size["high"], ".3f"),
            "b (D ∝ C^b)": "–" if isnan(data["exponent"]) else f"{data['exponent']:.3f}",
            "b interval": interval_text(data["low"], data["high"], ".3f"),
            "Points": str(size["points"]),
            "N is": size["size"],
            "Status": size["status"],
            "Reason": size["reason"],
        }
        for size, data in zip(
            records(found[found["what"] == "N"]), records(found[found["what"] == "D"]), strict=True
        )
    ]
    note = (
        "the three approaches of Hoffmann et al. 2022, §3: the size with the lowest interpolated curve at "
        "each compute, the minima of the IsoFLOP profiles, and β/(α + β) of the surface. Compute is "
        f"proportional to N·D, so b = 1 − a. {' '.join(differences(found))}"
    ).strip()
    return Table(
        name="exponents", title="How model size and data grow with compute", note=note,
        frame=pd.DataFrame(rows),
    )  # fmt: skip


def quality_trades(found: Sequence[QualityTrade]) -> Table:
    """Return the change of the best kept fraction with the budget and with the pool."""
    rows = [
        {
            "As this grows": "compute" if one.along == "budget" else "the pool",
            "Fixed": f"{one.held['architecture']}, {axis_text('strategy', one.held['strategy'])}, "
            + (
                budget_text(str(one.held["regime"]), one.held["budget"])
                if one.along == "pool"
                else f"a pool of about {count_text(_two_digits(2.0 ** one.held['pool']))} pairs"
            ),
            "Best fraction": ", ".join(f"{row['fraction']:.0%}" for row in records(one.best)),
            "Slope": f"{one.slope:+.2f}",
            "Interval": interval_text(one.slope_low, one.slope_high, "+.2f"),
            "Verdict": one.verdict,
            "Reason": one.reason,
        }
        for one in found
    ]
    note = "slope: of the logarithm of the best fraction over the logarithm of the compute or of the pool"
    return Table(name="quality-trade", title="How much to filter", note=note, frame=pd.DataFrame(rows))


def _two_digits(count: float) -> float:
    """Return a count of two digits: pools that differ by less count as one, see `quality_trade`."""
    return float(f"{count:.2g}")


def _ratios(low: float, high: float, bound: tuple[float, float]) -> str:
    return "" if isnan(low) or isnan(high) else f"[{_ratio(low, bound)}, {_ratio(high, bound)}]"


def _ratio(ratio: float, bound: tuple[float, float]) -> str:
    """Return a ratio as text; the end of an interval that was cut at a bound lies beyond it as well."""
    if ratio <= bound[0]:
        return f"<×{bound[0]:.2g}"
    return f">×{bound[1]:.2g}" if ratio >= bound[1] else f"×{ratio:.2f}"
