"""What to train for a compute and a data budget: every configuration is read there, and the best is chosen.

A configuration measured at the budget, to 3 %, is read as measured. Any other is read by its curve's law, the
one that is drawn; beyond its cells by the surface of its family, where that forecasts held-out budgets
better; a curve without a law by straight lines in ln x between its levels, where the budget lies between two.
What was measured for less compute can be had, too: it takes part where nothing else can be read, and where it
is lower. Nothing is read past a declared factor above what was measured, nor below it. Pairs are not
extrapolated but in one epoch, where compute buys them: that is said.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.answers.frontier import Choice, choose
from analysis.cells.bootstrap import CellDraws
from analysis.cells.interpolation import straight_lines
from analysis.cells.intervals import COVERAGE, interval
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import records
from analysis.labels import configuration_text, percent, plural, quality_fraction
from analysis.laws.holdout import Forecaster, Holdout, own_forecaster
from analysis.laws.laws import Law
from analysis.laws.surface_forecast import SURFACES, Points, forecast, groups, key
from budgets.quantity import format_flops

Floats = NDArray[np.float64]

LIMIT = 30.0
"""Times beyond the measured budgets that a configuration is read at most."""
_MOST_SEEDS = 30
_QUANTILE = 1.645
_SAME_SIZE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What to train.

    Attributes:
        candidates: One row a configuration that fits, by rising error: ``regime``, ``architecture``,
            ``strategy``, ``quality``, ``subset_size``, ``flops`` (what it spends), ``error`` with ``low`` and
            ``high``, ``probability`` of being the best, ``read`` (how its error is known), ``measured``,
            ``pool`` (pairs that its pool must have), ``factor`` (compute over its largest measured),
            ``beyond`` (whether that is an extrapolation), ``share`` (of the budget that it spends),
            ``uses_up`` (whether one epoch of the data ends before the budget does), ``law`` that it was read
            by with ``law_error`` (what that missed held-out budgets by, a fraction) and ``law_reason``; empty
            where it was measured.
        choice: Among the candidates.
        left_out: Configurations that were not read, and why: ``curve``, ``reason``.
        pool: Pairs of the largest pool that was measured.
        better: The best configuration on the next larger pool that allows a lower error, as a row of the
            candidates; None where there is none.
        experiment: What would decide, or confirm.
        explanation: Where the intervals come from.
    """

    candidates: pd.DataFrame
    choice: Choice
    left_out: pd.DataFrame
    pool: float
    better: Mapping[str, Any] | None
    experiment: str
    explanation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Configuration:
    """Cells that differ in compute alone, by rising compute, and the law along them where there are two."""

    identity: Mapping[str, Any]
    positions: NDArray[np.intp]
    law: Law | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """A configuration at a compute: its error by row of the draws, and how it is known."""

    error: Floats
    flops: float
    read: str
    by: Forecaster = field(default_factory=lambda: Forecaster(law="", error=float("nan"), reason=""))
    cell: int | None = None


def recommend(  # noqa: PLR0913 (a study's analysis, and two budgets)
    draws: CellDraws,
    laws: tuple[Law, ...],
    held: Holdout,
    *,
    flops: float,
    pairs: float,
    limit: float = LIMIT,
) -> Recommendation:
    """Recommends a configuration.

    Args:
        draws: The cells that the laws were fitted to.
        laws: Of both axes; those along compute are read.
        held: How they forecast.
        flops: Training FLOPs of one trial.
        pairs: Pairs in the pool before it is filtered: the top 20 % of them are a fifth.
        limit: The largest factor of extrapolation.

    Raises:
        ValueError: No configuration can be read within the limit.
    """
    fitting: list[tuple[dict[str, Any], Floats]] = []
    too_large: list[tuple[dict[str, Any], Floats]] = []
    left_out: list[dict[str, str]] = []
    found = _configurations(draws, laws)
    spent = np.array([_spent(draws, one, flops, pairs) for one in found])
    surfaces = _by_surface(draws, found, held, spent)
    for one, at, surface in zip(found, spent, surfaces, strict=True):
        reading = _read(draws, one, surface, at=float(at), limit=limit)
        name = configuration_text(_sized(draws, one, float(at)))
        if isinstance(reading, str):
            left_out.append({"curve": name, "reason": reading})
            continue
        row = _row(draws, one, reading, float(at), flops)
        # What is read at the compute that the pairs allow in one epoch needs no more pairs than these.
        bought = "subset_size" not in one.identity and reading.cell is None
        if bought or row["pool"] <= np.ceil(pairs):
            fitting.append((row, reading.error))
            continue
        need = float(f"{row['pool']:.3g}")
        left_out.append({"curve": name, "reason": f"needs a pool of some {need:,.0f} pairs"})
        too_large.append((row, reading.error))
    if not fitting:
        why = "; ".join(sorted({row["reason"] for row in left_out})) or "nothing was measured"
        raise ValueError(f"no curve can be forecast at {format_flops(flops)}: {why}")
    return _choose(draws, fitting, too_large, pd.DataFrame(left_out, columns=["curve", "reason"]))


def _configurations(draws: CellDraws, laws: Iterable[Law]) -> list[_Configuration]:
    """Every curve along compute, and every cell that is on none."""
    found = [
        _Configuration(identity=law.identity, positions=law.positions, law=law)
        for law in laws
        if law.along == "compute"
    ]
    on_curves = {int(position) for one in found for position in one.positions}
    for position, cell in enumerate(records(draws.cells)):
        if position not in on_curves:
            free = {"subset_size"} if cell["regime"] == "one-epoch" else set()
            names = {"regime", "architecture", "strategy", "quality", "subset_size"} - free
            identity = {name: cell[name] for name in names}
            found.append(_Configuration(identity=identity, positions=np.array([position]), law=None))
    return found


def _fraction(one: _Configuration) -> float:
    return min(quality_fraction(str(one.identity["quality"])), 1.0)


def _per_sample(draws: CellDraws, one: _Configuration) -> Floats:
    return draws.cells["train_flops_per_sample"].to_numpy(np.float64)[one.positions]


def _spent(draws: CellDraws, one: _Configuration, flops: float, pairs: float) -> float:
    """The compute that a configuration can use: in one epoch, no more than there are pairs for."""
    if "subset_size" in one.identity:
        return flops
    return min(flops, pairs * _fraction(one) * float(_per_sample(draws, one).mean()))


def _sized(draws: CellDraws, one: _Configuration, flops: float) -> dict[str, Any]:
    """What a configuration is, with its pairs: in one epoch, those that the compute goes through."""
    names = ("regime", "architecture", "strategy", "quality")
    size = one.identity.get("subset_size", flops / float(_per_sample(draws, one).mean()))
    return {name: one.identity[name] for name in names} | {"subset_size": float(size)}


def _read(
    draws: CellDraws, one: _Configuration, surface: _Reading | None, *, at: float, limit: float
) -> _Reading | str:
    """A configuration at the compute it may use, or why it cannot be read there."""
    per_sample = _per_sample(draws, one)
    if np.ptp(per_sample) > _SAME_SIZE * per_sample.mean():
        return "its architecture has several costs a sample: it is no one configuration"
    here = draws.take(one.positions)
    x, errors = here.cells["train_flops"].to_numpy(np.float64), here.with_measured()
    nearest = int(np.abs(np.log(x / at)).argmin())
    main: _Reading | None = None
    if _same_level(x, at).any():
        main = _measured(x, errors, nearest)
    elif x.min() < at <= limit * x.max():
        main = surface or _by_curve(draws, one, at)
    cheaper = np.flatnonzero((x <= at * SAME_COST) & (x >= at / limit))
    if len(cheaper):
        lowest = int(cheaper[errors[0, cheaper].argmin()])
        # Picked among many, a cell flatters itself; beyond the data it is what a forecast must beat.
        beyond = main is not None and main.cell is None and at > x.max()
        if main is None or _lower(errors[:, lowest], main.error, chance=not beyond):
            return _measured(x, errors, lowest)
    if main is None and x.min() > at:
        return f"all its budgets are above {format_flops(at)}"
    return main or f"measured budgets end more than {limit:g} times from this one"


def _same_level(flops: Floats, at: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(np.log(flops / at)) <= np.log(SAME_COST))


def _measured(x: Floats, errors: Floats, place: int) -> _Reading:
    return _Reading(error=errors[:, place], flops=float(x[place]), read="measured", cell=place)


def _lower(one: Floats, other: Floats, *, chance: bool) -> bool:
    """Whether the first is lower than the second, and, where chance is looked at, by more than it allows."""
    gap = other - one
    by_chance = chance and len(gap) > 1 and np.quantile(gap[1:], (1 - COVERAGE) / 2) <= 0
    return bool(gap[0] > 0 and not by_chance)


def _by_curve(draws: CellDraws, one: _Configuration, at: float) -> _Reading | None:
    """A configuration by its own law; by straight lines between its levels where it has too few for one."""
    if one.law is None:
        return None
    if one.law.drawn is not None:
        by = own_forecaster(one.law)
        error = one.law.drawn(np.array([at]))[: 1 + one.law.refits, 0]
        return _Reading(error=error, flops=at, read=by.law, by=by)
    here = draws.take(one.positions)
    x = here.cells["train_flops"].to_numpy(np.float64)
    if not x.min() < at < x.max():
        return None
    lines = straight_lines(x, here.with_measured(), np.array([at]))[:, 0]
    return _Reading(error=lines, flops=at, read="interpolated between two measured budgets")


def _by_surface(
    draws: CellDraws, found: list[_Configuration], held: Holdout, spent: Floats
) -> list[_Reading | None]:
    """Each configuration that was not measured here by the surface of its family; fitted once for all."""
    readings: list[_Reading | None] = [None] * len(found)
    families: dict[str, list[int]] = {}
    x = draws.cells["train_flops"].to_numpy(np.float64)
    for place, one in enumerate(found):
        if _same_level(x[one.positions], spent[place]).any():
            continue
        families.setdefault(str(key(dict(one.identity))), []).append(place)
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
        unique = [_sized(draws, found[place], spent[place])["subset_size"] for place in places]
        at = Points(n=n, unique=np.array(unique), seen=spent[places] / n)
        errors = forecast(by.law, here.cells, here.with_measured(), at)
        for place, error in zip(places, [] if errors is None else errors.T, strict=errors is not None):
            readings[place] = _Reading(error=error, flops=float(spent[place]), read=by.law, by=by)
    return readings


def _needs_surface(draws: CellDraws, one: _Configuration, held: Holdout, at: float) -> bool:
    """Whether a configuration lies beyond its cells, where it has no law or a surface forecasts better."""
    x = draws.cells["train_flops"].to_numpy(np.float64)[one.positions]
    if x.min() < at < x.max():
        return False
    return one.law is None or one.law.drawn is None or str(key(dict(one.identity))) in held.surfaces


def _scored(held: Holdout, family: str) -> Forecaster | None:
    """The surface that forecast a family's held-out cells best: for what has no law of its own."""
    if held.points.empty:
        return None
    points = held.points[(held.points["curve"] == family) & held.points["law"].isin(SURFACES)]
    if points.empty:
        return None
    errors = ((points["forecast"] - points["measured"]) ** 2).groupby(points["law"]).mean() ** 0.5
    law = str(errors.idxmin())
    reason = f"lowest error of the surfaces on {plural(int((points['law'] == law).sum()), 'held-out cell')}"
    return Forecaster(law=law, error=float(errors.min()), reason=reason)


def _row(draws: CellDraws, one: _Configuration, reading: _Reading, at: float, flops: float) -> dict[str, Any]:
    cells = draws.cells.iloc[one.positions]
    x = cells["train_flops"].to_numpy(np.float64)
    factor = max(reading.flops / x.max(), x.min() / reading.flops)
    behind = cells if reading.cell is None else cells.iloc[[reading.cell]]
    row = _sized(draws, one, reading.flops)
    return row | {
        "flops": reading.flops, "read": reading.read, "measured": reading.cell is not None,
        "factor": factor if factor > 1 else reading.flops / x.max(), "beyond": factor > SAME_COST,
        "share": reading.flops / flops,
        "uses_up": at < flops / SAME_COST and reading.flops > at / SAME_COST,
        "runs": int(behind["runs"].min()), "diverged": int(behind["diverged"].sum()),
        "law": reading.by.law, "law_error": reading.by.error, "law_reason": reading.by.reason,
        # A share of a pool is a whole number of pairs: the smallest pool of which it is that share.
        "pool": np.floor((row["subset_size"] - 1) / _fraction(one)) + 1,
    }  # fmt: skip


def _choose(
    draws: CellDraws,
    fitting: list[tuple[dict[str, Any], Floats]],
    too_large: list[tuple[dict[str, Any], Floats]],
    left_out: pd.DataFrame,
) -> Recommendation:
    # Without measured noise a cell is its one error; a law still has draws of what laws miss.
    longest = max(len(error) for _, error in fitting)
    fitting = [(row, error if len(error) > 1 else np.repeat(error, longest)) for row, error in fitting]
    fitting = sorted(fitting, key=lambda one: float(one[1][0]))
    counted = bool(np.isfinite(draws.cells["images"].to_numpy(np.float64)).all())
    errors = np.clip(np.stack([error for _, error in fitting], axis=1), 0.0, 1.0 if counted else None)
    ends = [interval(column) for column in errors[1:].T]
    ends = [(low, high) if low < high else (np.nan, np.nan) for low, high in ends]
    cells = pd.DataFrame([row for row, _ in fitting]).assign(
        error=errors[0], low=[end[0] for end in ends], high=[end[1] for end in ends]
    )
    choice = choose(replace(draws, cells=cells, draws=errors[1:]))
    if choice.runner_up is None:
        of = f"only one of {plural(1 + len(left_out), 'configuration')} can be had"
        alone = of if len(left_out) else "there is only one configuration"
        choice = replace(choice, reason=f"{alone}, and there is nothing to choose between")
    candidates = cells.assign(probability=choice.probability)
    explanation = draws.explanation
    if (~candidates["measured"] & candidates["low"].notna()).any():
        explanation += "; that of a law has in it what laws miss their points by"
    return Recommendation(
        candidates=candidates, choice=choice, left_out=left_out, pool=_largest_pool(draws),
        better=_better(too_large, float(errors[0, 0])), experiment=_experiment(draws, candidates, choice),
        explanation=explanation,
    )  # fmt: skip


def _largest_pool(draws: CellDraws) -> float:
    """The pairs of the largest pool that was measured, before it is filtered."""
    share = np.array([min(quality_fraction(str(name)), 1.0) for name in draws.cells["quality"]])
    return float((np.floor((draws.cells["subset_size"].to_numpy(np.float64) - 1) / share) + 1).max())


def _better(too_large: list[tuple[dict[str, Any], Floats]], lowest: float) -> Mapping[str, Any] | None:
    better = [row | {"error": float(error[0])} for row, error in too_large if error[0] < lowest]
    if not better:
        return None
    next_larger = min(row["pool"] for row in better) * SAME_COST
    return min((row for row in better if row["pool"] <= next_larger), key=lambda row: float(row["error"]))


def _experiment(draws: CellDraws, candidates: pd.DataFrame, choice: Choice) -> str:
    """What to run next: the leader to confirm, or leader and runner-up with seeds enough for their gap."""
    first = records(candidates)[0]
    where = format_flops(first["flops"])
    if choice.runner_up is None:
        return f"run one more configuration at {where}"
    if choice.verdict == "clear":
        if first["measured"]:
            return "nothing: it was measured, and is ahead by more than the noise"
        return f"to confirm, run {configuration_text(first)} at {where}"
    second = records(candidates)[choice.runner_up]
    gap = second["error"] - first["error"]
    where = format_flops(max(first["flops"], second["flops"]))
    both = f"{configuration_text(first)} and {configuration_text(second)} at {where}"
    if draws.source != "runs":
        return f"run {both} with three seeds each: the noise between seeds was not measured"
    noise = float((draws.draws.std(axis=0) * np.sqrt(draws.cells["runs"].to_numpy(np.float64))).mean())
    seeds = int(np.ceil(2 * (_QUANTILE * noise / max(gap, 1e-12)) ** 2))
    if seeds > _MOST_SEEDS:
        return (
            f"a gap of {percent(gap, 2)} points at a noise of {percent(noise, 2)} would need more than "
            f"{_MOST_SEEDS} seeds each: take the cheaper of {both}"
        )
    return f"run {both} with {plural(max(seeds, 2), 'seed')} each: a gap of {percent(gap)} points shows then"
