"""Choice of the form of a family's laws, by its forecasts of held-out levels.

A family is the curves along one axis in one regime. Each form is refitted without the largest levels of every
curve and scored on these, in the unit of the error. The form with the lowest root mean square error becomes
the family's. A form that misses the fitted points of most curves by more than `most_missed` would not be
drawn, so it is only chosen if all forms do. The baseline is ``last level``: the error of the largest level
that was kept, carried forward.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS, Curve, by_length
from analysis.cells.intervals import half_width
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.laws.forms import FORMS, POWER, Form
from analysis.laws.least_squares import fit
from budgets.quantity import plural

HELD_SHARE = 0.25
"""Share of the levels of a curve that is held out; at least one level is."""
MOST_MISSED = 0.02
"""Largest root mean square miss of a law that is not a misfit: two points of error."""
MOST_MISSED_OF_LOSSES = 0.01
"""The same of losses, as a share of their mean: losses have units."""
FEWEST_POINTS = 3
"""Fewest held-out cells that distinguish one law from another."""
LAST = "last level"

_DRAWS = 32

COLUMNS = ("law", "curve", "position", "x", "measured", "forecast", "factor")


@dataclass(frozen=True, kw_only=True, slots=True)
class FormChoice:
    """The chosen form of a family.

    Attributes:
        form: Chosen form; the power law if nothing could be held out.
        error: Root mean square miss on held-out cells, a fraction; NaN without held-out cells.
        spread: Part of the squared ``error`` that comes from the noise of the fitted cells, a variance.
        reason: Reason for the form, or why none could be tested.
        points: One row per law and held-out cell: ``law``, ``curve``, ``position``, ``x``, ``measured``,
            ``forecast``, ``factor`` (x over the largest x that was kept).
    """

    form: Form
    error: float
    spread: float
    reason: str
    points: pd.DataFrame

    @property
    def tested(self) -> bool:
        """True if the form was tested on held-out cells."""
        return bool(np.isfinite(self.error))

    def growth(self, variance: float, draws: int, generator: np.random.Generator) -> Floats:
        """Return draws of how fast the variance of the misses grows beyond the cells, per square of ln x.

        A form misses in the same direction ever further out, in first order in proportion to the distance in
        ln x. The growth is (mean square miss of the held-out cells − variance within the cells − ``spread``)
        over their mean square distance in ln x. A few lucky forecasts do not prove that there is no growth,
        so each draw scales the mean square by n/χ²ₙ, n the number of held-out cells. Shape (draws,).
        """
        mine = self.points[self.points["law"] == self.form.name]
        distance = root_mean_square(np.log(mine["factor"].to_numpy(np.float64)))
        if not self.tested or not distance > 0:
            return np.zeros(draws)
        # n·(mean square)/χ²ₙ: the variance that a mean square over n cells allows.
        missed = self.error**2 * len(mine) / generator.chisquare(len(mine), draws)
        return np.maximum(0.0, missed - variance - self.spread) / distance**2


def choose_form(draws: CellDraws, family: Sequence[Curve]) -> FormChoice:
    """Score every form on the held-out cells of a family and choose one."""
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
        reason = "the curves have too few levels to hold any out: two must remain"
        return FormChoice(form=POWER, error=float("nan"), spread=0.0, reason=reason, points=points)
    # Prefer forms that would be drawn; among these the list is already sorted by held-out error.
    near = _near({law: misses[law] for law in laws["law"] if law in misses})
    best = laws[laws["law"].isin(near)].iloc[0] if near else laws.iloc[0]
    whose = "" if best["law"] == laws["law"].iloc[0] else " of the laws that pass near their cells"
    reason = (
        f"lowest error{whose} on {plural(int(best['points']), 'held-out cell')} of "
        f"{plural(int(best['curves']), 'curve')}, at most {points['factor'].max():.3g} times beyond the "
        "fitted levels"
    )
    carried = found.loc[found["law"] == LAST, "error"]
    if (carried < best["error"]).any():
        reason += ", though the last level carried on misses them by less"
    form = FORMS[str(best["law"])]
    if best["points"] < FEWEST_POINTS:
        reason += "; so few cells hardly distinguish the laws"
    return FormChoice(
        form=form, error=float(best["error"]), spread=_spread(draws, lengths, form), reason=reason,
        points=points,
    )  # fmt: skip


def scores(points: pd.DataFrame) -> pd.DataFrame:
    """Score laws on held-out cells, given as the points of ``FormChoice``.

    Returns:
        One row per law: ``law``, ``curves``, ``points`` (held-out cells), ``error`` (root mean square, a
        fraction), ``bias`` (mean of forecast minus measured) and ``compared``. Laws that forecast at least
        half as many cells as any other law are compared, on the cells that all of them forecast. Compared
        laws come first, by rising error; ties go to the law with fewer parameters.
    """
    # A law that forecasts few cells would restrict the comparison to these: it is scored but not compared.
    counts = points["law"].value_counts(sort=False)
    # The baseline always forecasts all cells, so it does not set the standard.
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
    """Return the root mean square; NaN without values."""
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def _cells(draws: CellDraws, family: Sequence[Curve]) -> tuple[Indices, Floats, Floats, Floats]:
    """Return positions, x, errors and runs of curves of equal length, each of shape (curves, cells)."""
    positions = np.stack([curve.positions for curve in family])
    names = (X_COLUMNS[family[0].along], "error", "runs")
    x, y, runs = (draws.column(name)[positions] for name in names)
    return positions, x, y, runs


def _levels(x: Floats) -> int:
    """Return the smallest number of distinct x in a row."""
    return min(len(np.unique(row)) for row in x)


def _forms(draws: CellDraws, levels: int) -> list[Form]:
    """Return the forms that can be fitted to a number of levels."""
    return [
        form
        for form in FORMS.values()
        if levels >= form.parameters and (not form.bounded or np.isfinite(draws.chance))
    ]


def _name(curve: Curve) -> str:
    return str(sorted(curve.identity.items(), key=str))


def most_missed(unit: ErrorUnit, errors: Floats) -> Floats:
    """Return the largest root mean square miss of each curve, of errors (…, levels), that is not a misfit."""
    if unit == PERCENT:
        return np.full(errors.shape[:-1], MOST_MISSED)
    return np.asarray(MOST_MISSED_OF_LOSSES * errors.mean(axis=-1))


def _near(misses: dict[str, dict[str, float]]) -> list[str]:
    """Return the laws whose median miss is no more than `most_missed`, over the curves common to all."""
    common = set.intersection(*(set(missed) for missed in misses.values())) if misses else set()
    if not common:
        return []
    return [law for law, missed in misses.items() if np.median([missed[curve] for curve in common]) <= 1]


def _misses(draws: CellDraws, family: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """Return the miss of each form on each curve with more levels than parameters, over `most_missed`."""
    _, x, y, runs = _cells(draws, family)
    missed = {
        form.name: fit(form, x, y, weights=runs, chance=draws.chance)(x) - y
        for form in _forms(draws, _levels(x) - 1)
    }
    most = most_missed(draws.error_unit, y)
    return {
        law: {
            _name(curve): root_mean_square(row) / float(limit)
            for curve, row, limit in zip(family, rows, most, strict=True)
        }
        for law, rows in missed.items()
    }


def _spread(draws: CellDraws, groups: Iterable[Sequence[Curve]], form: Form) -> float:
    """Return the mean variance of a form's forecasts of held-out cells over draws of the kept cells."""
    found = []
    for family in groups:
        positions, x, _, runs = _cells(draws, family)
        cut, rows = _cut(x.shape[1]), draws.draws[:_DRAWS, positions]
        if _levels(x[:, :cut]) >= form.parameters and len(rows):
            shape = (len(rows) * len(family), -1)
            # One fit per draw and curve: both axes are flattened into rows.
            whole = [np.broadcast_to(values, rows.shape).reshape(shape) for values in (x, runs, rows)]
            left_x, left_runs, left_y = (values[:, :cut] for values in whole)
            law = fit(form, left_x, left_y, weights=left_runs, chance=draws.chance)
            forecasts = law(whole[0][:, cut:]).reshape(len(rows), len(family), -1)
            found.append((half_width(forecasts) ** 2).ravel())
    return float(np.concatenate(found).mean()) if found else 0.0


def _cut(cells: int) -> int:
    """Return how many cells of a curve are kept when the largest are held out."""
    return cells - max(1, int(cells * HELD_SHARE))


def _forecasts(draws: CellDraws, family: Sequence[Curve]) -> list[dict[str, object]]:
    """Forecast the held-out cells of curves of equal length, all at once."""
    positions, x, y, runs = _cells(draws, family)
    names = [_name(curve) for curve in family]
    cells, cut = x.shape[1], _cut(x.shape[1])
    # The baseline repeats the error of the largest kept level for every held-out one.
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
