"""What to train for a compute and a data budget: every curve is forecast there, and the best is chosen.

The law of a curve is the one that forecast held-out budgets best. A forecast is widened by how far the law
misses its own curve and, beyond the measured budgets, by its held-out error: once within the distance that
was held out, with the logarithm of the distance further on. A curve is not forecast past a declared factor,
and data are not extrapolated at all: a subset larger than what was measured is not recommended.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws, stream
from analysis.frontier import Choice, choose
from analysis.holdout import FORMS, Forecaster, Holdout
from analysis.intervals import interval
from analysis.labels import configuration_text, percent, plural, quality_fraction
from analysis.laws import X_COLUMNS, Law
from analysis.surface_forecast import SURFACES, Points, forecast, groups, key
from analysis.table import records
from budgets.quantity import format_flops

Floats = NDArray[np.float64]

LIMIT = 30.0
"""Times beyond the measured budgets that a forecast is made at most."""
_MOST_SEEDS = 30
_QUANTILE = 1.645
_SAME_SIZE = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Recommendation:
    """What to train.

    Attributes:
        candidates: One row a forecast curve, by rising error: ``regime``, ``architecture``, ``strategy``,
            ``quality``, ``subset_size``, ``flops`` (what it spends: less than the budget where one epoch of
            the data is used up), ``error`` with ``low`` and ``high``, ``probability`` of being the best,
            ``factor`` (of its extrapolation, below 1 within the measured budgets); ``law`` that forecast it,
            ``law_error`` (what that missed held-out budgets by, a fraction), ``law_reason``.
        choice: Among the candidates.
        left_out: Curves that were not forecast, and why: ``curve``, ``reason``.
        experiment: What would decide, or confirm.
        explanation: Where the intervals come from.
    """

    candidates: pd.DataFrame
    choice: Choice
    left_out: pd.DataFrame
    experiment: str
    explanation: str


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
        laws: Of both axes; those along compute are forecast.
        held: How they forecast.
        flops: Training FLOPs of one trial.
        pairs: Pairs in the pool before it is filtered: the top 20 % of them are a fifth.
        limit: The largest factor of extrapolation.

    Raises:
        ValueError: No law could be tested, or no curve can be forecast within the limit.
    """
    if held.best not in FORMS:
        raise ValueError(f"nothing can be forecast: {held.reason}")
    taken: list[tuple[Law, dict[str, Any]]] = []
    left_out: list[dict[str, str]] = []
    for law in laws:
        if law.along != "compute":
            continue
        row = _candidate(draws, law, held.forecaster(law), flops, pairs)
        reason = _refuse(row, law, pairs, limit)
        if reason:
            left_out.append({"curve": configuration_text(row), "reason": reason})
        else:
            taken.append((law, row))
    if not taken:
        why = "; ".join(sorted({row["reason"] for row in left_out})) or "there is no curve along compute"
        raise ValueError(f"no curve can be forecast at {format_flops(flops)}: {why}")
    reach = np.log(max(float(held.points["factor"].median()), 1.1))
    forecasts = [_widened(found, law, row, reach) for found, law, row in _forecasts(draws, taken)]
    rows = pd.DataFrame([row for _, row in taken])
    return _choose(draws, rows, np.stack(forecasts, axis=1), pd.DataFrame(left_out))


def _candidate(draws: CellDraws, law: Law, by: Forecaster, flops: float, pairs: float) -> dict[str, Any]:
    cells = draws.cells.iloc[law.positions]
    x = cells[X_COLUMNS["compute"]].to_numpy(np.float64)
    identity = {name: law.identity[name] for name in ("regime", "architecture", "strategy", "quality")}
    per_sample = cells["train_flops_per_sample"].to_numpy(np.float64)
    spent, size = flops, law.identity.get("subset_size")
    if size is None:
        # One epoch: compute buys new pairs until there are none left.
        spent = min(flops, pairs * _fraction(law) * float(per_sample.mean()))
        size = spent / float(per_sample.mean())
    factor = max(spent / x.max(), x.min() / spent)
    return identity | {
        "subset_size": float(size), "flops": spent, "factor": factor if factor > 1 else spent / x.max(),
        "beyond": factor > 1, "runs": int(cells["runs"].min()),
        "diverged": int(cells["diverged"].sum()), "levels": len(np.unique(x)),
        "one_size": bool(np.ptp(per_sample) <= _SAME_SIZE * per_sample.mean()),
        "law": by.law, "law_error": by.error, "law_reason": by.reason,
    }  # fmt: skip


def _fraction(law: Law) -> float:
    return min(quality_fraction(str(law.identity["quality"])), 1.0)


def _refuse(row: dict[str, Any], law: Law, pairs: float, limit: float) -> str:
    # A share of a pool is a whole number of pairs: pools that round to the same subset are the same pool.
    if row["subset_size"] > np.ceil(pairs * _fraction(law)):
        need = float(f"{row['subset_size'] / _fraction(law):.3g}")
        return f"needs a pool of some {need:,.0f} pairs"
    if not row["one_size"]:
        return "its architecture has several costs a sample: it is no one configuration"
    if row["law"] in FORMS and row["levels"] < FORMS[row["law"]].parameters:
        return f"{plural(row['levels'], 'budget')}, too few for the {row['law']}"
    if row["beyond"] and row["factor"] > limit:
        return f"measured budgets end more than {limit:g} times from this one"
    return ""


Read = tuple[Floats, Floats]
"""A curve's errors at the budget, by row of the draws, and those of its own cells."""


def _forecasts(
    draws: CellDraws, taken: list[tuple[Law, dict[str, Any]]]
) -> Iterator[tuple[Read, Law, dict[str, Any]]]:
    """Each curve read off its law; a surface is fitted once for all curves of its family."""
    surfaces: dict[str, list[int]] = {}
    for place, (law, row) in enumerate(taken):
        if row["law"] in SURFACES:
            surfaces.setdefault(str(key(dict(law.identity))), []).append(place)
    read: dict[int, Read] = {}
    for name, positions in groups(draws).items():
        places = surfaces.get(str(name), [])
        if places:
            here = [taken[place] for place in places]
            read |= dict(zip(places, _by_surface(draws, positions, here), strict=True))
    for place, (law, row) in enumerate(taken):
        yield read[place] if place in read else _by_curve(draws, law, row), law, row


def _by_curve(draws: CellDraws, law: Law, row: Mapping[str, Any]) -> Read:
    here = draws.take(law.positions)
    y, runs = here.with_measured(), here.cells["runs"].to_numpy(np.int64)
    x = here.cells[X_COLUMNS["compute"]].to_numpy(np.float64)
    predict = FORMS[row["law"]].predict
    miss = predict(x, y[:1], runs, x)[0] - y[0]
    return predict(x, y, runs, np.array([row["flops"]]))[:, 0], miss


def _by_surface(
    draws: CellDraws, positions: NDArray[np.intp], taken: list[tuple[Law, dict[str, Any]]]
) -> Iterator[Read]:
    """The curves of one family; what the surface misses is counted over each curve's own cells."""
    here = draws.take(positions)
    per_sample = draws.cells["train_flops_per_sample"].to_numpy(np.float64)
    n = np.array([per_sample[law.positions].mean() for law, _ in taken])
    unique, flops = (np.array([row[name] for _, row in taken]) for name in ("subset_size", "flops"))
    at = Points.joined(Points(n=n, unique=unique, seen=flops / n), Points.of(here.cells))
    found = forecast(taken[0][1]["law"], here.cells, here.with_measured(), at)
    if found is None:
        raise ValueError(f"the {taken[0][1]['law']} fits without the largest budgets and not with them")
    miss = found[0, len(taken) :] - here.cells["error"].to_numpy(np.float64)
    for place, (law, _) in enumerate(taken):
        yield found[:, place], miss[np.isin(positions, law.positions)]


def _widened(read: Read, law: Law, row: Mapping[str, Any], reach: float) -> Floats:
    """The errors at the budget with what the law misses, near and far, in the draws."""
    found, miss = read[0].copy(), read[1]
    spread = float(np.sqrt(np.mean(miss**2)))
    if row["beyond"]:
        spread = max(spread, row["law_error"] * max(1.0, float(np.log(row["factor"])) / reach))
    own = stream(f"recommend/{sorted(law.identity.items(), key=str)}", 0)
    found[1:] += spread * own.standard_normal(len(found) - 1)
    return np.asarray(np.clip(found, 0.0, None), dtype=np.float64)


def _choose(
    draws: CellDraws, rows: pd.DataFrame, forecasts: Floats, left_out: pd.DataFrame
) -> Recommendation:
    order = np.argsort(forecasts[0], kind="stable")
    rows, forecasts = rows.iloc[order].reset_index(drop=True), forecasts[:, order]
    ends = [interval(column) for column in forecasts[1:].T]
    cells = rows.assign(error=forecasts[0], low=[end[0] for end in ends], high=[end[1] for end in ends])
    choice = choose(replace(draws, cells=cells, draws=forecasts[1:]))
    candidates = cells.assign(probability=choice.probability)
    explanation = f"{draws.explanation}; forecasts are widened by how far the law misses its curve"
    if rows["beyond"].any():
        explanation += " and, beyond the measured budgets, by its held-out error"
    return Recommendation(
        candidates=candidates, choice=choice, left_out=left_out,
        experiment=_experiment(draws, candidates, choice), explanation=explanation,
    )  # fmt: skip


def _experiment(draws: CellDraws, candidates: pd.DataFrame, choice: Choice) -> str:
    """What to run next: the leader to confirm, or leader and runner-up with seeds enough for their gap."""
    first = records(candidates)[0]
    where = format_flops(first["flops"])
    if choice.runner_up is None:
        return f"nothing to compare with: run one more configuration at {where}"
    if choice.verdict == "clear":
        return f"to confirm, run {configuration_text(first)} at {where}"
    second = records(candidates)[choice.runner_up]
    gap = second["error"] - first["error"]
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
