"""Readings of configurations at a budget: as measured, by a law, by a surface or between cells.

A configuration measured within 3 % of the budget is read as measured. Any other is read by the law of its
curve, if that is drawn. Beyond its cells it is read by the surface of its family, if that forecasts held-out
budgets better than the law. A curve without a law is read by straight lines in ln x if the budget lies
between two of its levels. A cheaper measured cell replaces the reading if it is lower or if nothing else can
be read; beyond the last cell its curve may fall on. Nothing is read below the measured budgets, or forecast
beyond them by more than a given factor. The number of pairs is not extrapolated, except in one epoch, where
compute buys pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from analysis.answers.frontier import fall_beyond
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.curves import Curve, sags, straight_lines
from analysis.cells.intervals import COVERAGE
from analysis.cells.pareto import SAME_COST, same_cost
from analysis.cells.table import records
from analysis.labels import quality_fraction
from analysis.laws.holdout import Forecaster, Holdout, own_forecaster
from analysis.laws.laws import Law
from analysis.laws.repeated import Points
from analysis.laws.surface_forecast import SURFACES, forecast, groups, surface_key
from budgets.quantity import format_flops, plural

_SAME_SIZE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The error of a configuration at a compute.

    Attributes:
        error: Error as measured, then in each draw, shape (rows,).
        flops: Training FLOPs that the configuration spends.
        read: Source of the error, in words.
        by: Law that it was read by; without a name if there was none.
        cell: Place of the measured cell among the candidate's; None if it was not measured.
        falling: For the last cell of a curve that ends before the compute, the error with draws that fall on
            as in `analysis.answers.frontier.at_compute`; otherwise None.
        far: True for a cell whose compute times the limit of extrapolation is below the budget.
    """

    error: Floats
    flops: float
    read: str
    by: Forecaster = field(default_factory=lambda: Forecaster(law="", error=float("nan"), reason=""))
    cell: int | None = None
    falling: Floats | None = None
    far: bool = False


def every_candidate(draws: CellDraws, laws: Iterable[Law]) -> list[Curve]:
    """Return the configurations that can be recommended: curves along compute, and cells on no such curve."""
    found: list[Curve] = [law for law in laws if law.along == "compute"]
    on_curves = {int(position) for one in found for position in one.positions}
    for position, cell in enumerate(records(draws.cells)):
        if position not in on_curves:
            free = {"subset_size"} if cell["regime"] == "one-epoch" else set()
            names = {"regime", "architecture", "strategy", "quality", "subset_size"} - free
            identity = {name: cell[name] for name in names}
            found.append(Curve(along="compute", identity=identity, positions=np.array([position])))
    return found


def kept_fraction(quality: str) -> float:
    """Return the share of its pool that a quality keeps."""
    return min(quality_fraction(quality), 1.0)


def smallest_pool(subset_size: float, quality: str) -> int:
    """Return the pairs of the smallest pool that has a subset of a size and quality."""
    # A pool of P pairs has a subset of s = ⌈share·P⌉; the smallest such P is ⌊(s − 1)/share⌋ + 1, in exact
    # arithmetic: as floats 7/0.07 is below 100.
    return int((int(subset_size) - 1) // Fraction(str(kept_fraction(quality)))) + 1


def _per_sample(draws: CellDraws, one: Curve) -> Floats:
    return draws.column("train_flops_per_sample")[one.positions]


def usable_flops(draws: CellDraws, one: Curve, flops: float, pairs: float) -> float:
    """Return the compute that a candidate can use; in one epoch the pairs limit it."""
    if "subset_size" in one.identity:
        return flops
    return min(flops, pairs * kept_fraction(one.identity["quality"]) * float(_per_sample(draws, one).mean()))


def candidate_columns(draws: CellDraws, one: Curve, flops: float) -> dict[str, Any]:
    """Return the columns of a candidate; in one epoch the pairs are those that the compute covers."""
    names = ("regime", "architecture", "strategy", "quality")
    size = one.identity.get("subset_size", flops / float(_per_sample(draws, one).mean()))
    return {name: one.identity[name] for name in names} | {"subset_size": float(size)}


def read_at(
    draws: CellDraws, one: Curve, surface: Reading | None, *, at: float, limit: float
) -> Reading | str:
    """Return the reading of a candidate at a compute, or why it cannot be read there."""
    per_sample = _per_sample(draws, one)
    if np.ptp(per_sample) > _SAME_SIZE * per_sample.mean():
        return "the cost per sample of its architecture varies, so it is not one configuration"
    here = draws.take(one.positions)
    x, errors = here.column("train_flops"), here.with_measured()
    nearest = int(np.abs(np.log(x / at)).argmin())
    # In this order: a measurement at the budget beats every law, and the surface the curve's own law where it
    # forecast held-out budgets better.
    main: Reading | None = None
    if same_cost(x, at).any():
        main = _measured(one, x, errors, nearest, at=at)
    elif x.min() < at <= limit * x.max():
        main = surface or _by_curve(draws, one, at)
    cheaper = np.flatnonzero(x <= at * SAME_COST)
    if len(cheaper):
        lowest = int(cheaper[errors[0, cheaper].argmin()])
        # The lowest of many cells is low by luck as well, so it must beat the reading by more than the noise.
        # A forecast beyond the data, however, must itself be lower than any cheaper cell.
        beyond = main is not None and main.cell is None and at > x.max()
        if main is None or _lower(errors[:, lowest], main.error, chance=not beyond):
            return replace(
                _measured(one, x, errors, lowest, at=at), far=bool(main is None and x.max() < at / limit)
            )
    return main or f"all its budgets are above {format_flops(at)}"


def _measured(one: Curve, x: Floats, errors: Floats, place: int, *, at: float) -> Reading:
    found = Reading(error=errors[:, place], flops=float(x[place]), read="measured", cell=place)
    order = np.argsort(x)
    if place != order[-1] or x[place] * SAME_COST >= at:
        return found
    falls = fall_beyond(x[order], errors[:, order], at)
    falls *= np.append(0.0, _stream_of("beyond", one).random(len(errors) - 1))
    return replace(found, falling=np.maximum(errors[:, place] - falls, 0.0))


def _stream_of(what: str, one: Curve) -> np.random.Generator:
    return stream(f"{what}/{sorted(one.identity.items(), key=str)}")


def _lower(one: Floats, other: Floats, *, chance: bool) -> bool:
    """Return whether the first is lower than the second; with ``chance``, by more than the noise."""
    gap = other - one
    by_chance = chance and len(gap) > 1 and np.quantile(gap[1:], (1 - COVERAGE) / 2) <= 0
    return bool(gap[0] > 0 and not by_chance)


def _by_curve(draws: CellDraws, one: Curve, at: float) -> Reading | None:
    """Read a candidate by its law, or by straight lines between its levels if it has no drawn law."""
    if isinstance(one, Law) and one.drawn is not None:
        by = own_forecaster(one)
        if not one.fit.tested:
            by = replace(by, reason=f"{by.reason}; {one.fit.levels} levels are too few to test its form")
        error = one.drawn(np.array([at]))[: 1 + one.refits, 0]
        return Reading(error=error, flops=at, read=by.law, by=by)
    here = draws.take(one.positions)
    x = here.column("train_flops")
    if not x.min() < at < x.max():
        return None
    errors = here.with_measured()
    lines = straight_lines(x, errors, np.array([at]))[:, 0]
    below = sags(x, errors[0], at, len(lines) - 1, _stream_of("interpolated", one))
    lines[1:] = np.maximum(lines[1:] - below, 0.0)
    return Reading(error=lines, flops=at, read="interpolated between two measured budgets")


def read_by_surfaces(
    draws: CellDraws, found: list[Curve], held: Holdout, spent: Floats
) -> list[Reading | None]:
    """Read each candidate that was not measured at its compute by the surface of its family.

    Each surface is fitted once for all candidates of the family.
    """
    readings: list[Reading | None] = [None] * len(found)
    families: dict[str, list[int]] = {}
    x = draws.column("train_flops")
    for place, one in enumerate(found):
        if same_cost(x[one.positions], spent[place]).any():
            continue
        families.setdefault(str(surface_key(draws, one.positions[0])), []).append(place)
    for name, positions in groups(draws).items():
        by = held.surfaces.get(str(name)) or _scored(held, str(name))
        places = [
            place
            for place in families.get(str(name), [])
            if _needs_surface(draws, found[place], held, spent[place])
        ]
        if by is None or not places:
            continue
        here = draws.take(positions)
        n = np.array([_per_sample(draws, found[place]).mean() for place in places])
        unique = [candidate_columns(draws, found[place], spent[place])["subset_size"] for place in places]
        at = Points(n=n, unique=np.array(unique), seen=spent[places] / n)
        errors = forecast(by.law, here.cells, here.with_measured(), at)
        for place, error in zip(places, [] if errors is None else errors.T, strict=errors is not None):
            readings[place] = Reading(error=error, flops=float(spent[place]), read=by.law, by=by)
    return readings


def _needs_surface(draws: CellDraws, one: Curve, held: Holdout, at: float) -> bool:
    """Return whether a compute is beyond a candidate's cells and no law of its own forecasts it better."""
    x = draws.column("train_flops")[one.positions]
    if x.min() < at < x.max():
        return False
    lawless = not isinstance(one, Law) or one.drawn is None
    return lawless or str(surface_key(draws, one.positions[0])) in held.surfaces


def _scored(held: Holdout, family: str) -> Forecaster | None:
    """Return the surface that forecasts a family's held-out cells best, for candidates without a law."""
    if held.points.empty:
        return None
    points = held.points[(held.points["curve"] == family) & held.points["law"].isin(SURFACES)]
    if points.empty:
        return None
    errors = ((points["forecast"] - points["measured"]) ** 2).groupby(points["law"]).mean() ** 0.5
    law = str(errors.idxmin())
    reason = f"lowest error of the surfaces on {plural(int((points['law'] == law).sum()), 'held-out cell')}"
    return Forecaster(law=law, error=float(errors.min()), reason=reason)
