"""The least training compute that reaches an error, by the leader of a recommendation at each compute."""

from dataclasses import dataclass, replace

import numpy as np

from analysis.answers.options import Asked, read_options
from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws
from analysis.cells.intervals import interval
from analysis.error_unit import ErrorUnit
from budgets.quantity import format_flops

_POINTS, _HALVINGS = 64, 16
_MORE, _STEPS = 1e6, 16  # how far beyond the limit the law is asked whether it ever reaches the error


@dataclass(frozen=True, kw_only=True, slots=True)
class LeastCompute:
    """The least training compute that reaches an error.

    Attributes:
        error: The error that is asked for.
        flops: Least FLOPs, with those of serving, at which the leader's median error is no higher.
        low: Lower end of its 90 % interval; NaN if the noise of a run is unknown.
        high: Upper end; infinite where a draw does not reach the error within the limit.
    """

    error: float
    flops: float
    low: float
    high: float


def least_compute(draws: CellDraws, error: float, asked: Asked) -> LeastCompute:
    """Find the least compute at which what `recommend` names has an error; those ``asked`` do not count.

    A draw needs the least compute at which the leader there reaches the error in it; leaders change with the
    compute, not with the draw, since whoever trains one does not know the draw.

    Raises:
        ValueError: No compute within the limit reaches the error, or nothing can be read.
    """
    unit, families = draws.error_unit, draws.families.values()
    if not families:
        raise ValueError("nothing was measured")
    if not 0 < error < unit.most:
        between = " % and below 100 %, such as 30%" if unit.most == 1 else ""
        raise ValueError(f"the {unit.word} must be above 0{between}; found {unit.text(error)}")
    most = max(float(np.where(family.ran, family.x, 0.0).max()) for family in families) * asked.limit
    serving = [one.flops for one in asked.serving.values() if not one.why_not] or [0.0]
    least = min(float(family.lowest.min()) for family in families) + min(serving)
    ladder = np.geomspace(least, most + max(serving), _POINTS)
    path = [_leader(draws, asked, flops) for flops in ladder]
    middle = np.array([at for at, _ in path])
    reached = np.flatnonzero(middle <= error)
    if not len(reached):
        raise ValueError(_unreached(draws, error, asked, most, lowest=float(middle.min())))
    place = int(reached[0])
    flops = float(ladder[place])
    if place:
        below, flops = np.log(ladder[place - 1 : place + 1]).tolist()
        for _ in range(_HALVINGS):
            half = (below + flops) / 2
            if _leader(draws, asked, float(np.exp(half)))[0] <= error:
                flops = half
            else:
                below = half
        flops = float(np.exp(flops))
    low, high = interval(_crossings(np.log(ladder), np.stack([drawn for _, drawn in path]), error))
    return LeastCompute(error=error, flops=flops, low=min(low, flops), high=max(high, flops))


def _leader(draws: CellDraws, asked: Asked, flops: float) -> tuple[float, Floats]:
    """Return the leader's median error at a compute, infinite if there is none, and its draws."""
    options = read_options(draws, replace(asked, flops=flops))
    if options.empty:
        return np.inf, np.full(len(draws.draws), np.inf)
    return float(options.middle[0]), options.draws[:, 0]


def _crossings(steps: Floats, drawn: Floats, error: float) -> Floats:
    """Return the compute at which each draw of shape (steps, draws) first reaches an error.

    Between steps the error falls in a straight line over the logarithm of the compute.
    """
    first = (drawn <= error).argmax(axis=0)
    which = np.arange(drawn.shape[1])
    above, below = drawn[np.maximum(first - 1, 0), which], drawn[first, which]
    known = (first > 0) & np.isfinite(above) & np.isfinite(below)
    above, below = (np.where(known, side, 0.0) for side in (above, below))
    part = np.where(known, (above - error) / np.maximum(above - below, 1e-12), 1.0)
    start = steps[np.maximum(first - 1, 0)]
    found = np.exp(start + part * (steps[first] - start))
    return np.asarray(np.where((drawn <= error).any(axis=0), found, np.inf))


def _unreached(draws: CellDraws, error: float, asked: Asked, most: float, *, lowest: float) -> str:
    """Return that an error is not reached, and by how much."""
    unit = draws.error_unit
    beyond = replace(asked, limit=_MORE * asked.limit)
    more = np.geomspace(most, _MORE * most, _STEPS)
    floor = min(lowest, *(_leader(draws, beyond, flops)[0] for flops in more))
    if floor <= error:
        return (
            f"{unit.named(error)} is not reached within {asked.limit:g} times the measured compute: "
            f"the lowest there is {unit.text(lowest)}"
        )
    return (
        f"no compute reaches {unit.named(error)} with {asked.pairs:,.0f} pairs: "
        f"the lowest is {unit.text(floor)}"
    )


def least_text(least: LeastCompute, unit: ErrorUnit, *, served: bool = False) -> str:
    """Return what an error takes: ``error 30.0 % takes 3 EFLOP [2 EFLOP, 4 EFLOP] of training``."""
    with_serving = " and serving" if served else ""
    high = "beyond the limit" if np.isinf(least.high) else format_flops(least.high)
    between = "" if np.isnan(least.low) else f" [{format_flops(least.low)}, {high}]"
    return f"{unit.named(least.error)} takes {format_flops(least.flops)}{between} of training{with_serving}"
