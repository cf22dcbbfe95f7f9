"""Which law forecasts best: each is refitted without the largest levels and scored on them.

The law used for forecasts is the one with the lowest root mean square error there, in the same unit as the
error itself; that number is printed wherever a forecast is. ``last level`` (the error of the largest level
that was left, carried on) is what a law must beat to be of use. Where the surface over all sizes of a family
forecasts the family's held-out cells better than the best law of single curves, it forecasts that family.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.labels import percent, plural
from analysis.laws import X_COLUMNS, Law
from analysis.power_law import fit_draws
from analysis.saturation import fit_saturated
from analysis.surface_forecast import SURFACES, Points, forecast, groups, key

Floats = NDArray[np.float64]
Runs = NDArray[np.int64]

HELD_SHARE = 0.25
"""Share of a curve's levels that is held out, at least one."""

_FEWEST_POINTS = 3
"""Held-out cells below which one law is not preferred to another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A law that can be forecast with along one curve.

    Attributes:
        name: Its name in tables.
        parameters: The fewest levels that it can be fitted to.
        predict: Rising x, y and runs (draws, cells; x and runs may be shared), at (points, or draws × points)
            → errors (draws, points).
    """

    name: str
    parameters: int
    predict: Callable[[Floats, Floats, Runs, Floats], Floats]


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """The law that forecast a curve's held-out cells best, by what it missed them, and why it is that one."""

    law: str
    error: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """How the laws forecast.

    Attributes:
        scores: One row a law: ``law``, ``curves``, ``points`` (held-out cells), ``error`` (root mean square,
            a fraction), ``bias`` (mean of forecast minus measured), by rising error; the laws are compared on
            the cells that all of them could forecast.
        points: One row a law and held-out cell: ``law``, ``position``, ``x``, ``measured``, ``forecast``,
            ``factor`` (x over the largest x that was left).
        best: The law to forecast a curve with; empty when no cell could be held out.
        error: Its error.
        reason: Why it is that law, or why there is none.
        surfaces: The families that a surface forecasts better, by what they hold.
    """

    scores: pd.DataFrame
    points: pd.DataFrame
    best: str
    error: float
    reason: str
    surfaces: Mapping[str, Forecaster]

    def forecaster(self, law: Law) -> Forecaster:
        """What a curve is forecast with."""
        own = Forecaster(law=self.best, error=self.error, reason=self.reason)
        return self.surfaces.get(str(key(dict(law.identity))), own)


def _power(*, floor: bool) -> Callable[[Floats, Floats, Runs, Floats], Floats]:
    def predict(x: Floats, y: Floats, runs: Runs, at: Floats) -> Floats:
        drawn = fit_draws(x, y, runs=runs, floor=floor)
        power = np.exp(-drawn.alpha[:, None] * (np.log(at) - np.log(x).mean(axis=-1, keepdims=True)))
        return np.asarray(drawn.floor[:, None] + drawn.scale[:, None] * power, dtype=np.float64)

    return predict


def _saturated(*, floor: bool) -> Callable[[Floats, Floats, Runs, Floats], Floats]:
    return lambda x, y, runs, at: fit_saturated(x, y, runs=runs, floor=floor)(at)


def _last(x: Floats, y: Floats, runs: Runs, at: Floats) -> Floats:  # noqa: ARG001 (a form's signature)
    return np.repeat(y[:, -1:], at.shape[-1], axis=1)


FORMS = {
    form.name: form
    for form in (
        Form(name="last level", parameters=1, predict=_last),
        Form(name="power law", parameters=2, predict=_power(floor=False)),
        Form(name="power law with floor", parameters=3, predict=_power(floor=True)),
        Form(name="power law with saturation", parameters=3, predict=_saturated(floor=False)),
        Form(name="power law with floor and saturation", parameters=4, predict=_saturated(floor=True)),
    )
}


def holdout(draws: CellDraws, laws: tuple[Law, ...]) -> Holdout:
    """Scores every law along compute, and the surfaces over all sizes of a family.

    Args:
        draws: The study's cells.
        laws: Their curves along compute; others are left aside.
    """
    lengths: dict[int, list[Law]] = {}
    for law in laws:
        if law.along == "compute":
            lengths.setdefault(len(law.positions), []).append(law)
    rows = [row for group in lengths.values() for row in _curve_points(draws, group)]
    rows += _surface_points(draws, {row["position"] for row in rows})
    points = pd.DataFrame(rows, columns=["law", "curve", "position", "x", "measured", "forecast", "factor"])
    if points.empty:
        reason = "no curve has two levels: nothing could be held out"
        return Holdout(
            scores=pd.DataFrame(), points=points, best="", error=float("nan"), reason=reason, surfaces={}
        )
    return _choose(points)


def _curve_points(draws: CellDraws, laws: Sequence[Law]) -> list[dict[str, object]]:
    """Forecasts of all curves of the same number of cells, at once."""
    positions = np.stack([law.positions for law in laws])
    names = [str(sorted(law.identity.items(), key=str)) for law in laws]
    x = draws.cells[X_COLUMNS["compute"]].to_numpy(np.float64)[positions]
    y = draws.cells["error"].to_numpy(np.float64)[positions]
    runs = draws.cells["runs"].to_numpy(np.int64)[positions]
    cut = x.shape[1] - max(1, int(x.shape[1] * HELD_SHARE))
    rows: list[dict[str, object]] = []
    for form in FORMS.values():
        if cut < form.parameters:
            continue
        forecast = form.predict(x[:, :cut], y[:, :cut], runs[:, :cut], x[:, cut:])
        rows += [
            {
                "law": form.name, "curve": names[row], "position": int(positions[row, place]),
                "x": float(x[row, place]), "measured": float(y[row, place]),
                "forecast": float(forecast[row, place - cut]),
                "factor": float(x[row, place] / x[row, cut - 1]),
            }
            for row, place in product(range(len(laws)), range(cut, x.shape[1]))
        ]  # fmt: skip
    return rows


def _surface_points(draws: CellDraws, held: set[object]) -> list[dict[str, object]]:
    """The surfaces of each family, quality and strategy, without the cells that curves held out."""
    x = draws.cells[X_COLUMNS["compute"]].to_numpy(np.float64)
    measured = draws.cells["error"].to_numpy(np.float64)
    rows: list[dict[str, object]] = []
    for name, found in groups(draws).items():
        out = np.array([position for position in found if int(position) in held], dtype=np.intp)
        left = np.array([position for position in found if int(position) not in held], dtype=np.intp)
        if not len(out) or not len(left):
            continue
        cells, at = draws.cells.iloc[left], Points.of(draws.cells.iloc[out])
        for law in SURFACES:
            forecasts = forecast(law, cells, measured[None, left], at)
            if forecasts is None:
                continue
            rows += [
                {
                    "law": law, "curve": str(name), "position": int(position), "x": float(x[position]),
                    "measured": float(measured[position]), "forecast": float(value),
                    "factor": float(x[position] / x[left].max()),
                }
                for position, value in zip(out, forecasts[0], strict=True)
            ]  # fmt: skip
    return rows


def _error(points: pd.DataFrame) -> float:
    return float(np.sqrt(np.mean((points["forecast"] - points["measured"]).to_numpy(np.float64) ** 2)))


def _surfaces(points: pd.DataFrame, best: str) -> dict[str, Forecaster]:
    """The families whose held-out cells a surface forecasts better than the best law of single curves."""
    curves = points[points["law"] == best].set_index("position")
    found: dict[str, Forecaster] = {}
    for (family, law), group in points[points["law"].isin(SURFACES)].groupby(["curve", "law"]):
        theirs = curves[curves.index.isin(group["position"])]
        mine = group[group["position"].isin(theirs.index)]
        if len(mine) < _FEWEST_POINTS:
            continue
        limit = found[str(family)].error if str(family) in found else _error(theirs)
        if _error(mine) < limit:
            reason = (
                f"lowest error on {len(mine)} held-out cells of its family, where the {best} misses by "
                f"{percent(_error(theirs), 2)} points"
            )
            found[str(family)] = Forecaster(law=str(law), error=_error(mine), reason=reason)
    return found


def _choose(points: pd.DataFrame) -> Holdout:
    # A law that could forecast few cells would narrow the comparison to them: it is scored, not chosen.
    counts = points["law"].value_counts()
    wide = [law for law in counts.index if counts[law] >= counts.max() / 2]
    common = set.intersection(*(set(points.loc[points["law"] == law, "position"]) for law in wide))
    rows = []
    for law, group in points.groupby("law", sort=False):
        here = group[group["position"].isin(common)] if law in wide else group
        miss = (here["forecast"] - here["measured"]).to_numpy(np.float64)
        rows.append({
            "law": law, "curves": here["curve"].nunique(), "points": len(here),
            "error": float(np.sqrt(np.mean(miss**2))) if len(miss) else np.nan,
            "bias": float(miss.mean()) if len(miss) else np.nan, "compared": law in wide,
        })  # fmt: skip
    scores = pd.DataFrame(rows).sort_values(["compared", "error"], ascending=[False, True], kind="stable")
    laws = scores[scores["compared"] & scores["law"].isin([name for name in FORMS if name != "last level"])]
    if laws.empty:
        reason = "the curves have too few levels for any law to be held out: two levels must be left"
        return Holdout(scores=scores, points=points, best="", error=float("nan"), reason=reason, surfaces={})
    best = laws.iloc[0]
    reason = (
        f"lowest error on {plural(int(best['points']), 'held-out cell')} of "
        f"{plural(int(best['curves']), 'curve')}, at most {points['factor'].max():.3g} times beyond what it "
        "was fitted to"
    )
    if best["points"] < _FEWEST_POINTS:
        reason += "; so few cells hardly tell one law from another"
    return Holdout(
        scores=scores.reset_index(drop=True), points=points, best=str(best["law"]),
        error=float(best["error"]), reason=reason, surfaces=_surfaces(points, str(best["law"])),
    )  # fmt: skip
