"""Rehearsals of an adaptive design on made-up results, which estimate the cost of a study.

The true errors are drawn from a prior. The curves of a grid resemble each other, as those of real studies do:
a rehearsal draws a start, a floor, a slope and a shift, and each curve deviates from them, by about as much
as those of the embedded study do. From its smallest compute x₁ on, a curve is

    E + (S − E)·((x/x₁ + h)/(1 + h))^−α

Runs have noise that differs from curve to curve, and half of its variance is shared by the levels of a trunk.
"""

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.cells.bootstrap import curve_numbers, stream
from analysis.cells.table import budgets, tidy
from analysis.design.adaptive import decide
from analysis.design.prices import trunks_of
from analysis.design.questions import Ask

_DRAWS = 250
_DECISIONS = 24
_SHARED = 0.5


def rehearse(
    grid: pd.DataFrame, *, metric: str, ask: Ask, repeats: int, room_flops: float | None = None
) -> Floats:
    """Return the FLOPs that a design spent in each of some rehearsals.

    Args:
        grid: All trials that may be run, with the columns of a plan.
        metric: The metric that ranks configurations.
        ask: The questions.
        repeats: Number of rehearsals.
        room_flops: FLOPs that may be spent; None without a limit.
    """
    return np.array(
        [_spent(_made_up(grid, metric, number), metric, ask, room_flops) for number in range(repeats)]
    )


def _spent(results: pd.DataFrame, metric: str, ask: Ask, room_flops: float | None) -> float:
    slots = max(2, len(results) // _DECISIONS)
    seen = np.zeros(len(results), dtype=bool)
    spent = 0.0
    while True:
        decision = decide(
            tidy(results[seen], metric=metric), results, ask=ask, slots=slots if seen.any() else len(results),
            room_flops=None if room_flops is None else room_flops - spent, draws=_DRAWS,
        )  # fmt: skip
        if not decision.picks:
            return spent
        seen |= results["trial"].isin({pick.trial for pick in decision.picks}).to_numpy(bool)
        spent += sum(pick.cost_flops for pick in decision.picks)


def _made_up(grid: pd.DataFrame, metric: str, number: int) -> pd.DataFrame:
    """Return the results of all trials of a grid."""
    generator = stream("rehearsal", number)
    x = grid["train_flops"].to_numpy(np.float64)
    curve = curve_numbers(grid.assign(budget=budgets(grid)))
    first = pd.Series(x).groupby(curve).transform("min").to_numpy(np.float64)

    def alike(low: float, high: float, spread: float) -> Floats:
        """Return a value for each curve: around one between bounds that all share."""
        drawn = generator.uniform(low, high) + spread * generator.standard_normal(int(curve.max()) + 1)
        return drawn[curve]

    start, floor = alike(0.7, 0.95, 0.03), alike(0.15, 0.45, 0.04)
    slope, shift = np.exp(alike(np.log(0.35), np.log(0.8), 0.12)), np.exp(alike(-2.0, 1.5, 0.25))
    noise = np.exp(alike(np.log(0.004), np.log(0.012), 0.3))
    error = floor + (start - floor) * ((x / first + shift) / (1 + shift)) ** -slope
    trunk = trunks_of(grid)
    common = generator.standard_normal(int(trunk.max()) + 1)[trunk]
    own = generator.standard_normal(len(grid))
    error = np.clip(error + noise * (np.sqrt(_SHARED) * common + np.sqrt(1 - _SHARED) * own), 0.001, 0.999)
    return grid.assign(**{metric: 1 - error}, status="finished", reason="", train_loss=error)
