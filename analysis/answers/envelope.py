"""The lower envelope over compute: the lowest error of any configuration at each number of FLOPs.

The Pareto frontier holds the cells that no other cell beats at equal or lower cost, each with the share of
draws in which it is on the frontier. The law of the envelope is fitted to the lowest of all curves at every
measured compute (Hoffmann et al. 2022, approach 1), where each curve is interpolated between its own cells,
see ``frontier``. The law is refitted to the envelope of each draw.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.answers.frontier import cells_by_curve, read
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.intervals import Interval, intervals
from analysis.cells.pareto import costs, undominated
from analysis.laws.excess_variance import by_moments
from analysis.laws.form_choice import FormChoice
from analysis.laws.forms import POWER, Form
from analysis.laws.law_fit import LawFit, fit_laws, noise_sd
from analysis.laws.least_squares import fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """The envelope of one regime.

    Attributes:
        regime: Regime of the cells.
        pareto: Cells of the frontier by rising compute: the columns of ``CellDraws.cells``, and
            ``probability`` of being on the frontier.
        read: Points that the law is fitted to: ``train_flops``, ``error``, and ``runs`` of the cell behind
            each.
        fit: Law of the envelope.
        alpha: Intervals of its exponent; NaN without draws of runs.
        floor: Intervals of its floor; NaN without draws of runs.
    """

    regime: str
    pareto: pd.DataFrame
    read: pd.DataFrame
    fit: LawFit
    alpha: Interval
    floor: Interval


def envelopes(draws: CellDraws, choices: Mapping[str, FormChoice]) -> tuple[Envelope, ...]:
    """Return the envelope of each regime, in the form that was chosen for its curves over compute."""
    return tuple(
        _envelope(regime, draws.take(places), choices[regime].form if regime in choices else POWER)
        for regime, places in ((str(key[0]), places) for key, places in draws.groups(["regime"]))
    )


def _envelope(regime: str, draws: CellDraws, form: Form) -> Envelope:
    cost = costs(draws.cells)
    kept = undominated(cost, draws.with_measured())
    share = kept[1:].mean(axis=0) if len(kept) > 1 else np.full(len(cost), np.nan)
    pareto = draws.cells.assign(probability=share)[kept[0]].sort_values("train_flops")
    # Not beyond the last cell of the frontier: dearer cells are no lower, and a flat end would bend the law.
    grid = np.unique(cost[cost <= cost[kept[0]].max()])
    x = np.array([draws.column("train_flops")[cost == at].mean() for at in grid])
    y, runs = _lowest(draws, cost, grid)
    law, alpha, floor = _law(draws, form, x, y, runs)
    read_off = pd.DataFrame({"train_flops": x, "error": y[0], "runs": runs[0]})
    return Envelope(
        regime=regime, pareto=pareto.reset_index(drop=True), read=read_off, fit=law, alpha=alpha, floor=floor
    )


def _lowest(draws: CellDraws, cost: Floats, grid: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Return the lowest curve at each compute and the runs of its cell there, for each row of the stack."""
    stack, runs = draws.stacked(), draws.cells["runs"].to_numpy(np.int64)
    y = np.full((len(stack), len(grid)), np.inf)
    behind = np.zeros(y.shape, dtype=np.int64)
    for positions in cells_by_curve(draws, cost):
        x = cost[positions]
        found = read(x, stack[:, positions], grid)
        places = runs[positions][np.clip(np.searchsorted(x, grid), 0, len(x) - 1)]
        lower = found < y
        y, behind = np.where(lower, found, y), np.where(lower, places, behind)
    return y, behind


def _law(
    draws: CellDraws, form: Form, x: Floats, y: Floats, runs: NDArray[np.int64]
) -> tuple[LawFit, Interval, Interval]:
    """Fit the law of the envelope; return it with the intervals of its exponent and floor.

    ``y`` has the envelope of each row of the stack (``CellDraws.stacked``), and ``runs`` weights in its
    shape.
    """
    drawn = slice(1, 1 + draws.refits)
    (law,) = fit_laws(
        form, x[None], y[:1], runs=runs[:1], draws=y[drawn, None], source=draws.source,
        freedom=draws.freedom, chance=draws.chance, error_unit=draws.error_unit,
    )  # fmt: skip
    if not law.supported or draws.source != "runs":
        return law, Interval(), Interval()
    generator, noise = stream("discrepancy/envelope"), float(np.mean(noise_sd(y[drawn]) ** 2))
    discrepancy = by_moments(law.miss**2 * len(x), freedom=law.freedom, noise=noise)
    moves = discrepancy.drawn(draws.refits, generator)[:, None] * generator.standard_normal(y[drawn].shape)
    y = np.concatenate([y[:1], y[drawn] + moves, y[1 + draws.refits :]])
    laws = fit(form, x, y, weights=runs.astype(np.float64), chance=draws.chance)
    return law, intervals(laws.alpha, draws.refits), intervals(laws.floor, draws.refits)
