"""Growth of the best model size with compute, N ∝ C^a, by the approaches of Hoffmann et al. 2022, §3.

1. Lower envelope: the cells of each size are joined by straight lines in ln C. Where one size overtakes
   another as the lowest, the best one lies midway between them in ln N; a is the slope through these points.
   (The lowest of a few sizes is a staircase, whose slope would depend on where its ends are cut off.)
2. IsoFLOP minima: a is the slope through the minima of the profiles.
3. Surface: a = β/(α + β).

Every approach returns the measured slope and the slope in each draw.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.bootstrap import REFITS, CellDraws, stream
from analysis.cells.curves import straight_lines
from analysis.cells.intervals import half_width
from analysis.laws.excess_variance import excess
from analysis.laws.repeated import Points, RepeatedFit
from analysis.laws.surface import fit, fit_draws
from analysis.sizes.size_profile import profiles_of
from budgets.quantity import plural

_GRID = 60
_SAME_SIZE = 0.03  # in ln N
_SAME_COMPUTE = 0.1  # in ln C
_FEWEST = 3
_IN_SLICE = 5  # fewest sizes of a profile outside fixed compute
_RESAMPLED = 8  # fewest sizes that can be resampled
_PARAMETERS = 5
_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """The exponent of model size by one approach: the slope of the line ln N = level + a·(ln C − center).

    Attributes:
        measured: a; NaN if it could not be estimated.
        drawn: a in each draw; empty if its uncertainty is unknown.
        points: Number of computes or cells behind it.
        reason: Data behind the exponent, or the reason why there is none.
        center: ln C at which the levels are given.
        levels: Levels as measured and then in each draw; empty without a slope.
        behind: Points that the line was fitted to: columns ``log_c``, ``log_n``, ``low``, ``high`` (interval
            of ln N, NaN when unknown) and ``stable`` (False if the draws do not agree on a minimum); no rows
            for a surface, which is fitted to errors.
        within: Smallest and largest ln C of the cells.
        firm: False if the draws are too narrow for an interval, because the sizes tried cut them off.
    """

    measured: float = float("nan")
    drawn: Floats = field(default_factory=lambda: np.empty(0))
    points: int
    reason: str
    center: float = float("nan")
    levels: Floats = field(default_factory=lambda: np.empty(0))
    behind: pd.DataFrame = field(default_factory=pd.DataFrame)
    within: tuple[float, float] = (float("nan"),) * 2
    firm: bool = True

    def log_n(self, log_c: Floats) -> Floats:
        """Return ln N on the line at ln C, as measured and then in each draw, shape (1 + draws, points)."""
        slopes = np.concatenate([[self.measured], self.drawn])
        return self.levels[:, None] + slopes[:, None] * (log_c - self.center)


def _points(
    log_c: Floats, log_n: Floats, low: Floats | float, high: Floats | float, *, stable: Mask | bool = True
) -> pd.DataFrame:
    return pd.DataFrame({"log_c": log_c, "log_n": log_n, "low": low, "high": high, "stable": stable})


def _ends(log_c: Floats) -> tuple[float, float]:
    return float(log_c.min()), float(log_c.max())


def by_envelope(draws: CellDraws, n: Floats) -> Slope:
    """Estimate the exponent by approach 1, the lower envelope; the cells are of one family."""
    log_c = np.log(draws.column("train_flops"))
    order = np.argsort(n, kind="stable")
    # Sizes within 3 % of the next smaller one count as one size.
    steps = np.cumsum(np.diff(np.log(n[order]), prepend=np.log(n[order[0]])) > _SAME_SIZE)
    groups = [order[steps == step] for step in np.unique(steps)]
    groups = [group for group in groups if len(np.unique(log_c[group])) > 1]
    if len(groups) < _FEWEST:
        reason = f"{plural(len(groups), 'model size')} at two computes or more; three are needed"
        return Slope(points=0, reason=reason)
    grid = np.linspace(log_c.min(), log_c.max(), _GRID)
    error = draws.with_measured() if draws.source == "runs" else draws.with_measured()[:1]
    curves = np.stack([_joined(log_c[group], error[:, group], grid) for group in groups], axis=1)
    sizes = np.array([np.log(n[group]).mean() for group in groups])
    generator = stream("envelope exponent")
    # Without noise between seeds the sizes themselves are resampled: sizes not drawn are set to infinity.
    resampled = draws.source != "runs" and len(groups) >= _RESAMPLED
    if resampled:
        picked = generator.integers(len(groups), size=(REFITS, len(groups)))
        kept = (picked[:, :, None] == np.arange(len(groups))).any(axis=1)
        curves = np.concatenate([curves, np.where(kept[:, :, None], curves[0], np.inf)])
    # Rows are the measured errors, then the draws.
    log_c, log_n, crossed = _crossings(curves, sizes, grid)
    # Two sizes of nearly equal error may overtake each other again and again: that is one point.
    count = len(np.unique(log_n[0][crossed[0]]))
    if count < _FEWEST:
        reason = f"{plural(count, 'size')} overtaken by another one; three are needed"
        return Slope(points=count, reason=reason)
    slopes = _slopes(log_c, log_n, crossed)
    lowest = np.where(crossed, log_n, np.inf).min(axis=1)
    highest = np.where(crossed, log_n, -np.inf).max(axis=1)
    slopes[lowest >= highest] = np.nan
    how = "one seed per cell and too few sizes for an interval"
    if len(slopes) > 1:
        how = "interval from " + ("the runs' noise" if draws.source == "runs" else "resampled model sizes")
    used, center = crossed[0], float(log_c[0][crossed[0]].mean())
    return Slope(
        measured=float(slopes[0]), drawn=slopes[1:], points=count, center=center, within=_ends(grid),
        reason=f"{plural(count, 'size')} overtaken by another one; {how}",
        levels=_means(log_n, crossed) + slopes * (center - _means(log_c, crossed)),
        behind=_points(log_c[0][used], log_n[0][used], np.nan, np.nan),
    )  # fmt: skip


def _joined(log_c: Floats, error: Floats, grid: Floats) -> Floats:
    """Return straight lines through the mean errors at each compute, infinite outside, shape (rows, grid)."""
    at, place = np.unique(log_c, return_inverse=True)
    mean = np.stack([error[:, place == one].mean(axis=1) for one in range(len(at))], axis=1)
    lines = straight_lines(np.exp(at), mean, np.exp(grid))
    return np.where((grid >= at[0]) & (grid <= at[-1]), lines, np.inf)


def _crossings(curves: Floats, sizes: Floats, grid: Floats) -> tuple[Floats, Floats, Mask]:
    """Return the points at which one size overtakes another as the lowest.

    Where a curve begins or ends, the lowest changes without a crossing. Errors of each size, infinite outside
    its cells, are of shape (rows, sizes, grid), over rising ln C.

    Returns:
        ln C, ln N midway between both sizes, and whether there is a crossing, each for the steps of the grid,
        shape (rows, grid − 1).
    """
    best = curves.argmin(axis=1)
    before, after = best[:, :-1], best[:, 1:]
    known = np.where(np.isfinite(curves), curves, np.nan)

    def ahead(side: Floats) -> Floats:
        """Return by how much the lowest before a step is ahead of the lowest after it."""
        one, other = (np.take_along_axis(side, which[:, None, :], axis=1)[:, 0] for which in (before, after))
        return np.asarray(other - one)

    first, last = ahead(known[:, :, :-1]), ahead(known[:, :, 1:])
    crossed = (before != after) & (first > last)
    share = np.where(crossed, first, 0.0) / np.where(crossed, first - last, 1.0)
    return grid[:-1] + share * np.diff(grid), (sizes[before] + sizes[after]) / 2, crossed


def _slopes(x: Floats, y: Floats, kept: Mask) -> Floats:
    """Return the least-squares slope of each row of y over the kept x; NaN without two distinct x."""
    weight = kept.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = weight.sum(axis=1, keepdims=True)
        # Weighted regression with weights 0 and 1: x minus the mean of the kept x.
        apart = np.where(kept, x - (weight * x).sum(axis=1, keepdims=True) / count, 0.0)
        return np.asarray((apart * y).sum(axis=1) / (apart**2).sum(axis=1), dtype=np.float64)


def _means(x: Floats, kept: Mask) -> Floats:
    """Return the mean of the kept values of each row; NaN if none is kept."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(kept, x, 0.0).sum(axis=1) / kept.sum(axis=1), dtype=np.float64)


def by_minima(draws: CellDraws, n: Floats) -> Slope:
    """Estimate the exponent by approach 2, the IsoFLOP minima.

    A profile holds the cells of one budget under fixed compute, and of computes within 10 % otherwise. The
    cells are of one family, and of one data size under fixed compute.
    """
    slices = _slices(draws, n)
    if len(slices) < _FEWEST:
        reason = f"{plural(len(slices), 'compute')} with enough sizes for a profile; three are needed"
        return Slope(points=len(slices), reason=reason)
    ordered = [positions[np.argsort(n[positions], kind="stable")] for positions in slices]
    fitted = profiles_of(draws, n, ordered, question="exponents")
    compute = draws.column("train_flops")
    log_c = np.array([np.log(compute[positions]).mean() for positions in slices])
    kept = [place for place, one in enumerate(fitted) if one.status in ("ok", "unstable", "one seed")]
    if len(kept) < _FEWEST:
        reason = f"{len(kept)} of {plural(len(slices), 'profile')} have a minimum; three are needed"
        return Slope(points=len(kept), reason=reason)
    drawn = np.log(np.stack([fitted[place].drawn for place in kept], axis=1))
    where = f"minima at {len(kept)} of {plural(len(slices), 'compute')}"
    # An unstable minimum has little weight, because its draws spread; but they end at the sizes tried, so
    # several alone give a line that is too flat and an interval that is too narrow.
    stable = np.array([fitted[place].status != "unstable" for place in kept])
    firm = bool(stable.sum() >= _FEWEST)
    if any(fitted[place].status == "one seed" for place in kept):
        drawn, how = drawn[:1], "one seed per cell and too few sizes for an interval"
    elif not firm:
        how = f"no interval, since the sizes tried bracket only {stable.sum()} of them in most draws"
    else:
        how = "interval from their noise, the form error and their scatter about the line"
    levels, slopes = _line(log_c[kept], drawn).T
    ends = np.quantile(drawn[1:], [0.05, 0.95], axis=0) if len(drawn) > 1 else np.full((2, len(kept)), np.nan)
    return Slope(
        measured=float(slopes[0]), drawn=slopes[1:], points=len(kept), reason=f"{where}; {how}",
        center=float(log_c[kept].mean()), levels=levels, within=_ends(np.log(compute)),
        behind=_points(log_c[kept], drawn[0], *ends, stable=stable), firm=firm,
    )  # fmt: skip


def _line(x: Floats, rows: Floats) -> Floats:
    """Return the line through each row of points, shape (rows, 2): its level at the mean x, and its slope.

    Points, three or more, are weighted by the inverse of their variance: that of their draws plus the excess
    variance of the points about the line, by which the draws are moved as well. The first row is as measured.
    """
    basis, draws = np.column_stack([np.ones_like(x), x - x.mean()]), len(rows) - 1
    variance = np.maximum(half_width(rows[1:]) ** 2 if draws else np.zeros(len(x)), _LEAST)

    def statistic(more: float) -> float:
        """Return χ² of the weighted residuals about the line, given an additive variance."""
        root = 1 / np.sqrt(variance + more)
        scaled = basis * root[:, None]
        residual = rows[0] * root - scaled @ np.linalg.lstsq(scaled, rows[0] * root, rcond=None)[0]
        return float(residual @ residual)

    about = excess(
        statistic, freedom=len(x) - 2, noise=float(variance.mean()), highest=float(np.ptp(rows[0])) ** 2 + 1.0
    )
    root = 1 / np.sqrt(variance + about.variance)
    generator = stream("minima exponent")
    moved = about.drawn(draws, generator)[:, None] * generator.standard_normal((draws, len(x)))
    # The draws move about the line as far as the scatter allows; the measured row stays.
    moved = np.concatenate([rows[:1], rows[1:] + moved])
    return moved * root @ np.linalg.pinv(basis * root[:, None]).T


def _slices(draws: CellDraws, n: Floats) -> list[Indices]:
    """Return groups of cells of one compute, by rising compute."""
    if (draws.cells["regime"] == "fixed-compute").all():
        found = [positions for _, positions in draws.groups(["budget"])]
        return [positions for positions in found if len(np.unique(n[positions])) >= _FEWEST]
    log_c = np.log(draws.column("train_flops"))
    # Greedy grouping: take the window of computes with the most sizes, remove its cells, repeat.
    left, found = np.argsort(log_c, kind="stable"), []
    while len(left):
        ends = np.searchsorted(log_c[left], log_c[left] + _SAME_COMPUTE, side="right")
        held = [left[start:end] for start, end in enumerate(ends)]
        most = max(held, key=lambda positions: len(np.unique(n[positions])))
        if len(np.unique(n[most])) < _IN_SLICE:
            break
        found.append(most)
        left = left[~np.isin(left, most)]
    return sorted(found, key=lambda positions: float(log_c[positions].mean()))


def by_surface(draws: CellDraws, law: RepeatedFit, sizes: Floats) -> Slope:
    """Estimate the exponent by approach 3, the surface; resampled residuals give its interval.

    At ln N·D = ln C the surface is lowest at ln N = (ln αA − ln βB)/(α + β) + a·ln C. Model sizes are in
    proportion to the training FLOPs per sample that the surface is in. ``law`` gives effective data and
    sizes, so that the surface is that of data seen once.
    """
    at, runs = Points.of(draws.cells), draws.column("runs")
    n, error = at.n, np.maximum(draws.column("error"), _LEAST)
    # In effective sizes and data the law has no decay, so α and β are those of data seen once.
    inside = law.effective(at)
    surface = fit(*inside, error, weights=runs)
    if surface.status != "ok":
        return Slope(points=len(n), reason=surface.reason)
    fitted = surface(*inside)
    generator = stream("surface exponent")
    residual, freedom = np.log(error / fitted) * np.sqrt(runs), len(n) - _PARAMETERS
    picked = residual[generator.integers(len(n), size=(REFITS, len(n)))] / np.sqrt(runs)
    # √(n/χ²) with n − 5 degrees of freedom: residuals of a fit are too small, and few make t intervals.
    picked *= np.sqrt(len(n) / generator.chisquare(freedom, size=(REFITS, 1)))
    drawn = fit_draws(*inside, fitted * np.exp(picked), weights=runs[None, :], around=surface)
    log_c = np.log(draws.column("train_flops"))
    center, per_size = float(log_c.mean()), float((np.log(n) - np.log(sizes)).mean())
    measured = (surface.a, surface.b, surface.alpha, surface.beta)
    rows = (drawn.a, drawn.b, drawn.alpha, drawn.beta)
    size, data, alpha, beta = (np.append(one, several) for one, several in zip(measured, rows, strict=True))
    with np.errstate(divide="ignore"):
        level = (np.log(alpha * size) - np.log(beta * data) + beta * center) / (alpha + beta) - per_size
    repeated = ", for data seen once" if (at.seen > at.unique).any() else ""
    slopes, nothing = beta / (alpha + beta), np.empty(0)
    return Slope(
        measured=float(slopes[0]), drawn=slopes[1:], points=len(n), center=center, levels=level,
        reason=f"α {surface.alpha:.3f}, β {surface.beta:.3f}{repeated}; interval from resampled residuals",
        behind=_points(nothing, nothing, np.nan, np.nan), within=_ends(log_c),
    )  # fmt: skip
