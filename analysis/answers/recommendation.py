"""The configuration to train for a compute and a data budget.

All configurations are read at the budget from the joint draws of their regime (``analysis.belief.family``):
at their own cells there, and by the joint law elsewhere, within the data and beyond. A configuration whose
pairs the pool lacks is read at the largest size that the pool holds: between its own sizes, or else by the
law, which knows from the sizes that others were run with what fewer pairs cost. The verdict is that of the
report, and the run that would decide or confirm it is named with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.best import cheaper_text
from analysis.arrays import Floats, Indices
from analysis.belief.cell_draws import CellDraws, stream
from analysis.belief.curves import straight_lines
from analysis.belief.family import Family
from analysis.belief.verdict import CLEAR, LEADS, MATTERS, Verdict, judge, ranked, shares
from analysis.cells.intervals import column_intervals
from analysis.cells.pareto import SAME_COST
from analysis.cells.table import CONFIGURATION, records
from analysis.error_unit import ErrorUnit
from analysis.labels import configuration_text, quality_fraction, with_regime
from budgets.declaration.sections import FARTHEST
from budgets.quantity import format_flops, format_number, format_share, plural

_NAMED = 3  # reasons in an error
_SAME_SIZE, _WHOLE = 0.05, 100
_LATER = (2.0, 4.0, 8.0, 16.0)
_MOST_SEEDS, _POWER = 30, 0.8
_SHOWN = NormalDist().inv_cdf(CLEAR) + NormalDist().inv_cdf(_POWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """The configuration to train, and how sure that is.

    Attributes:
        candidates: One row per configuration that fits, the most probable one first: ``name`` (in words),
            ``regime``, the columns of ``CONFIGURATION``, ``flops`` (spent), ``error`` (median of the draws)
            with ``low`` and ``high``, ``probability`` of being the best, ``measured`` (whether it was run
            there), ``by_trunk`` (whether it is read from its trunk state there), ``sizes`` (those that it was
            read from, in words, if not its own), ``pool`` (pairs that its pool must have), ``distance`` (from
            its own runs, see ``Family.distance``), ``share`` (of the budget that it spends), ``uses_up``
            (whether one epoch of the data ends before the budget does), ``epochs``, ``own_epochs`` (most of
            its own runs) and ``most_epochs`` (of all runs of its regime).
        verdict: Verdict on the candidates, by their places.
        left_out: Configurations that take no part: ``curve``, ``reason``.
        pool: Pairs of the largest measured pool.
        better: Best configuration on the next larger pool that allows a lower error, as a row of
            ``candidates``; None without one.
        cheaper: Which measured cell is lower at a lower cost; empty without one.
        experiment: The run that would decide or confirm the choice.
        explanation: Source of the intervals.
        unlearned: Why trunk states don't count as runs, see `Family.unlearned`.
        flops: Training FLOPs of one trial, as asked.
        pairs: Pairs of the pool before filtering, as asked.
        error_unit: Unit of the errors.
        later: Compute from which on a candidate that holds less than ``MATTERS`` could hold more, and its
            name; None within ``_LATER`` times the budget.
    """

    candidates: pd.DataFrame
    verdict: Verdict
    left_out: pd.DataFrame
    pool: float
    better: Mapping[str, Any] | None
    cheaper: str
    experiment: str
    explanation: str
    unlearned: str
    flops: float
    pairs: float
    error_unit: ErrorUnit
    later: tuple[float, str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidates:
    """Configurations with draws of their errors, those that take no part, and those that lack pairs."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    errors: list[Floats] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    too_large: list[dict[str, Any]] = field(default_factory=list)


def kept_fraction(quality: str) -> Fraction:
    """Return the share of its pool that a quality keeps."""
    return Fraction(str(min(quality_fraction(quality), 1.0)))


def smallest_pool(subset_size: float, quality: str) -> int:
    """Return the pairs of the smallest pool that has a subset of a size and quality."""
    # A pool of P pairs has a subset of s = ⌈share·P⌉; the smallest such P is ⌊(s − 1)/share⌋ + 1, in exact
    # arithmetic: as floats 7/0.07 is below 100.
    return int((int(subset_size) - 1) // kept_fraction(quality)) + 1


def recommend(draws: CellDraws, *, flops: float, pairs: float, limit: float = FARTHEST) -> Recommendation:
    """Recommend a configuration for a trial's FLOPs and a pool's pairs before filtering.

    Args:
        draws: The cells and families of a study.
        flops: Training FLOPs of one trial.
        pairs: Pairs in the pool before filtering; the top 20 % are a fifth of them.
        limit: Largest factor of extrapolation beyond the measured compute of a regime.

    Raises:
        ValueError: A number is below 1, or no configuration can be read at the budget.
    """
    for name, value in (("flops", flops), ("pairs", pairs), ("limit", limit)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; found {value:g}")
    flops, pairs = float(flops), float(pairs)  # NumPy has no integers beyond 9e18
    options = _options(draws, flops=flops, pool=pairs, limit=limit)
    unlearned = "; ".join(filter(None, (family.unlearned for family in draws.families.values())))
    if all(row["lost"] for row in options.rows):
        why = [f"{row['curve']}: {row['reason']}" for row in options.left_out]
        more = f"; and {len(why) - _NAMED} more" if len(why) > _NAMED else ""
        if pools := [row["pool"] for row in options.too_large]:
            more += f"; the smallest pool that holds one has {min(pools):,} pairs"
        raise ValueError(
            f"no configuration can be read at {format_flops(flops)}: "
            f"{'; '.join(why[:_NAMED]) or unlearned or 'nothing was measured'}{more}"
        )
    values = np.stack(options.errors, axis=1)
    middle = np.median(values, axis=0)
    # Those that lost runs come last: they count by their draws, and are no candidates.
    gone = np.array([bool(row["lost"]) for row in options.rows])
    if draws.known:
        order = ranked(shares(np.where(gone, np.inf, values)), np.where(gone, np.inf, middle))
    else:  # without noise the measured errors are all that is known
        measured = _column(options.rows, "mean")
        middle = np.where(np.isnan(measured), middle, measured)
        order, values = np.argsort(np.where(gone, np.inf, middle), kind="stable"), np.empty((0, len(middle)))
    rows, values, middle = [options.rows[place] for place in order], values[:, order], middle[order]
    several = len({row["regime"] for row in rows}) > 1
    names = [with_regime(configuration_text(row), row["regime"], named=several) for row in rows]
    verdict = judge(
        values, names, distance=_column(rows, "distance"), lost=[row["lost"] for row in rows],
        measured=middle, unit=draws.error_unit, confidence=draws.confidence,
    )  # fmt: skip
    if verdict.runner_up is None and not verdict.apart:
        of = f"only one of {plural(1 + len(options.left_out), 'configuration')} fits"
        alone = of if options.left_out else "there is only one configuration"
        verdict = replace(verdict, reason=f"{alone}, so there is nothing to compare it with")
    low, high = column_intervals(values)
    candidates = pd.DataFrame(rows).assign(
        name=names, error=middle, low=low, high=high, probability=verdict.probability
    )
    candidates = candidates[candidates.pop("lost") == ""]
    best_first = records(candidates)
    held = np.array(list(map(smallest_pool, draws.column("subset_size").tolist(), draws.cells["quality"])))
    cheaper = cheaper_text(
        draws.take(np.flatnonzero(held <= np.ceil(pairs))), best_first[0]["flops"],
        values[:, 0] if draws.known else middle[:1],
    )  # fmt: skip
    experiment = _next_experiment(draws, best_first, verdict)
    if cheaper and verdict.kind in LEADS:
        name, at = best_first[0]["name"], _where(best_first[0])
        verdict = replace(verdict, kind="undecided", reason=f"{verdict.reason}, but {cheaper}")
        experiment = f"run {name} at {at}, or take the cheaper one"
    return Recommendation(
        candidates=candidates, verdict=verdict, experiment=experiment, explanation=draws.explanation,
        left_out=pd.DataFrame(options.left_out, columns=["curve", "reason"]),
        pool=float(held.max()), better=_better(options.too_large, float(middle[0])), cheaper=cheaper,
        unlearned=unlearned, flops=flops, pairs=pairs, error_unit=draws.error_unit,
        later=_later(draws, best_first, flops=flops, pool=pairs, limit=limit),
    )  # fmt: skip


def _later(
    draws: CellDraws, rows: Sequence[Mapping[str, Any]], *, flops: float, pool: float, limit: float
) -> tuple[float, str] | None:
    """Return the compute at which one that does not matter now does, and its name; None if none does."""
    now = {_one(row) for row in rows if row["probability"] < MATTERS}
    for times in _LATER if now else ():
        options = _options(draws, flops=flops * times, pool=pool, limit=limit)
        gone = [bool(row["lost"]) for row in options.rows]
        if all(gone):
            break
        chance = shares(np.where(gone, np.inf, np.stack(options.errors, axis=1)))
        matter = [place for place, row in enumerate(options.rows) if _one(row) in now]
        if matter and max(chance[matter]) >= MATTERS:
            row = options.rows[max(matter, key=lambda place: float(chance[place]))]
            return flops * times, configuration_text(row)
    return None


def _one(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what stays of a configuration at another compute."""
    size = 0.0 if row["regime"] == "one-epoch" else row["subset_size"]
    return row["regime"], size, *(row[name] for name in CONFIGURATION[1:])


def _options(draws: CellDraws, *, flops: float, pool: float, limit: float) -> _Candidates:
    """Return all configurations, read at a budget."""
    options = _Candidates()
    for family in draws.families.values():
        _read(options, draws, family, flops=flops, pool=pool, limit=limit)
    return options


def _read(  # noqa: PLR0913 - a regime, and what is asked
    options: _Candidates, draws: CellDraws, family: Family, *, flops: float, pool: float, limit: float
) -> None:
    """Add the configurations of a regime, read at a budget."""
    one_epoch, pairs = family.regime == "one-epoch", np.ceil(pool)
    cells = draws.cells[(draws.cells["regime"] == family.regime).to_numpy(bool)]
    if cells.empty:
        return
    quality, sizes = family.configurations["quality"], family.configurations["subset_size"]
    usable = np.full(len(sizes), flops)
    if one_epoch:  # the pairs limit the compute
        fraction = np.array([float(kept_fraction(name)) for name in quality])
        usable = np.minimum(usable, pool * fraction * family.measured.curves.per_sample)
    fits = np.array(list(map(smallest_pool, sizes, quality))) <= (np.inf if one_epoch else pairs)
    # In one epoch the pool says how far a curve goes, not the grid.
    values, place = family.at(usable, beyond=one_epoch or bool(flops > family.limit.max() * SAME_COST))
    if not np.isfinite(values[:, fits]).all(axis=0).any():  # what the grid leaves out is better than nothing
        values, place = family.at(usable, beyond=True)
    rows = _rows(family, cells, place, usable, flops)
    # Regimes are independent, so their draws are paired at random.
    mix = stream(f"pair/{family.regime}").permutation(len(values)) if options.rows else np.arange(len(values))
    whole = dict[tuple[str, ...], list[int]]()
    for curve, row in enumerate(rows):
        reason = _unreadable(row, values[:, curve], limit)
        if not reason and fits[curve]:
            options.rows.append(row)
            options.errors.append(values[mix, curve])
        if not reason and not row["lost"]:
            whole.setdefault(tuple(row[name] for name in CONFIGURATION[1:]), []).append(curve)
            if fits[curve]:
                continue
            reason = f"needs a pool of {row['pool']:,} pairs"
            options.too_large.append(row | {"error": float(np.median(values[:, curve]))})
        options.left_out.append({"curve": configuration_text(row), "reason": reason or row["lost"]})
    fewer = [_fewer(family, rows, values, curves, pairs) for curves in whole.values() if not one_epoch]
    smallest, most = cells["subset_size"].min(), max(1.0, cells["epochs"].max()) * SAME_COST
    # Below all sizes, the runs say what repeats cost as far as they repeated pairs.
    known = any(one is not None and one[0]["epochs"] <= most for one in fewer)
    for one in fewer:
        if one is not None and (known or one[0]["subset_size"] >= smallest):
            options.rows.append(one[0])
            options.errors.append(one[1][mix])


def _fewer(
    family: Family, rows: Sequence[Mapping[str, Any]], values: Floats, curves: Sequence[int], pairs: float
) -> tuple[dict[str, Any], Floats] | None:
    """Return a configuration read at the largest size that a pool holds; None if that was measured."""
    ordered = sorted(curves, key=lambda curve: float(rows[curve]["subset_size"]))
    allowed = float(ceil(kept_fraction(rows[ordered[0]]["quality"]) * int(pairs)))
    above = int(np.searchsorted([rows[curve]["subset_size"] for curve in ordered], allowed))
    if above == len(ordered) or rows[ordered[above]]["subset_size"] == allowed:
        return None
    around = ordered[max(above - 1, 0) : above + 1]
    first, last = (rows[around[place]] for place in (0, -1))
    sizes = np.array([rows[curve]["subset_size"] for curve in around])
    epochs = last["epochs"] * sizes[-1] / allowed
    if len(around) > 1:
        error = straight_lines(sizes, values[:, around], np.array([allowed]))[:, 0]
        source = f"between {sizes[0]:,.0f} and {sizes[1]:,.0f} pairs"
    else:
        error = family.read(np.array(around), np.array([[first["flops"]]]), np.array([allowed]))[:, 0, 0]
        # If no pair is seen again, it is the run with more pairs.
        source = f"by the law from {sizes[0]:,.0f} pairs" if epochs > 1 else ""
    return {
        **last, "subset_size": allowed, "pool": smallest_pool(allowed, last["quality"]), "measured": False,
        "by_trunk": False, "sizes": source, "mean": np.nan, "epochs": epochs,
        **{name: max(first[name], last[name]) for name in ("noise", "own_epochs")},
        "distance": max(family.distance(last["flops"], np.full(len(rows), allowed))[around]),
    }, error  # fmt: skip


def _rows(
    family: Family, cells: pd.DataFrame, place: Indices, usable: Floats, flops: float
) -> list[dict[str, Any]]:
    """Return the curves of a family at their places (-1: none), or at the compute that each can use."""
    curves, x, ran = np.arange(len(place)), family.x, family.ran
    per_sample = family.measured.curves.per_sample
    spent = np.where(place < 0, usable, x[curves, place])
    most = np.where(ran, x, 0.0).max(axis=1)
    measured = cells.set_index(["curve", "point"]).reindex(list(zip(curves, place, strict=True)))
    sizes = family.configurations["subset_size"].to_numpy(np.float64)
    if family.regime == "one-epoch":
        sizes = measured["subset_size"].fillna(pd.Series(spent / per_sample, index=measured.index)).to_numpy()
    costs_vary = cells.groupby("curve")["train_flops_per_sample"].agg(lambda cost: np.ptp(cost) / cost.mean())
    nearest = np.abs(np.log(x / spent[:, None])).argmin(axis=1)
    return records(
        family.configurations.assign(
            regime=family.regime, subset_size=sizes, flops=spent, share=spent / flops,
            sizes="", measured=measured["error"].notna().to_numpy(), by_trunk=family.by_trunk(place),
            mean=measured["error"].to_numpy(np.float64), lost=family.apart(spent, place),
            runs=family.runs(place), distance=family.distance(spent),
            least_flops=x[:, 0], most_flops=most.max(),
            epochs=spent / per_sample / sizes, own_epochs=most / per_sample / sizes,
            most_epochs=float(cells["epochs"].max()), noise=family.belief.noise[curves, nearest] ** 0.5,
            uses_up=(usable < flops / SAME_COST) & (spent > usable / SAME_COST),
            varies=costs_vary.reindex(curves).fillna(0).to_numpy(np.float64) > _SAME_SIZE,
            pool=list(map(smallest_pool, sizes, family.configurations["quality"])),
        )
    )  # fmt: skip


def _unreadable(row: Mapping[str, Any], error: Floats, limit: float) -> str:
    """Return why a configuration cannot be read at a budget; empty if it can be."""
    asked = row["flops"]
    if row["varies"]:
        return "the cost per sample of its architecture varies, so it is not one configuration"
    if asked > limit * row["most_flops"] * SAME_COST:
        return f"measured budgets end more than {limit:g} times from this one"
    if np.isfinite(error).all():
        return ""
    if asked >= row["least_flops"]:
        return "its grid ends before this budget"
    pool = ", one epoch of the pool" if row["share"] < 1 / SAME_COST else ""
    return f"all its budgets are above {format_flops(asked)}{pool}"


def _next_experiment(  # noqa: PLR0911 - an experiment for each case
    draws: CellDraws, rows: Sequence[Mapping[str, Any]], verdict: Verdict
) -> str:
    """Return what to run next: the leader, or leader and next one with enough seeds to resolve their gap."""
    first = rows[0]
    where = _where(first)
    if len(verdict.members) == 1 and verdict.apart and verdict.probability[0] < draws.confidence:
        return f"find why runs were lost: {verdict.apart}"
    if verdict.runner_up is None:
        return f"run one more configuration at {where}"
    if verdict.kind in LEADS and first["measured"]:
        return "nothing to run: it was measured and leads by more than the noise"
    if len(verdict.members) == 1 and not first["measured"] and draws.known:
        return f"{'to confirm, ' if verdict.kind in LEADS else ''}run {first['name']} at {where}"
    second, unit = rows[verdict.runner_up], draws.error_unit
    at = [_where(row) for row in (first, second)]
    both = f"{first['name']}{'' if at[0] == at[1] else ' at ' + at[0]} and {second['name']} at {at[1]}"
    if draws.source != "runs":
        return f"run {both} with three seeds each: the noise between seeds was not measured"
    noise = float(np.hypot(first["noise"], second["noise"]) / np.sqrt(2))
    # The difference of two means varies by √(2/seeds)·noise. The gap shows with probability ``_POWER`` if it
    # exceeds that by the quantiles of the verdict and of the power.
    gap = abs(verdict.gap)
    seeds = int(np.ceil(2 * (_SHOWN * noise / max(gap, 1e-12)) ** 2))
    if seeds > _MOST_SEEDS:
        small, which = unit.gap(gap, fine=True), "either" if at[0] == at[1] else "the cheaper"
        if not (first["measured"] and second["measured"]):
            return f"run {both} with two seeds each: the gap of {small} is a forecast"
        return (
            f"take {which} of {both}: to see a gap of {small} above a noise of "
            f"{unit.number(noise, fine=True)} needs more than {_MOST_SEEDS} seeds each"
        )
    there = max(row["runs"] if row["measured"] else 0 for row in (first, second))
    tied = len(verdict.members) - 2
    others = f"; {plural(tied, 'other')} {'is' if tied == 1 else 'are'} tied as well" if tied > 0 else ""
    return (
        f"run {both} until each has {plural(max(seeds, there + 1, 2), 'seed')}: enough to see a gap of "
        f"{unit.gap(gap)} in {format_share(_POWER)} of cases{others}"
    )


def _where(row: Mapping[str, Any]) -> str:
    """Return the compute that a configuration spends: the budget, up to the rounding to whole batches."""
    whole = row["share"] >= 1 / SAME_COST
    return format_flops(row["flops"] / row["share"] if whole else row["flops"])


def times_text(epochs: float) -> str:
    """Return how often pairs are seen: ``3.7 times``; ``2,050 times``."""
    return f"{format_number(epochs, ',.0f' if epochs >= _WHOLE else ',.1f')} times"


def _better(too_large: Sequence[Mapping[str, Any]], lowest: float) -> Mapping[str, Any] | None:
    better = [row for row in too_large if row["error"] < lowest]
    next_larger = min((row["pool"] for row in better), default=0) * SAME_COST
    near = [row for row in better if row["pool"] <= next_larger]
    return min(near, key=lambda row: float(row["error"]), default=None)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([row[name] for row in rows], dtype=np.float64)
