"""Forecasts of published tables by rolling origin, beside fixed forms, and the choice at a large compute.

Run ``python benchmarks/forecast.py`` from the root of the checkout; ``--only NAME`` takes the tables with
this in their name. The tables are those of ``tests/analysis/public_tables.py``; absent ones are skipped. They
are read by column maps, and forecast from the draws that the commands read.

* The next level of each curve, 2 to 5 times beyond a cut, at up to three cuts of a table; ten times beyond.
* The best fixed form in hindsight: of several, the one that misses the next levels of a table by the least.
  Power laws are fitted to each curve, surfaces to all rows of the table at once, from 10M samples on.
* The cells of 12.8B samples of open_clip_scaling, as the project ships it, from those of 3B and less.
* The best configuration, named from the rows of at most a quarter of a compute: the largest at which three
  were run to within a factor of 2, and of these. Beside it DataDecide's baseline (Magnusson et al. 2025): the
  lowest at the largest common compute. Also, without a target since they were not all run near it, of all
  configurations at the largest compute of the table, each judged by its nearest row.

A point is a hundredth of an error, or of the median loss of its table, so that tables can be pooled. The
last lines are name, value, target, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.arrays import Floats
from analysis.belief.cell_draws import cell_draws
from analysis.belief.verdict import judge
from analysis.cells.intervals import column_intervals
from analysis.error_unit import chance_error
from analysis.laws.best_size import growths, scaling_exponents
from benchmarks.measured import Result, at_least, at_most, reported, verdict
from tests.analysis.public_tables import (
    ALL_OBJECTIVES,
    CLIP,
    NAMES,
    TEN_TIMES,
    Asked,
    Table,
    asked,
    family,
    missing,
    pooled,
    rolling,
    table,
)

BIAS, LOWEST, HIGHEST, WIDTH, HINDSIGHT = 2 / 3, 0.85, 0.95, 2.5, 1.15
CLIP_CUT, CLIP_MISS, CLIP_WIDTH = 1.28e9, 1.0, 2.5
LARGEST_CUT = 3e9
WORSE = 0.5  # points that the named may be worse than the baseline's, on any table
CHOICE = "regret"
_QUARTER, _NEAR, _CHOICES, _SURFACE_FROM = 4.0, 2.0, 3, 1e7
_EPOCHS = 15.4  # until samples seen again are worth 1/e (Muennighoff et al. 2023, table 2)
_Form = Callable[[Floats, Floats, Floats, float], Floats]


def _bounded(q: Floats, floor: float, chance: float) -> Floats:
    return floor + q if np.isnan(chance) else (chance * q + floor) / (1 + q)


def _floor(p: Floats) -> float:
    return float(np.exp(p[0]))


# Parameters, ln compute over the curve's smallest, nothing, and the error of chance → error. The first of the
# parameters is ln of the floor.
_CURVES: Mapping[str, _Form] = {
    "power law": lambda p, x, _, __: np.exp(p[1] - p[2] * x),
    "power law, floor": lambda p, x, _, __: _floor(p) + np.exp(p[1] - p[2] * x),
    "power law, floor, shift": lambda p, x, _, __: _floor(p) + np.exp(p[1] - p[2] * np.logaddexp(x, p[3])),
    "bounded": lambda p, x, _, chance: _bounded(np.exp(p[1] - p[2] * x), _floor(p), chance),
}
# The same of ln forward FLOPs of a sample and ln samples, from their means.
_SURFACES: Mapping[str, _Form] = {
    "surface": lambda p, f, d, chance: _bounded(
        np.exp(np.exp(p[3]) * np.logaddexp(p[1] - p[2] * f, p[4] - p[5] * d)), _floor(p), chance
    ),
    "Chinchilla": lambda p, f, d, _: _floor(p) + np.exp(p[1] - p[2] * f) + np.exp(p[4] - p[5] * d),
}


@dataclass
class Found:
    """What all tables gave, in points; ``misses`` are misses, half-widths, and which intervals hold."""

    misses: list[tuple[Floats, ...]] = field(default_factory=list)
    far: list[tuple[Floats, ...]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)  # misses of each table's best form
    ratios: list[float] = field(default_factory=list)  # of each table, its miss to that of its best form
    forms: dict[str, list[float]] = field(default_factory=dict)
    regrets: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    clip: list[Result] = field(default_factory=list)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Forecast published tables by rolling origin.")
    parser.add_argument("--only", default="", help="take only the tables with this in their name")
    only = parser.parse_args().only
    outcomes = Found()
    for name in NAMES:
        if only.lower() not in name.lower():
            continue
        if reason := missing(name):
            print(f"skipped {reason}")
            continue
        began = time.process_time()
        one = table(name)
        _next_level(one, outcomes)
        _far(one, outcomes)
        if name == ALL_OBJECTIVES:
            outcomes.clip += _largest(one)
        _regret(one, outcomes, CHOICE, _NEAR, _CHOICES)
        _regret(one, outcomes, "regret_of_all", np.inf, 1)
        print(f"  {time.process_time() - began:.0f} s of processor time", flush=True)
    return verdict(_lines(outcomes))


def _lines(outcomes: Found) -> list[Result]:
    lines = []
    if outcomes.misses:
        miss, half, held = pooled(outcomes.misses)
        typical = float(np.abs(miss).mean())
        lines += [
            reported("next_rows", len(miss)),
            reported("next_miss", typical),
            at_most("next_bias_to_miss", abs(float(miss.mean())) / typical, BIAS),
            at_least("next_held", float(held.mean()), LOWEST),
            at_most("next_held_at_most", float(held.mean()), HIGHEST),
            at_most("next_half_to_miss", float(np.median(half)) / typical, WIDTH),
            at_most("next_miss_to_hindsight", typical / float(np.mean(outcomes.best)), HINDSIGHT),
            reported("next_miss_to_hindsight_median_table", float(np.median(outcomes.ratios))),
        ]
        whole = {name: one for name, one in outcomes.forms.items() if len(one) == len(miss)}
        print(
            "one form for all tables:", ", ".join(f"{name} {np.mean(one):.3g}" for name, one in whole.items())
        )
    if outcomes.far:
        lines += _reported("ten_times", *pooled(outcomes.far))
    for name, regrets in outcomes.regrets.items():
        ours, theirs = np.array(regrets).T
        mean, most = float((ours - theirs).mean()), float((ours - theirs).max())
        lines.append(reported(name, float(ours.mean())))
        if name == CHOICE:
            lines += [at_most(f"{name}_less_baseline", mean, 0.0)]
            lines += [at_most(f"{name}_less_baseline_most", most, WORSE)]
        else:
            lines += [reported(f"{name}_less_baseline", mean), reported(f"{name}_less_baseline_most", most)]
    return [*lines, *outcomes.clip]


def _reported(name: str, miss: Floats, half: Floats, held: Floats) -> list[Result]:
    return [
        reported(f"{name}_miss", float(np.abs(miss).mean())),
        reported(f"{name}_bias", float(miss.mean())),
        reported(f"{name}_half", float(np.median(half))),
        reported(f"{name}_held", float(held.mean())),
    ]


def _next_level(one: Table, outcomes: Found) -> None:
    cuts = list(rolling(one))
    if not cuts:
        return
    parts = [cut.misses(one.unit) for cut in cuts]
    outcomes.misses += parts
    for cut, (miss, half, held) in zip(cuts, parts, strict=True):
        print(f"{one.name}, {cut.cut:.3g} samples: {_text(miss, half, held)}")
    forms = {
        name: np.concatenate([np.abs(_fixed(name, cut) - cut.error) / one.unit for cut in cuts])
        for name in (*_CURVES, *_SURFACES)
        if name != "bounded" or np.isfinite(chance_error(one.trials.metric))
    }
    best = min(forms, key=lambda name: float(forms[name].mean()))
    print("  fixed forms: " + ", ".join(f"{name} {miss.mean():.2f}" for name, miss in forms.items()))
    outcomes.best += forms[best].tolist()
    outcomes.ratios.append(float(np.abs(pooled(parts)[0]).mean() / forms[best].mean()))
    for name, miss in forms.items():
        outcomes.forms.setdefault(name, []).extend(miss.tolist())
    if one.name == CLIP:
        last = asked(one, CLIP_CUT)
        assert last is not None
        miss, half, _ = last.misses(one.unit)
        row = scaling_exponents(growths(cell_draws(one.trials))).iloc[0]  # of F*, the best forward FLOPs
        print(f"  exponent of the best size: {row['exponent']:.3f} [{row['low']:.3f}, {row['high']:.3f}]")
        outcomes.clip += [
            at_most("clip_3B_miss", float(np.abs(miss).mean()), CLIP_MISS),
            reported("clip_3B_bias", float(miss.mean())),
            at_most("clip_3B_half", float(np.median(half)), CLIP_WIDTH),
            at_most("clip_size_exponent_half", float(row["high"] - row["low"]) / 2, 0.1),
        ]


def _largest(one: Table) -> list[Result]:
    """Print the forecast of each cell of 12.8B samples, and return what they miss."""
    last = asked(one, LARGEST_CUT)
    assert last is not None
    low, high = column_intervals(last.draws)
    middle = np.median(last.draws, axis=0)
    for curve, *numbers, error in zip(last.own, middle, low, high, last.error, strict=True):
        forecast, least, most = (100 * number for number in numbers)
        print(
            f"  {last.curves.names[curve]}: {forecast:.1f} [{least:.1f}, {most:.1f}], measured "
            f"{100 * error:.1f}, miss {forecast - 100 * error:+.1f}"
        )
    return _reported("clip_12.8B", *last.misses(one.unit))


def _far(one: Table, outcomes: Found) -> None:
    for cut in rolling(one, TEN_TIMES, most=2):
        parts = cut.misses(one.unit)
        outcomes.far.append(parts)
        print(f"  ten times beyond {cut.cut:.3g} samples: {_text(*parts)}")


def _text(miss: Floats, half: Floats, held: Floats) -> str:
    return (
        f"{len(miss)} rows, miss {np.abs(miss).mean():.2f}, bias {miss.mean():+.2f}, half-width "
        f"{np.median(half):.2f} points, held {held.mean():.2f}"
    )


def _fixed(name: str, cut: Asked) -> Floats:
    """Return the errors that a fixed form, fitted to the trials of a cut, forecasts for what is asked."""
    frame, chance = cut.trials.frame, chance_error(cut.trials.metric)
    asked_x = np.log(cut.rows["train_flops"].to_numpy(np.float64))
    if name in _CURVES:
        curve = np.array([cut.curves.place_of[trial][0] for trial in frame["trial"]])
        x, error = (np.asarray(frame[column], dtype=np.float64) for column in ("train_flops", "error"))
        forecast = []
        for number, at in zip(cut.own, asked_x, strict=True):
            known = np.log(x[curve == number])
            first = known.min()
            p = _fit(4, _CURVES[name], (known - first, known), error[curve == number], chance)
            forecast.append(_CURVES[name](p, np.array([at - first]), np.array([at]), chance)[0])
        return np.array(forecast)
    if np.isfinite(chance):
        frame = frame[frame["samples_seen"] >= _SURFACE_FROM]
    sizes, samples = _axes(frame)
    asked_size, asked_samples = _axes(cut.rows)
    middle_size, middle = sizes.mean(), samples.mean()
    error = frame["error"].to_numpy(np.float64)
    p = _fit(6, _SURFACES[name], (sizes - middle_size, samples - middle), error, chance)
    return _SURFACES[name](p, asked_size - middle_size, asked_samples - middle, chance)


def _axes(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    """Return ln forward FLOPs of a sample, and ln samples: of those seen again, what they are worth."""
    per_sample, samples, pairs = (
        frame[name].to_numpy(np.float64) for name in ("train_flops_per_sample", "samples_seen", "subset_size")
    )
    distinct = np.minimum(samples, pairs)
    again = samples / distinct - 1
    return np.log(per_sample / 3), np.log(distinct * (1 - _EPOCHS * np.expm1(-again / _EPOCHS)))


def _fit(count: int, form: _Form, axes: tuple[Floats, Floats], error: Floats, chance: float) -> Floats:
    """Return the parameters of least squares, the best of several starts."""
    fits = []
    for share, slope in product((0.1, 0.6, 0.9), (0.15, 0.5)):
        rest = np.log(max(float(np.median(error)) * (1 - share), 1e-3))
        start = np.array([np.log(share * error.min()), rest, slope, 0.0, rest, slope])[:count]
        fits.append(
            least_squares(lambda p: form(p, *axes, chance) - error, start, bounds=(-12, 12), max_nfev=300)
        )
    return np.asarray(min(fits, key=lambda fit: float(fit.cost)).x)


def _regret(one: Table, outcomes: Found, name: str, near: float, fewest: int) -> None:
    """Name the best configuration at a compute from at most a quarter of it, and print its regret.

    Candidates have rows in the quarter, and one within a factor ``near`` of the compute, which is the largest
    with so many of them. The truth is the row of each that is nearest to it.
    """
    place_of = family(one.trials).place_of
    frame = one.trials.frame.assign(curve=[place_of[trial][0] for trial in one.trials.frame["trial"]])
    for flops in np.sort(frame["train_flops"])[::-1]:
        known = frame[frame["train_flops"] <= flops / _QUARTER]
        distance = np.abs(np.log(frame["train_flops"] / flops))
        there = frame[(distance <= np.log(near)) & frame["curve"].isin(known["curve"])]
        truth = there.loc[distance[there.index].groupby(there["curve"]).idxmin()].set_index("curve")["error"]
        if len(truth) >= fewest:
            break
    else:
        return
    curves = family(one.upto(flops=flops / _QUARTER))
    curve_of = {
        curves.place_of[trial][0]: curve for trial, curve in known.set_index("trial")["curve"].items()
    }
    judged = np.array([number for number in sorted(curve_of) if curve_of[number] in truth.index])
    names = [curves.names[number] for number in judged]
    truths = np.array([truth[curve_of[number]] for number in judged])
    leader = judge(curves.at(float(flops))[0][:, judged], names, distance=np.ones(len(judged))).leader
    # The baseline: the lowest at the largest compute up to which all were run, on lines between rows.
    common = float(curves.x[judged, -1].min())
    mean, points = curves.measured.mean, curves.points
    ranked = [
        np.interp(np.log(common), np.log(curves.x[number, : points[number]]), mean[number, : points[number]])
        for number in judged
    ]
    lowest = int(np.argmin(ranked))
    ours, theirs = ((truths[[leader, lowest]] - truths.min()) / one.unit).tolist()
    outcomes.regrets.setdefault(name, []).append((ours, theirs))
    print(
        f"  {name}: best of {len(judged)} at {flops:.3g} FLOPs: {names[leader]}, regret {ours:.2f} points; "
        f"by the rank at {common:.3g} FLOPs: {names[lowest]}, {theirs:.2f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
