"""Which form of law a family of curves has: the one that best forecasts levels that it was not fitted to.

A family is the curves along one axis in one regime. Each form is refitted without the largest levels of every
curve and scored on them, in the unit of the error; the form with the lowest root mean square error is the
family's. A form that misses the very points of most curves by more than ``MOST_MISSED`` is not chosen where
another does not: it would not be drawn. ``last level`` (the error of the largest level that was left, carried
on) is what a law must beat.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS, Curve, by_length
from analysis.labels import plural
from analysis.laws.forms import FORMS, POWER, Form, fit

Floats = NDArray[np.float64]

HELD_SHARE = 0.25
"""Share of a curve's levels that is held out, at least one."""
MOST_MISSED = 0.02
"""Root mean square of a law's misses beyond which it is a misfit: two points of error, or .02 of a loss."""
FEWEST_POINTS = 3
"""Held-out cells below which one law is hardly preferred to another."""
LAST = "last level"

_DRAWS = 32

COLUMNS = ("law", "curve", "position", "x", "measured", "forecast", "factor")


@dataclass(frozen=True, kw_only=True, slots=True)
class FormChoice:
    """The form of a family.

    Attributes:
        form: The chosen form; the power law where nothing could be held out.
        error: Root mean square of what it missed held-out cells by, a fraction; NaN where there are none.
        spread: Of that error, the variance that the noise of the cells which were left gives a forecast.
        reason: Why it is that form, or why none could be tested.
        scores: See ``scores``.
        points: One row a law and held-out cell: ``law``, ``curve``, ``position``, ``x``, ``measured``,
            ``forecast``, ``factor`` (x over the largest x that was left).
    """

    form: Form
    error: float
    spread: float
    reason: str
    scores: pd.DataFrame
    points: pd.DataFrame

    @property
    def tested(self) -> bool:
        """Whether the form was tested on held-out cells."""
        return bool(np.isfinite(self.error))

    def growth(self, variance: float, draws: int, generator: np.random.Generator) -> Floats:
        """Return the growth of what the form misses beyond its cells: of its variance, by ln of the distance.

        Held-out cells tell it: their mean square beyond the variance within the cells and what noise gives a
        forecast, over their distance. A few cells that were forecast by luck do not show that there is none:
        each draw takes the mean square as large as their number allows, shape (draws,).
        """
        mine = self.points[self.points["law"] == self.form.name]
        distance = float(np.log(mine["factor"].to_numpy(np.float64)).mean()) if len(mine) else 0.0
        if not self.tested or distance <= 0:
            return np.zeros(draws)
        missed = self.error**2 * len(mine) / generator.chisquare(len(mine), draws)
        return np.asarray(np.maximum(0.0, missed - variance - self.spread) / distance, dtype=np.float64)


def choose_form(draws: CellDraws, family: Sequence[Curve]) -> FormChoice:
    """Score every form on a family's held-out cells.

    Args:
        draws: The study's cells.
        family: Curves along one axis.
    """
    lengths = by_length(family)
    rows, misses = [], dict[str, dict[str, float]]()
    for group in lengths:
        rows += _forecasts(draws, group)
        for law, missed in _misses(draws, group).items():
            misses.setdefault(law, {}).update(missed)
    points = pd.DataFrame(rows, columns=list(COLUMNS))
    found = scores(points)
    laws = found[found["compared"] & found["law"].isin(FORMS)]
    if laws.empty:
        reason = "the curves have too few levels for any law to be held out: two levels must be left"
        return FormChoice(
            form=POWER, error=float("nan"), spread=0.0, reason=reason, scores=found, points=points
        )
    near = _near({law: misses[law] for law in laws["law"] if law in misses})
    best = laws[laws["law"].isin(near)].iloc[0] if near else laws.iloc[0]
    reason = (
        f"lowest error on {plural(int(best['points']), 'held-out cell')} of "
        f"{plural(int(best['curves']), 'curve')}, at most {points['factor'].max():.3g} times beyond what it "
        "was fitted to"
    )
    form = FORMS[str(best["law"])]
    if best["points"] < FEWEST_POINTS:
        reason += "; so few cells hardly tell one law from another"
    return FormChoice(
        form=form, error=float(best["error"]), spread=_spread(draws, lengths, form), reason=reason,
        scores=found, points=points,
    )  # fmt: skip


def scores(points: pd.DataFrame) -> pd.DataFrame:
    """Score laws on held-out cells.

    Args:
        points: As in ``FormChoice``.

    Returns:
        One row a law: ``law``, ``curves``, ``points`` (held-out cells), ``error`` (root mean square, a
        fraction), ``bias`` (mean of forecast minus measured) and ``compared``: laws that could forecast at
        least half as many cells as any other are compared, on the cells that all of these could forecast.
        Compared ones first, by rising error; between equals, the one with fewer parameters.
    """
    # A law that could forecast few cells would narrow the comparison to them: it is scored, not chosen.
    counts = points["law"].value_counts(sort=False)
    most = counts.drop(LAST, errors="ignore").max() if len(counts) > 1 else counts.max()
    wide = [law for law in counts.index if counts[law] >= most / 2]
    common = set.intersection(*(set(points.loc[points["law"] == law, "position"]) for law in wide))
    rows = []
    for law, group in points.groupby("law", sort=False):
        here = group[group["position"].isin(common)] if law in wide else group
        miss = (here["forecast"] - here["measured"]).to_numpy(np.float64)
        rows.append({
            "law": law, "curves": here["curve"].nunique(), "points": len(here),
            "error": root_mean_square(miss), "bias": float(miss.mean()) if len(miss) else np.nan,
            "compared": law in wide,
        })  # fmt: skip
    ranked = pd.DataFrame(rows).sort_values(["compared", "error"], ascending=[False, True], kind="stable")
    return ranked.reset_index(drop=True)


def root_mean_square(values: Floats) -> float:
    """Return the root mean square; NaN of nothing."""
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def _cells(draws: CellDraws, family: Sequence[Curve]) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
    """Return positions, x, errors and runs of curves of the same number of cells, shape (curves, cells)."""
    positions = np.stack([curve.positions for curve in family])
    names = (X_COLUMNS[family[0].along], "error", "runs")
    x, y, runs = (draws.cells[name].to_numpy(np.float64)[positions] for name in names)
    return positions, x, y, runs


def _levels(x: Floats) -> int:
    """The fewest distinct x of a row."""
    return min(len(np.unique(row)) for row in x)


def _forms(draws: CellDraws, levels: int) -> list[Form]:
    """Return the forms that can be fitted to so many levels."""
    return [
        form
        for form in FORMS.values()
        if levels >= form.parameters and (not form.bounded or np.isfinite(draws.chance))
    ]


def _name(curve: Curve) -> str:
    return str(sorted(curve.identity.items(), key=str))


def _near(misses: dict[str, dict[str, float]]) -> list[str]:
    """Return the laws that miss most curves by no more than is drawn, on curves that all of them can miss."""
    common = set.intersection(*(set(missed) for missed in misses.values())) if misses else set()
    if not common:
        return []
    return [
        law for law, missed in misses.items() if np.median([missed[curve] for curve in common]) <= MOST_MISSED
    ]


def _misses(draws: CellDraws, family: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """Return what each form misses each curve by, where a level is left to miss: root mean squares."""
    _, x, y, runs = _cells(draws, family)
    missed = {
        form.name: fit(form, x, y, weights=runs, chance=draws.chance)(x) - y
        for form in _forms(draws, _levels(x) - 1)
    }
    return {
        law: {_name(curve): root_mean_square(row) for curve, row in zip(family, rows, strict=True)}
        for law, rows in missed.items()
    }


def _spread(draws: CellDraws, groups: Iterable[Sequence[Curve]], form: Form) -> float:
    """Return the mean variance of a form's forecasts of held-out cells over the draws of the others."""
    found = []
    for family in groups:
        positions, x, _, runs = _cells(draws, family)
        cut, rows = _cut(x.shape[1]), draws.draws[:_DRAWS, positions]
        if _levels(x[:, :cut]) >= form.parameters and len(rows):
            shape = (len(rows) * len(family), -1)
            whole = [np.broadcast_to(values, rows.shape).reshape(shape) for values in (x, runs, rows)]
            left_x, left_runs, left_y = (values[:, :cut] for values in whole)
            law = fit(form, left_x, left_y, weights=left_runs, chance=draws.chance)
            forecasts = law(whole[0][:, cut:]).reshape(len(rows), len(family), -1)
            low, high = np.quantile(forecasts, [0.1587, 0.8413], axis=0)
            found.append((((high - low) / 2) ** 2).ravel())
    return float(np.concatenate(found).mean()) if found else 0.0


def _cut(cells: int) -> int:
    """How many of a curve's cells are left where the largest are held out."""
    return cells - max(1, int(cells * HELD_SHARE))


def _forecasts(draws: CellDraws, family: Sequence[Curve]) -> list[dict[str, object]]:
    """Forecast the held-out cells of curves of the same number of cells, at once."""
    positions, x, y, runs = _cells(draws, family)
    names = [_name(curve) for curve in family]
    cells, cut = x.shape[1], _cut(x.shape[1])
    forecasts = {LAST: np.repeat(y[:, cut - 1 : cut], cells - cut, axis=1)}
    for form in _forms(draws, _levels(x[:, :cut])):
        law = fit(form, x[:, :cut], y[:, :cut], weights=runs[:, :cut], chance=draws.chance)
        forecasts[form.name] = law(x[:, cut:])
    return [
        {
            "law": law, "curve": names[row], "position": int(positions[row, place]),
            "x": float(x[row, place]), "measured": float(y[row, place]),
            "forecast": float(values[row, place - cut]), "factor": float(x[row, place] / x[row, cut - 1]),
        }
        for law, values in forecasts.items()
        for row in range(len(family))
        for place in range(cut, cells)
    ]  # fmt: skip
