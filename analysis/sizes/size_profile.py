"""Error against model size at one budget, and the size at its minimum with intervals over the draws.

The minimum is that of a valley fitted to the sizes near the lowest measured one (`valley`; Hoffmann et al.
2022, §3.2, use a parabola in the logarithm of the size). Each draw includes the noise of the runs, a draw of
the asymmetry, and the form error: a variance, common to all budgets of a family, of what the valley cannot
follow. Each draw uses its own lowest size and the neighbours of that. A minimum is marked only if the curve
is convex, if the minimum lies between the smallest and the largest size, also in most draws, and if it is not
above a measured error by more than the noise. An IsoFLOP profile is that of one budget.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.bootstrap import REFITS, CellDraws, NoiseSource, stream
from analysis.cells.intervals import COVERAGE, Interval, half_width, intervals
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.laws.law_fit import lack_of_fit
from analysis.sizes import valley
from budgets.quantity import format_flops, plural

ProfileStatus = Literal[
    "ok", "one seed", "unstable", "minimum at the edge", "concave", "above a measured size", "too few sizes"
]

_SIZES = 3
_FREEDOM = 4
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """The profile of one budget.

    Attributes:
        coefficients: c₀ … c₃ of the curve in t = ln(size / unit); NaN when not fitted.
        unit: Size of the lowest measured error.
        sizes: Smallest and largest size that the curve is fitted to.
        used: Number of sizes that it is fitted to.
        size: Size at the minimum; NaN unless ``status`` is ``ok``.
        ends: Intervals of ``size``; an end beyond the fitted sizes is 0 or infinite. NaN unless ``status`` is
            ``ok``.
        drawn: Size at the minimum as measured and as drawn, clipped to the fitted sizes; empty when not
            fitted.
        form: Form error, a standard deviation.
        chance: Lack of fit: p-value of the misses if noise were their only cause (F test); NaN without
            measured noise or with only three sizes.
        status: ``ok`` if the minimum may be marked, otherwise why not.
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
    status: ProfileStatus
    reason: str

    def __call__(self, size: Floats) -> Floats:
        """Return the curve at sizes within the fitted range."""
        coefficients = np.array([self.coefficients])
        return valley.value(coefficients, np.log(size / self.unit))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileData:
    """The data of one profile: sizes above zero, rising, and the number of runs behind each mean.

    The stack of errors, shape (rows, cells), is as measured, as drawn, without each run in turn.
    """

    size: Floats
    stack: Floats
    runs: NDArray[np.int64]
    error_unit: ErrorUnit = PERCENT


def profiles_of(draws: CellDraws, size: Floats, groups: Sequence[Indices], *, question: str) -> list[Profile]:
    """Fit the profiles of groups of one family's cells, each in the order of rising size."""
    here = [draws.take(positions) for positions in groups]
    several = [
        ProfileData(
            size=size[positions],
            stack=one.stacked(),
            runs=one.cells["runs"].to_numpy(np.int64),
            error_unit=draws.error_unit,
        )
        for positions, one in zip(groups, here, strict=True)
    ]
    return profiles(
        several, refits=draws.refits, source=draws.source, freedom=draws.freedom, question=question
    )


def profiles(
    several: Sequence[ProfileData], *, refits: int, source: NoiseSource, freedom: int = 0, question: str = ""
) -> list[Profile]:
    """Fit the profiles of one family, which share one form error.

    If the noise between seeds was not measured, the residuals of the profiles replace it, provided that they
    have enough degrees of freedom together. ``freedom`` is that behind the noise, 0 if the noise is known;
    ``refits`` rows of each stack are draws.
    """
    generator = stream(f"isoflop/{question}")
    sizes = [len(np.unique(one.size)) for one in several]
    noises = {k: _noise(several[k], refits) for k, count in enumerate(sizes) if count >= _SIZES}
    valleys = [_valley(several[k], noise) for k, noise in noises.items()]
    # One form error for the family; enough degrees of freedom let it replace unmeasured noise.
    form = valley.form_error(valleys)
    enough = form.freedom >= _FREEDOM
    spread = form.drawn(refits or (REFITS if enough else 0), generator)
    known: NoiseSource = "runs" if enough else source
    return [
        _fitted(
            one, noises[k], form.variance, spread, generator, refits=refits, source=known, freedom=freedom
        )
        if k in noises
        else Profile(
            status="too few sizes",
            reason=f"{plural(sizes[k], 'model size')}; a minimum needs at least {_SIZES}",
        )
        for k, one in enumerate(several)
    ]


def _noise(measured: ProfileData, refits: int) -> float:
    """Return the mean variance of one run; 0 without draws."""
    if not refits:
        return 0.0
    return float(np.mean(half_width(measured.stack[1 : 1 + refits]) ** 2 * measured.runs))


def _valley(measured: ProfileData, noise: float) -> valley.Valley:
    t, error = np.log(measured.size), measured.stack[0]
    used = valley.near(t, int(error.argmin()))
    variance = valley.resolvable(noise / measured.runs, error)
    return valley.Valley(t=t[used], error=error[used], variance=variance[used])


def _fitted(  # noqa: PLR0913 (a profile and what its family shares)
    measured: ProfileData,
    noise: float,
    form: float,
    spread: Floats,
    generator: np.random.Generator,
    *,
    refits: int,
    source: NoiseSource,
    freedom: int,
) -> Profile:
    t, error, draws = np.log(measured.size), measured.stack[0], len(spread)
    place, lowest = float(t[error.argmin()]), int(error.argmin())
    used = valley.near(t, lowest)
    # A mean of n runs has 1/n of a run's variance; the form error does not shrink with runs.
    variance = valley.resolvable(noise / measured.runs + form, error)
    drawn = measured.stack[1 : 1 + refits] if refits else np.repeat(error[None, :], draws, axis=0)
    drawn = drawn + spread[:, None] * generator.standard_normal(drawn.shape)
    # One stack: the measured errors, the draws moved by the form error, the errors without each run.
    rows = np.concatenate([error[None, :], drawn, measured.stack[1 + refits :]])
    pull = np.zeros(len(rows))
    # Draws also take a prior mean of c₃, see ``valley.fit``.
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
        # In a draw whose curve falls towards an end, the minimum lies at that end or beyond it.
        beyond = np.where(minima > place, np.inf, -np.inf)
        ends = intervals(np.exp(np.where(inside, minima, beyond)), draws)
    c0, c1, c2, c3 = (float(c) for c in coefficients[0])
    points = _valley(measured, noise)
    tested = refits and points.freedom > 0
    return Profile(
        coefficients=(c0, c1, c2, c3),
        unit=float(measured.size[lowest]),
        sizes=(float(measured.size[used[0]]), float(measured.size[used[-1]])),
        used=len(np.unique(t[used])),
        size=float(np.exp(minima[0])) if status == "ok" else float("nan"),
        ends=ends,
        drawn=np.exp(minima[: 1 + draws]),
        form=form**0.5,
        chance=lack_of_fit(points.statistic(0.0), points.freedom, freedom) if tested else float("nan"),
        status=status,
        reason=reason,
    )


def _minima(t: Floats, rows: Floats, variance: Floats, pull: Floats) -> tuple[Floats, Mask]:
    """Return each row's minimum in ln size, from the sizes near its lowest, and whether it is inside."""
    minima, inside = np.empty(len(rows)), np.empty(len(rows), dtype=np.bool_)
    places = rows.argmin(axis=1)
    # Rows with the same lowest size use the same neighbours and are fitted together.
    for place in np.unique(places):
        here = np.flatnonzero(places == place)
        used = valley.near(t, int(place))
        first, last = t[used[0]] - t[place], t[used[-1]] - t[place]
        coefficients = valley.fit(t[used] - t[place], rows[here][:, used], variance[used], pull[here])
        found = valley.lowest(coefficients, first, last)
        minima[here], inside[here] = t[place] + found, (found > first) & (found < last)
    return minima, inside


def _judge(coefficients: Floats, t: Floats, used: Indices, minimum: float) -> tuple[ProfileStatus, str]:
    _, c1, c2, _ = coefficients
    if c2 <= 0:
        return "concave", (
            "the error is not convex in the logarithm of the size; the best convex curve is a line towards "
            f"the {'smallest' if c1 > 0 else 'largest'} model, so no minimum is marked"
        )
    if t[used[0]] < minimum < t[used[-1]]:
        return "ok", "the minimum lies between the sizes tried"
    small = minimum <= t[used[0]]
    end, beyond = ("smallest", "smaller") if small else ("largest", "larger")
    # The fitted sizes end at the smallest or largest tried, or merely at the neighbours of the lowest.
    tried = t[used[0]] == t[0] if small else t[used[-1]] == t[-1]
    if tried:
        reason = f"the error falls towards the {end} model tried, so the best may be {beyond}"
        return "minimum at the edge", reason
    return (
        "minimum at the edge",
        f"the error falls towards the {end} of the sizes near the lowest: no valley",
    )


def _height(measured: ProfileData, used: Indices, variance: Floats, refits: int) -> tuple[ProfileStatus, str]:
    """Judge whether the minimum lies above the lowest measured error by more than the noise of both."""
    t, rows = np.log(measured.size), measured.stack[: 1 + refits]
    lowest = int(rows[0].argmin())
    from_lowest = t[used] - t[lowest]
    several = valley.fit(from_lowest, rows[:, used], variance, np.zeros(len(rows)))
    # Height of each row's minimum above that row's error at the lowest size; the draws give its noise.
    heights = valley.value(several, valley.lowest(several, from_lowest[0], from_lowest[-1]))
    above = heights - rows[:, lowest]
    noise, gap = float(above[1:].std()), measured.error_unit.gap
    if above[0] > max(noise, _ROUNDING * rows[0, lowest]):
        return "above a measured size", (
            f"the minimum of the curve lies {gap(above[0])} above the error measured at "
            f"{format_flops(measured.size[lowest])} per sample, more than the noise ({gap(noise)}), so it "
            "is not marked"
        )
    return "ok", "the minimum lies between the sizes tried"


def _stability(inside: Mask, source: NoiseSource) -> tuple[ProfileStatus, str]:
    """Judge whether the minimum stays between the sizes in the draws."""
    if source != "runs":
        return "one seed", "one seed per cell: the noise of the minimum is unknown, so it is not marked"
    share = float(inside.mean())
    reason = f"a minimum between the sizes tried in {share:.1%} of the draws"
    if share < COVERAGE:
        return "unstable", f"{reason} only, so it is not marked"
    return "ok", reason


@dataclass(frozen=True, kw_only=True, slots=True)
class IsoFlopCurve:
    """The profile of one budget, with data, strategy and family of architectures fixed.

    Attributes:
        identity: ``regime``, ``budget``, ``subset_size``, ``quality``, ``strategy``, ``family``.
        positions: Positions of its cells in ``CellDraws.cells``, by rising training FLOPs per sample, the
            size on its axis.
        epochs: Epochs of the smallest and of the largest size.
        profile: The fitted profile.
    """

    identity: Mapping[str, Any]
    positions: Indices
    epochs: tuple[float, float]
    profile: Profile


def isoflop_curves(draws: CellDraws) -> list[IsoFlopCurve]:
    """Fit the profiles of all fixed-compute budgets with at least two sizes of a family."""
    columns = ["regime", "subset_size", "quality", "strategy", "family", "budget"]
    # Profiles of one family share a form error, so all its budgets are fitted together.
    together: dict[tuple[Hashable, ...], list[tuple[dict[str, Any], Indices]]] = {}
    for key, positions in draws.groups(columns):
        size = draws.column("train_flops_per_sample")[positions]
        if key[0] != "fixed-compute" or len(np.unique(size)) < 2:  # noqa: PLR2004 (one size is no profile)
            continue
        ordered = positions[np.argsort(size, kind="stable")]
        identity = dict(zip(columns, key, strict=True))
        together.setdefault(key[:-1], []).append((identity, ordered))
    found = [curve for key, parts in together.items() for curve in _curves(draws, str(key), parts)]
    return sorted(found, key=lambda curve: float(curve.identity["budget"]))


def _curves(
    draws: CellDraws, question: str, parts: Sequence[tuple[dict[str, Any], Indices]]
) -> list[IsoFlopCurve]:
    groups, size = [positions for _, positions in parts], draws.column("train_flops_per_sample")
    fitted, epochs = profiles_of(draws, size, groups, question=question), draws.column("epochs")
    return [
        IsoFlopCurve(
            identity=identity, positions=positions, profile=found,
            epochs=(float(epochs[positions[0]]), float(epochs[positions[-1]])),
        )
        for (identity, positions), found in zip(parts, fitted, strict=True)
    ]  # fmt: skip
