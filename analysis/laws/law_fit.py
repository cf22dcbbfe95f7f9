"""One curve's law: fitted in a given form, and judged by what the data say of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.cells.bootstrap import Source
from analysis.labels import percent, plural
from analysis.laws.form_choice import MOST_MISSED
from analysis.laws.forms import Curves, Form, fit, restarts, row
from analysis.laws.trend import LEVEL, chance_of_no_fall

Floats = NDArray[np.float64]
Status = Literal[
    "ok", "lack of fit", "untested", "floor undetermined", "saturated", "exponent at bound", "misfit",
    "no decrease", "too few levels",
]  # fmt: skip

UNTESTED_LEVELS = 4
"""Levels up to which a curve's own law cannot be tested on held-out ones."""
LACK = 0.05
"""Chance of so much lack of fit below which a law is said to lack fit."""

_FEWEST_LEVELS = 3
_DRAWN: frozenset[Status] = frozenset({"ok", "lack of fit", "untested", "floor undetermined", "saturated"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LawFit:
    """A fitted law of one curve.

    Attributes:
        law: The law, as one row; None where there are too few levels.
        form: Its form.
        status: ``ok``; drawn all the same: ``lack of fit`` (it misses by more than the noise), ``untested``
            (four levels or fewer), ``floor undetermined`` (E ended at zero), ``saturated`` (as many levels as
            parameters); or why there is no law.
        reason: The status in one sentence.
        rows: Runs behind the fit.
        levels: Distinct x.
        starts: Searches from other starts.
        agreement: How many of them ended at the same objective.
        miss: Root mean square of measured minus law, a fraction.
        noise: Root mean square of the noise of the means; NaN where it was not measured.
        lack_of_fit: Chance of misses so large if the law were true and the noise all; NaN where not known.
    """

    law: Curves | None
    form: Form
    status: Status
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
        """Whether the data bear the law, so that it may be drawn within them."""
        return self.status in _DRAWN

    @property
    def tested(self) -> bool:
        """Whether levels are left to test the law by."""
        return self.levels > max(UNTESTED_LEVELS, self.form.parameters)

    @property
    def freedom(self) -> int:
        """Levels beyond the parameters."""
        return max(self.levels - self.form.parameters, 0)

    @property
    def floor(self) -> float:
        """E; this and what follows are NaN without a law."""
        return self._of(lambda law: law.floor)

    @property
    def scale(self) -> float:
        """A, the part above E at ``unit``; the error of chance in a bounded law."""
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
        """Geometric mean of x, at which ``scale`` is read."""
        return self._of(lambda law: law.unit)

    def _of(self, value: Callable[[Curves], Floats]) -> float:
        return float("nan") if self.law is None else float(value(self.law)[0])

    def __call__(self, x: Floats) -> Floats:
        """Return the law at x, shape (points,)."""
        assert self.law is not None, "a curve of too few levels has no law to read off"
        return np.asarray(self.law(x)[0], dtype=np.float64)


def fit_law(  # noqa: PLR0913 (a curve, its noise, and what is known of the form)
    form: Form,
    x: Floats,
    y: Floats,
    *,
    runs: NDArray[np.int64],
    draws: Floats | None = None,
    source: Source = "none",
    freedom: int = 0,
    chance: float = float("nan"),
) -> LawFit:
    """Fit one curve in a given form and judge the law.

    Args:
        form: The form of the curve's family.
        x: Compute, samples or pairs of each cell, above zero, shape (cells,).
        y: Mean error of each cell, shape (cells,).
        runs: Runs behind each mean: the weights.
        draws: Means as they might have been, shape (draws, cells), where that is known.
        source: What the draws stand for, see ``bootstrap``.
        freedom: Residual degrees of freedom behind them.
        chance: The error of chance, for a bounded law.

    Raises:
        ValueError: A value is not finite, or an x is not above zero.
    """
    several = None if draws is None else draws[:, None]
    return fit_laws(
        form, x[None], y[None], runs=runs[None], draws=several, source=source, freedom=freedom, chance=chance
    )[0]


def fit_laws(  # noqa: PLR0913 (curves, their noise, and what is known of the form)
    form: Form,
    x: Floats,
    y: Floats,
    *,
    runs: NDArray[np.int64],
    draws: Floats | None = None,
    source: Source = "none",
    freedom: int = 0,
    chance: float = float("nan"),
) -> list[LawFit]:
    """Fit curves of as many cells at once; see ``fit_law``.

    Args:
        form: The form of the curves' family.
        x: Shape (curves, cells).
        y: Shape (curves, cells).
        runs: Shape (curves, cells).
        draws: Shape (draws, curves, cells).
        source: As in ``fit_law``.
        freedom: As in ``fit_law``.
        chance: As in ``fit_law``.

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
            source=source, freedom=freedom,
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
    source: Source,
    freedom: int,
) -> LawFit:
    form, levels, objective = law.form, len(np.unique(x)), float(law.objective[0])
    # Rounding of Σ w·r² is of the order of Σ w·y²·1e-16; differences below are no other optimum.
    tolerance = 1e-6 * objective + 1e-12 * float(runs @ y**2)
    miss, sd = y - law(x)[0], noise_sd(draws)
    size = float(np.sqrt(np.mean(miss**2)))
    lack = _lack_of_fit(miss / sd, levels - form.parameters, freedom) if len(draws) else float("nan")
    status, reason = _judge(
        law, levels=levels, slope=float((np.log(x) - np.log(x).mean()) @ y), miss=size,
        carried=_carried(x, y), lack=lack, chance=chance_of_no_fall(x, y, draws=draws, source=source),
    )  # fmt: skip
    return LawFit(
        law=law, form=form, status=status, reason=reason, rows=int(runs.sum()), levels=levels,
        starts=len(ends), agreement=int((np.abs(ends - objective) <= tolerance).sum()), miss=size,
        noise=float(np.sqrt(np.mean(sd**2))) if len(draws) else float("nan"), lack_of_fit=lack,
    )  # fmt: skip


def noise_sd(draws: Floats) -> Floats:
    """Return the standard deviation of each mean, shape (cells,): half the distance of the central 68 %.

    The few degrees of freedom behind the draws give them long tails, which would swell their own.
    """
    if not len(draws):
        return np.zeros(draws.shape[1])
    low, high = np.quantile(draws, [0.1587, 0.8413], axis=0)
    return np.asarray(np.maximum((high - low) / 2, 1e-12), dtype=np.float64)


def _carried(x: Floats, y: Floats) -> float:
    """Return the root mean square by which each level, carried on, misses the next."""
    return float(np.sqrt(np.mean(np.diff(y[np.argsort(x, kind="stable")]) ** 2)))


def _lack_of_fit(standardised: Floats, left: int, freedom: int) -> float:
    """Return the chance of so large a Σ r²: F with the noise's degrees of freedom, χ² where it is known."""
    if left < 1:
        return float("nan")
    from scipy.special import chdtrc, fdtrc  # noqa: PLC0415 (a fifth of the report's import)

    total = float((standardised**2).sum())
    return float(fdtrc(left, freedom, total / left) if freedom else chdtrc(left, total))


def _judge(  # noqa: PLR0913 (a law, and what it is judged by)
    law: Curves, *, levels: int, slope: float, miss: float, carried: float, lack: float, chance: float
) -> tuple[Status, str]:
    form = law.form
    falls = slope < 0 and law.scale[0] > (law.floor[0] if form.bounded else 0)
    found: tuple[tuple[bool, Status, str], ...] = (
        (not falls, "no decrease", "the error does not fall along the curve"),
        (bool(law.at_bound[0]), "exponent at bound",
         "the slope ended at a bound of the search: no such law is seen"),
        (chance > LEVEL, "no decrease",
         f"the error does not fall beyond the noise: without any law it would fall so far in {chance:.0%}"),
        (miss > MOST_MISSED, "misfit", f"the law misses its points by {percent(miss)} points"),
        (miss > carried, "misfit",
         f"misses of {percent(miss)} points; each level carried on to the next misses by {percent(carried)}"),
        (levels == form.parameters, "saturated",
         f"{levels} levels for as many parameters: the law passes through them and nothing is left to test"),
        (lack < LACK, "lack of fit",
         f"misses of {percent(miss)} points, more than the noise (chance {lack:.2g}); intervals carry them"),
        (form.floor and law.floor[0] <= 0, "floor undetermined",
         "the floor ended at zero: these levels do not show one"),
        (levels <= UNTESTED_LEVELS, "untested", f"{levels} levels: the curve's own law is not tested"),
    )  # fmt: skip
    return next(((status, reason) for holds, status, reason in found if holds), ("ok", "fitted"))
