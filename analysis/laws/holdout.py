"""Held-out forecasts of the laws along compute, and the choice of the law that forecasts.

A family of curves has one form (``form_choice``). If the surface over all sizes of a family of models
forecasts its held-out cells better than that form, the surface forecasts the family beyond its cells. Every
printed forecast comes with the held-out error of its law.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.cells.bootstrap import CellDraws
from analysis.cells.curves import X_COLUMNS
from analysis.error_unit import ErrorUnit
from analysis.laws.form_choice import COLUMNS, FEWEST_POINTS, FormChoice, root_mean_square, scores
from analysis.laws.laws import Law
from analysis.laws.repeated import Points
from analysis.laws.surface_forecast import SURFACES, forecast, groups


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecaster:
    """The law that forecasts a curve best, its root mean square miss on held-out cells, and the reason."""

    law: str
    error: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """Held-out forecasts of all laws.

    Attributes:
        scores: Scores of all laws on all curves along compute, see ``form_choice.scores``.
        points: One row per law and held-out cell, see ``form_choice.FormChoice``.
        choices: Regime → the form of its curves.
        surfaces: Family of models → its surface, for the families that a surface forecasts better.
        reason: Reason why nothing could be held out; empty if something was.
    """

    scores: pd.DataFrame
    points: pd.DataFrame
    choices: Mapping[str, FormChoice]
    surfaces: Mapping[str, Forecaster]
    reason: str


def own_forecaster(law: Law) -> Forecaster:
    """Return the law of a curve as a forecaster."""
    return Forecaster(law=law.choice.form.name, error=law.choice.error, reason=law.choice.reason)


def holdout(draws: CellDraws, laws: tuple[Law, ...]) -> Holdout:
    """Score every law along compute, and the surfaces over all sizes of a family."""
    choices = {str(law.identity["regime"]): law.choice for law in laws if law.along == "compute"}
    found = [choice.points for choice in choices.values() if not choice.points.empty]
    if not found:
        reason = "no curve along compute has two levels, so none could be held out"
        nothing = pd.DataFrame(columns=list(COLUMNS))
        return Holdout(scores=pd.DataFrame(), points=nothing, choices=choices, surfaces={}, reason=reason)
    curves = pd.concat(found, ignore_index=True)
    rows = _surface_points(draws, set(curves["position"]))
    points = pd.concat([curves, pd.DataFrame(rows, columns=list(COLUMNS))]) if rows else curves
    tested = [choice.form.name for choice in choices.values() if choice.tested]
    reason = "" if tested else next(iter(choices.values())).reason
    surfaces = [  # each family is compared with the form of its own regime
        _surfaces(
            points[points["position"].isin(choice.points["position"])], choice.form.name, draws.error_unit
        )
        for choice in choices.values()
    ]
    return Holdout(
        scores=scores(points), points=points.reset_index(drop=True), choices=choices,
        surfaces={name: one for each in surfaces for name, one in each.items()} if tested else {},
        reason=reason,
    )  # fmt: skip


def _surface_points(draws: CellDraws, held: set[object]) -> list[dict[str, object]]:
    """Forecast the held-out cells by the surfaces of each family, fitted to the other cells."""
    x = draws.column(X_COLUMNS["compute"])
    measured = draws.column("error")
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


def _surfaces(points: pd.DataFrame, best: str, error_unit: ErrorUnit) -> dict[str, Forecaster]:
    """Return the families whose held-out cells a surface forecasts better than the law of their curves."""
    curves = points[points["law"] == best].set_index("position")
    found: dict[str, Forecaster] = {}
    for (family, law), group in points[points["law"].isin(SURFACES)].groupby(["curve", "law"]):
        # Compare on the cells that both the surface and the law of the curves forecast.
        theirs = curves[curves.index.isin(group["position"])]
        mine = group[group["position"].isin(theirs.index)]
        if len(mine) < FEWEST_POINTS:
            continue
        # A second surface must beat the first one, and the first one the law of the curves.
        limit = found[str(family)].error if str(family) in found else _error(theirs)
        if _error(mine) < limit:
            reason = (
                f"lowest error on {len(mine)} held-out cells of its family, where the {best} misses by "
                f"{error_unit.gap(_error(theirs), fine=True)}"
            )
            found[str(family)] = Forecaster(law=str(law), error=_error(mine), reason=reason)
    return found


def _error(points: pd.DataFrame) -> float:
    return root_mean_square((points["forecast"] - points["measured"]).to_numpy(np.float64))
