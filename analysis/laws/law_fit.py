"""The law of one curve: its fit in a given form, and the verdict on that fit.

Three parameters fit most sequences of four errors, so without a trend a law with a floor would follow noise.
A law is drawn only if the slope of the error over ln x is below zero at a one-sided level of 5 %. If the
noise between seeds was measured, the draws of the study give that level. Otherwise permutations of the
measured errors do, which need four levels but no noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import factorial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import NoiseSource, stream
from analysis.cells.intervals import half_width
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.laws.form_choice import most_missed, root_mean_square
from analysis.laws.forms import Curves, Form, row
from analysis.laws.least_squares import fit, restarts
from budgets.quantity import plural

LawStatus = Literal[
    "ok", "lack of fit", "untested", "floor undetermined", "saturated", "exponent at bound", "misfit",
    "no decrease", "too few levels",
]  # fmt: skip

UNTESTED_LEVELS = 4
"""Most levels at which the law of a single curve cannot be tested on held-out levels."""
LACK = 0.05
"""p-value of the lack-of-fit test below which a law lacks fit."""

_FEWEST_LEVELS = 3
_DRAWN: frozenset[LawStatus] = frozenset({"ok", "lack of fit", "untested", "floor undetermined", "saturated"})
FALL_LEVEL = 0.05
"""Level of the test: share of curves of pure noise that count as falling."""
_PERMUTATIONS = 720
_FEWEST_PERMUTED = 4
_SAME = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class LawFit:
    """The fitted law of one curve.

    Attributes:
        law: The law, as one row; None with too few levels.
        form: Form of the law.
        status: ``ok``. Also drawn: ``lack of fit`` (it misses by more than the noise), ``untested`` (four
            levels or fewer), ``floor undetermined`` (E ended at zero), ``saturated`` (as many levels as
            parameters). Any other status says why the law is not drawn.
        reason: The status in one sentence.
        rows: Number of runs behind the fit.
        levels: Number of distinct x.
        starts: Number of searches from other starts.
        agreement: Number of these that ended at the same objective.
        miss: Root mean square of measured minus law.
        noise: Root mean square noise of the cell means; NaN if it was not measured.
        lack_of_fit: Probability of misses this large from noise alone (p-value); NaN when unknown.
    """

    law: Curves | None
    form: Form
    status: LawStatus
    reason: str
    rows: int
    levels: int
    starts: int = 0
    agreement: int = 0
    miss: float = float("nan")
    noise: float = float("nan")
    lack_of_fit: float = float("nan")

    @property
    def supported(self) -> bool:
        """True if the data support the law, so that it may be drawn over their range."""
        return self.status in _DRAWN

    @property
    def tested(self) -> bool:
        """True if the curve has enough levels to test its law."""
        return self.levels > max(UNTESTED_LEVELS, self.form.parameters)

    @property
    def freedom(self) -> int:
        """Number of levels minus number of parameters, at least zero."""
        return max(self.levels - self.form.parameters, 0)

    @property
    def floor(self) -> float:
        """E; like the following values NaN without a law."""
        return self._of(lambda law: law.floor)

    @property
    def scale(self) -> float:
        """A, the error above E at ``unit``; in a bounded law the error of chance."""
        return self._of(lambda law: law.scale)

    @property
    def alpha(self) -> float:
        """The exponent."""
        return self._of(lambda law: law.alpha)

    @property
    def shift(self) -> float:
        """x₀, in units of x."""
        return self._of(lambda law: law.shift)

    @property
    def unit(self) -> float:
        """Geometric mean of x, at which ``scale`` is the error above the floor."""
        return self._of(lambda law: law.unit)

    def _of(self, value: Callable[[Curves], Floats]) -> float:
        return float("nan") if self.law is None else float(value(self.law)[0])

    def __call__(self, x: Floats) -> Floats:
        """Return the law at x, shape (points,)."""
        assert self.law is not None, "only curves with enough levels have a law"
        return np.asarray(self.law(x)[0], dtype=np.float64)


def fit_laws(  # noqa: PLR0913 (curves, their noise, and what is known of the form)
    form: Form,
    x: Floats,
    y: Floats,
    *,
    runs: NDArray[np.int64],
    draws: Floats | None = None,
    source: NoiseSource = "none",
    freedom: int = 0,
    chance: float = float("nan"),
    error_unit: ErrorUnit = PERCENT,
) -> list[LawFit]:
    """Fit curves of equal length in a given form, and judge the laws.

    Args:
        form: Form of the curves' family.
        x: Compute, samples or pairs of each cell, above zero, shape (curves, cells).
        y: Mean error of each cell, shape (curves, cells).
        runs: Number of runs behind each mean, used as weights, shape (curves, cells).
        draws: Drawn means, shape (draws, curves, cells); none by default.
        source: Source of the draws, see ``bootstrap``.
        freedom: Residual degrees of freedom behind the draws.
        chance: Error of chance, for a bounded law.
        error_unit: Unit of errors in reasons.

    Raises:
        ValueError: A value is not finite, or an x is not above zero.
    """
    if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all()):
        raise ValueError("a law needs finite values and x above zero")
    needed, levels = max(_FEWEST_LEVELS, form.parameters), [len(np.unique(curve)) for curve in x]
    found = [
        LawFit(
            law=None, form=form, status="too few levels", rows=int(of_curve.sum()), levels=count,
            reason=f"{plural(count, 'distinct level')}; a {form.name} needs at least {needed}",
        )
        for count, of_curve in zip(levels, runs, strict=True)
    ]  # fmt: skip
    kept = np.flatnonzero(np.array(levels) >= needed)
    if not len(kept):
        return found
    weights = runs[kept].astype(np.float64)
    laws = fit(form, x[kept], y[kept], weights=weights, chance=chance)
    ends = restarts(form, x[kept], y[kept], weights=weights, chance=chance)
    draws = np.empty((0, *x.shape)) if draws is None else draws
    for place, curve in enumerate(kept.tolist()):
        found[curve] = _judged(
            row(laws, place), ends[place], x[curve], y[curve], runs=runs[curve], draws=draws[:, curve],
            source=source, freedom=freedom, error_unit=error_unit,
        )  # fmt: skip
    return found


def _judged(  # noqa: PLR0913 (a curve, its law, and its noise)
    law: Curves,
    ends: Floats,
    x: Floats,
    y: Floats,
    *,
    runs: NDArray[np.int64],
    draws: Floats,
    source: NoiseSource,
    freedom: int,
    error_unit: ErrorUnit,
) -> LawFit:
    form, levels, objective = law.form, len(np.unique(x)), float(law.objective[0])
    # Σ w·r² is rounded by about Σ w·y²·1e-16; smaller differences do not mean another optimum.
    tolerance = 1e-6 * objective + 1e-12 * float(runs @ y**2)
    # Misses in units of the noise give the lack-of-fit test; in points they are compared with `most_missed`.
    miss, sd = y - law(x)[0], noise_sd(draws)
    size = root_mean_square(miss)
    squares = float(((miss / sd) ** 2).sum()) if len(draws) else 0.0
    lack = lack_of_fit(squares, levels - form.parameters, freedom) if len(draws) else float("nan")
    status, reason = _judge(
        law, levels=levels, slope=float((np.log(x) - np.log(x).mean()) @ y), miss=size,
        most=float(most_missed(error_unit, y)),
        carried=_carried(x, y), lack=lack, chance=_chance_of_no_fall(x, y, draws=draws, source=source),
        gap=error_unit.gap,
    )  # fmt: skip
    return LawFit(
        law=law, form=form, status=status, reason=reason, rows=int(runs.sum()), levels=levels,
        starts=len(ends), agreement=int((np.abs(ends - objective) <= tolerance).sum()), miss=size,
        noise=root_mean_square(sd) if len(draws) else float("nan"), lack_of_fit=lack,
    )  # fmt: skip


def noise_sd(draws: Floats) -> Floats:
    """Return the standard deviation of each mean, shape (cells,); zeros without draws."""
    return np.maximum(half_width(draws), 1e-12) if len(draws) else np.zeros(draws.shape[1])


def _carried(x: Floats, y: Floats) -> float:
    """Return the root mean square miss of a forecast that carries each level on to the next."""
    return root_mean_square(np.diff(y[np.argsort(x, kind="stable")]))


def lack_of_fit(squares: float, left: int, freedom: int) -> float:
    """Return the p-value of misses if noise were their only cause; NaN without spare levels.

    ``squares`` is Σ r² of the misses in units of the noise and ``left`` their degrees of freedom. ``freedom``
    is that behind the noise, for an F test; 0 if the noise is known, for a χ² test.
    """
    if left < 1:
        return float("nan")
    from scipy.special import chdtrc, fdtrc  # noqa: PLC0415 (a fifth of the report's import)

    return float(fdtrc(left, freedom, squares / left) if freedom else chdtrc(left, squares))


def _judge(  # noqa: PLR0913 (a law, and what it is judged by)
    law: Curves,
    *,
    levels: int,
    slope: float,
    miss: float,
    most: float,
    carried: float,
    lack: float,
    chance: float,
    gap: Callable[[float], str],
) -> tuple[LawStatus, str]:
    form = law.form
    # A bounded law falls if chance (its ``scale``) lies above its floor; the others if A is positive.
    falls = slope < 0 and law.scale[0] > (law.floor[0] if form.bounded else 0)
    # The first condition that holds is the status: reasons not to draw the law come before its weaknesses.
    found: tuple[tuple[bool, LawStatus, str], ...] = (
        (not falls, "no decrease", "the error does not fall along the curve"),
        (bool(law.at_bound[0]), "exponent at bound",
         "the slope ended at a bound of the search, so the data do not show this law"),
        (chance > FALL_LEVEL, "no decrease",
         f"the fall is within the noise: errors without any trend fall as far with chance {chance:.0%}"),
        (miss > most, "misfit", f"the law misses its points by {gap(miss)}"),
        (miss > carried, "misfit",
         f"misses of {gap(miss)}; carrying each level forward misses by {gap(carried)}"),
        (levels == form.parameters, "saturated",
         f"{levels} levels for as many parameters: the law passes through them and cannot be tested"),
        (lack < LACK, "lack of fit",
         f"misses of {gap(miss)}, more than the noise (p = {lack:.2g}); intervals include them"),
        (form.floor and law.floor[0] <= 0, "floor undetermined",
         "the floor ended at zero: these levels do not show a floor"),
        (levels <= UNTESTED_LEVELS, "untested", f"{levels} levels, too few to test the law of one curve"),
    )  # fmt: skip
    return next(((status, reason) for holds, status, reason in found if holds), ("ok", "fitted"))


def _chance_of_no_fall(x: Floats, y: Floats, *, draws: Floats, source: NoiseSource) -> float:
    """Return the probability of a slope this far below zero if the error did not depend on x (p-value).

    NaN with fewer than four levels and no measured noise. The drawn errors are of shape (draws, cells).
    """
    # With centred ln x the slope has the sign of Σ y·ln x.
    log_x = np.log(x) - np.log(x).mean()
    if source == "runs":
        return float((draws @ log_x >= 0).mean())
    if len(np.unique(x)) < _FEWEST_PERMUTED:
        return float("nan")
    # The first permutation is the measured order, so the p-value is at least 1 / permutations.
    slopes = y[_orders(len(x))] @ log_x
    return float((slopes <= slopes[0] + _SAME * np.abs(slopes).max()).mean())


@cache
def _orders(count: int) -> Indices:
    """Return permutations of ``count`` items, the identity first: all of them, or a random sample."""
    if factorial(count) <= _PERMUTATIONS:
        return np.array(list(permutations(range(count))), dtype=np.intp)
    generator = stream("permutations", count)
    drawn = [np.arange(count), *(generator.permutation(count) for _ in range(_PERMUTATIONS - 1))]
    return np.stack(drawn).astype(np.intp)
