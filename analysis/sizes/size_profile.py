"""Error against model size at one budget, and where its minimum lies, with intervals over the draws.

The minimum is read off a valley fitted to the sizes near the lowest measured one (`valley`; a parabola in the
logarithm of the size in Hoffmann et al. 2022, §3.2). A draw carries the noise of the runs, the asymmetry that
the exponents of a surface allow, and what the form cannot follow, whose variance is one for all budgets of a
family. Each draw chooses its own lowest size and its neighbours. A minimum is given only where the data hold
one: the curve is convex, its minimum lies between the smallest and the largest size tried, in most draws of
the study too, and not above a measured size by more than the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.cells.bootstrap import REFITS, CellDraws, Source, stream
from analysis.cells.intervals import COVERAGE, Interval, intervals
from analysis.labels import plural
from analysis.sizes import valley
from budgets.quantity import format_flops

Floats = NDArray[np.float64]
Status = Literal[
    "ok", "one seed", "unstable", "minimum at the edge", "concave", "above a measured size", "too few sizes"
]

_SIZES = 3
_FREEDOM = 4
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One budget's profile.

    Attributes:
        coefficients: c₀ … c₃ of the curve, t = ln(size / unit); NaN when not fitted.
        unit: The lowest measured size.
        sizes: The smallest and the largest size that the curve is fitted to.
        used: How many sizes that are.
        size: Size at the minimum, NaN unless ``status`` is ``ok``.
        ends: Its intervals; an end that reaches the sizes used is 0 or infinite; NaN unless ``status`` is
            ``ok``.
        drawn: Size at the minimum as measured and as drawn, clipped to the sizes used; empty when not
            fitted.
        form: Standard deviation of what the curve cannot follow, beside the noise.
        chance: How often noise alone misses the curve by so much (F); NaN without measured noise or without
            more than three sizes.
        status: ``ok`` when a minimum may be marked, or why not.
        reason: The status in one sentence.
    """

    coefficients: tuple[float, float, float, float] = (float("nan"),) * 4
    unit: float = float("nan")
    sizes: tuple[float, float] = (float("nan"),) * 2
    used: int = 0
    size: float = float("nan")
    ends: Interval = field(default_factory=Interval)
    drawn: Floats = field(default_factory=lambda: np.empty(0))
    form: float = float("nan")
    chance: float = float("nan")
    status: Status
    reason: str

    def __call__(self, size: Floats) -> Floats:
        """The curve at sizes among those used."""
        coefficients = np.array([self.coefficients])
        return valley.value(coefficients, np.log(size / self.unit))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one profile is fitted to.

    Attributes:
        size: Of each cell, above zero, rising, shape (cells,).
        stack: Errors, shape (rows, cells): as measured, as drawn, without each run in turn.
        runs: Runs behind each mean.
    """

    size: Floats
    stack: Floats
    runs: NDArray[np.int64]

    @classmethod
    def of(cls, draws: CellDraws, size: Floats) -> "Measured":
        """The cells of a profile, by rising size."""
        return cls(size=size, stack=draws.resampled(), runs=draws.cells["runs"].to_numpy(np.int64))


def profiles(
    several: Sequence[Measured], *, refits: int, source: Source, freedom: int = 0, question: str = ""
) -> list[Profile]:
    """Fits the profiles of one family, whose curves miss their points by one and the same variance.

    Without noise between seeds the residuals of the profiles, where they have enough degrees of freedom
    together, stand for the noise as well.

    Args:
        several: The profile of each budget.
        refits: How many rows of each stack are draws.
        source: What the draws stand for, see ``bootstrap``.
        freedom: Degrees of freedom behind the noise; 0 when it is known.
        question: Names the random stream.
    """
    generator = stream(f"isoflop/{question}", 0)
    fitted = [one for one in several if len(np.unique(one.size)) >= _SIZES]
    noises = [_noise(one, refits) for one in fitted]
    valleys = [_valley(one, noise) for one, noise in zip(fitted, noises, strict=True)]
    form = valley.form_error(valleys)
    enough = form.freedom >= _FREEDOM
    spread = form.drawn(refits or (REFITS if enough else 0), generator)
    known: Source = "runs" if enough else source
    found = iter([
        _fitted(one, each, form.variance, spread, generator, refits=refits, source=known, freedom=freedom)
        for one, each in zip(fitted, noises, strict=True)
    ])  # fmt: skip
    return [
        next(found) if len(np.unique(one.size)) >= _SIZES else _too_few(len(np.unique(one.size)))
        for one in several
    ]


def _too_few(sizes: int) -> Profile:
    reason = f"{plural(sizes, 'model size')}; a minimum needs at least {_SIZES}"
    return Profile(status="too few sizes", reason=reason)


def _noise(measured: Measured, refits: int) -> float:
    """Variance of one run: half of the distance between the percentiles that lie one deviation out."""
    if not refits:
        return 0.0
    low, high = np.quantile(measured.stack[1 : 1 + refits], [0.1587, 0.8413], axis=0)
    return float(np.mean(((high - low) / 2) ** 2 * measured.runs))


def _valley(measured: Measured, noise: float) -> valley.Valley:
    t, error = np.log(measured.size), measured.stack[0]
    used = valley.near(t, int(error.argmin()))
    variance = valley.resolvable(noise / measured.runs, error)
    return valley.Valley(t=t[used], error=error[used], variance=variance[used])


def _fitted(  # noqa: PLR0913 (a profile and what its family shares)
    measured: Measured,
    noise: float,
    form: float,
    spread: Floats,
    generator: np.random.Generator,
    *,
    refits: int,
    source: Source,
    freedom: int,
) -> Profile:
    t, error, draws = np.log(measured.size), measured.stack[0], len(spread)
    place, lowest = float(t[error.argmin()]), int(error.argmin())
    used = valley.near(t, lowest)
    variance = valley.resolvable(noise / measured.runs + form, error)
    drawn = measured.stack[1 : 1 + refits] if refits else np.repeat(error[None, :], draws, axis=0)
    drawn = drawn + spread[:, None] * generator.standard_normal(drawn.shape)
    rows = np.concatenate([error[None, :], drawn, measured.stack[1 + refits :]])
    pull = np.zeros(len(rows))
    pull[1 : 1 + draws] = generator.standard_normal(draws)
    minima, inside = _minima(t, rows, variance, pull)
    coefficients = valley.fit(t[used] - place, rows[:1, used], variance[used], np.zeros(1))
    status, reason = _judge(coefficients[0], t, used, float(minima[0]))
    if status == "ok" and refits:
        status, reason = _height(measured, used, variance[used], refits)
    if status == "ok":
        status, reason = _stability(inside[1 : 1 + draws], source)
    ends = Interval()
    if status == "ok":
        # A draw whose curve falls to an end of the sizes says that the minimum is there or beyond.
        beyond = np.where(minima > place, np.inf, -np.inf)
        ends = intervals(np.exp(np.where(inside, minima, beyond)), draws)
    c0, c1, c2, c3 = (float(c) for c in coefficients[0])
    return Profile(
        coefficients=(c0, c1, c2, c3),
        unit=float(measured.size[lowest]),
        sizes=(float(measured.size[used[0]]), float(measured.size[used[-1]])),
        used=len(np.unique(t[used])),
        size=float(np.exp(minima[0])) if status == "ok" else float("nan"),
        ends=ends,
        drawn=np.exp(minima[: 1 + draws]),
        form=form**0.5,
        chance=_chance(_valley(measured, noise), freedom) if refits else float("nan"),
        status=status,
        reason=reason,
    )


def _minima(t: Floats, rows: Floats, variance: Floats, pull: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Minima (ln size) of each row by the sizes near its own lowest, and whether it is between them."""
    minima, inside = np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)
    places = rows.argmin(axis=1)
    for place in np.unique(places):
        here = np.flatnonzero(places == place)
        used = valley.near(t, int(place))
        first, last = t[used[0]] - t[place], t[used[-1]] - t[place]
        coefficients = valley.fit(t[used] - t[place], rows[here][:, used], variance[used], pull[here])
        found = valley.lowest(coefficients, first, last)
        minima[here], inside[here] = t[place] + found, (found > first) & (found < last)
    return minima, inside


def _judge(coefficients: Floats, t: Floats, used: NDArray[np.intp], minimum: float) -> tuple[Status, str]:
    _, c1, c2, _ = coefficients
    if c2 <= 0:
        return "concave", (
            "the constraint binds: the error is not convex in the logarithm of the size, the best convex "
            f"curve is a line towards the {'smallest' if c1 > 0 else 'largest'} model: no minimum is marked"
        )
    if t[used[0]] < minimum < t[used[-1]]:
        return "ok", "the minimum lies between the sizes tried"
    small = minimum <= t[used[0]]
    end, beyond = ("smallest", "smaller") if small else ("largest", "larger")
    tried = t[used[0]] == t[0] if small else t[used[-1]] == t[-1]
    if tried:
        way = "down" if small else "up"
        return "minimum at the edge", (
            f"the error falls {way} to the {end} model tried: the best may be {beyond}"
        )
    return (
        "minimum at the edge",
        f"the error falls to the {end} of the sizes near the lowest: no valley there",
    )


def _height(measured: Measured, used: NDArray[np.intp], variance: Floats, refits: int) -> tuple[Status, str]:
    """Whether the curve's minimum lies above the lowest measured error by more than the noise of the two."""
    t, rows = np.log(measured.size), measured.stack[: 1 + refits]
    lowest = int(rows[0].argmin())
    from_lowest = t[used] - t[lowest]
    several = valley.fit(from_lowest, rows[:, used], variance, np.zeros(len(rows)))
    heights = valley.value(several, valley.lowest(several, from_lowest[0], from_lowest[-1]))
    above = heights - rows[:, lowest]
    noise = float(above[1:].std())
    if above[0] > max(noise, _ROUNDING * rows[0, lowest]):
        return "above a measured size", (
            f"the curve's minimum lies {100 * above[0]:.1f} points above the error measured at "
            f"{format_flops(measured.size[lowest])} a sample, more than the noise ({100 * noise:.1f}): "
            "it is not marked"
        )
    return "ok", "the minimum lies between the sizes tried"


def _chance(part: valley.Valley, freedom: int) -> float:
    """How often the noise alone would miss the curve by so much."""
    if part.freedom <= 0:
        return float("nan")
    from scipy.special import chdtrc, fdtrc  # noqa: PLC0415 (a fifth of the report's import, for one number)

    statistic = part.statistic(0.0)
    if freedom:
        return float(fdtrc(part.freedom, freedom, statistic / part.freedom))
    return float(chdtrc(part.freedom, statistic))


def _stability(inside: NDArray[np.bool_], source: Source) -> tuple[Status, str]:
    """Whether the minimum stays between the sizes in the draws."""
    if source != "runs":
        return "one seed", "one seed per cell: the noise of the minimum is not known, it is not marked"
    share = float(inside.mean())
    reason = f"a minimum between the sizes tried in {share:.1%} of the draws"
    if share < COVERAGE:
        return "unstable", f"{reason} only: it is not marked"
    return "ok", reason
