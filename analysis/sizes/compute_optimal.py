"""How the best model size grows with compute, N ∝ C^a, by the three approaches of Hoffmann et al. 2022, §3.

1. Lower envelope: each size's cells joined by straight lines in ln C; at each compute of a grid the size
   of the lowest curve; the slope of its logarithm. A compute where the smallest or the largest curve that
   reaches so far is the lowest is left out: the best size may lie beyond it.
2. IsoFLOP minima: the slope through the minima of the profiles.
3. Surface: a = β/(α + β).

Each gives the slope as measured, and as drawn.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.cells.bootstrap import REFITS, CellDraws, stream
from analysis.cells.interpolation import straight_lines
from analysis.labels import plural
from analysis.laws.excess_variance import excess
from analysis.laws.repeated import RepeatedFit
from analysis.laws.surface import fit, fit_draws
from analysis.sizes.size_profile import Measured, profiles

Floats = NDArray[np.float64]

_GRID = 60
_SAME_SIZE = 0.03
_SAME_COMPUTE = 0.1
_FEWEST = 3
_IN_SLICE = 5
_RESAMPLED = 8
_PARAMETERS = 5
_LEAST = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Slope:
    """One approach's exponent of model size.

    Attributes:
        measured: a; NaN where there is none.
        drawn: Of each draw; empty where its uncertainty is not known.
        points: Computes or cells behind it.
        reason: What it rests on, or why there is none.
    """

    measured: float = float("nan")
    drawn: Floats
    points: int
    reason: str


def _none(points: int, reason: str) -> Slope:
    return Slope(drawn=np.empty(0), points=points, reason=reason)


def by_envelope(draws: CellDraws, n: Floats) -> Slope:
    """Approach 1.

    Args:
        draws: The cells of one family.
        n: Their model sizes, shape (cells,).
    """
    log_c = np.log(draws.cells["train_flops"].to_numpy(np.float64))
    order = np.argsort(n, kind="stable")
    steps = np.cumsum(np.diff(np.log(n[order]), prepend=np.log(n[order[0]])) > _SAME_SIZE)
    groups = [order[steps == step] for step in np.unique(steps)]
    groups = [group for group in groups if len(np.unique(log_c[group])) > 1]
    if len(groups) < _FEWEST:
        return _none(0, f"{plural(len(groups), 'model size')} at two computes or more; three are needed")
    grid = np.linspace(log_c.min(), log_c.max(), _GRID)
    error = draws.with_measured() if draws.source == "runs" else draws.with_measured()[:1]
    curves = np.stack([_joined(log_c[group], error[:, group], grid) for group in groups], axis=1)
    sizes = np.array([np.log(n[group]).mean() for group in groups])
    generator = stream("envelope exponent", 0)
    resampled = draws.source != "runs" and len(groups) >= _RESAMPLED
    if resampled:
        picked = generator.integers(len(groups), size=(REFITS, len(groups)))
        kept = (picked[:, :, None] == np.arange(len(groups))).any(axis=1)
        curves = np.concatenate([curves, np.where(kept[:, :, None], curves[0], np.inf)])
    best, inside = _lowest(curves)
    won = len(np.unique(best[0][inside[0]]))
    if won < _FEWEST:
        return _none(
            int(inside[0].sum()),
            f"{plural(won, 'size')} between others is the best somewhere; three are needed",
        )
    slopes = _slopes(grid, sizes[best], inside)
    what = "the runs' noise" if draws.source == "runs" else "resampled model sizes"
    how = f"{plural(won, 'size')} on the envelope; interval from {what}"
    if len(slopes) == 1:
        how = f"{plural(won, 'size')} on the envelope; one seed per cell and too few sizes for an interval"
    return Slope(measured=float(slopes[0]), drawn=slopes[1:], points=int(inside[0].sum()), reason=how)


def _joined(log_c: Floats, error: Floats, grid: Floats) -> Floats:
    """Straight lines through the mean errors at each compute, infinite outside, shape (rows, grid)."""
    at, place = np.unique(log_c, return_inverse=True)
    mean = np.stack([error[:, place == one].mean(axis=1) for one in range(len(at))], axis=1)
    lines = straight_lines(np.exp(at), mean, np.exp(grid))
    return np.where((grid >= at[0]) & (grid <= at[-1]), lines, np.inf)


def _lowest(curves: Floats) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The lowest of curves of shape (rows, sizes, grid) and whether a smaller and a larger one are higher."""
    there = np.isfinite(curves)
    best = curves.argmin(axis=1)
    first, last = there.argmax(axis=1), curves.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    return best, there.any(axis=1) & (best > first) & (best < last)


def _slopes(x: Floats, y: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Least-squares slope of each row of y over the kept of x; NaN where these do not tell one."""
    weight = kept.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        count = weight.sum(axis=1, keepdims=True)
        apart = np.where(kept, x - (weight * x).sum(axis=1, keepdims=True) / count, 0.0)
        return np.asarray((apart * y).sum(axis=1) / (apart**2).sum(axis=1), dtype=np.float64)


def by_minima(draws: CellDraws, n: Floats) -> Slope:
    """Approach 2: at each budget under fixed compute, else at computes that differ by a tenth at most.

    Args:
        draws: The cells of one family, of one data size where the compute is fixed.
        n: Their model sizes, shape (cells,).
    """
    slices = _slices(draws, n)
    if len(slices) < _FEWEST:
        reason = f"{plural(len(slices), 'compute')} with enough sizes for a profile; three are needed"
        return _none(len(slices), reason)
    several = []
    for positions in slices:
        ordered = positions[np.argsort(n[positions], kind="stable")]
        several.append(Measured.of(draws.take(ordered), n[ordered]))
    fitted = profiles(
        several, refits=draws.refits, source=draws.source, freedom=draws.freedom, question="exponents"
    )
    compute = draws.cells["train_flops"].to_numpy(np.float64)
    log_c = np.array([np.log(compute[positions]).mean() for positions in slices])
    # An unstable minimum is known badly, not wrongly: its draws weigh it.
    kept = [place for place, one in enumerate(fitted) if one.status in ("ok", "unstable", "one seed")]
    if len(kept) < _FEWEST:
        return _none(
            len(kept), f"{len(kept)} of {plural(len(slices), 'profile')} have a minimum; three are needed"
        )
    drawn = np.log(np.stack([fitted[place].drawn for place in kept], axis=1))
    where = f"minima at {len(kept)} of {plural(len(slices), 'compute')}"
    if any(fitted[place].status == "one seed" for place in kept):
        drawn, how = drawn[:1], "one seed per cell and too few sizes for an interval"
    else:
        how = "interval from their noise, the form's error and their scatter about the line"
    slopes = _line(log_c[kept], drawn)
    return Slope(measured=float(slopes[0]), drawn=slopes[1:], points=len(kept), reason=f"{where}; {how}")


def _line(x: Floats, rows: Floats) -> Floats:
    """Slope through each row of points, weighted by their variance in the draws and about the line.

    Args:
        x: Shape (points,), three or more.
        rows: As measured and as drawn, shape (rows, points); the draws get a scatter about the line that
            their own variance does not explain.
    """
    basis, draws = np.column_stack([np.ones_like(x), x - x.mean()]), len(rows) - 1
    low, high = np.quantile(rows[1:], [0.1587, 0.8413], axis=0) if draws else np.zeros((2, len(x)))
    variance = np.maximum(((high - low) / 2) ** 2, _LEAST)

    def statistic(more: float) -> float:
        root = 1 / np.sqrt(variance + more)
        residual = (
            rows[0] * root - basis * root[:, None] @ np.linalg.lstsq(basis * root[:, None], rows[0] * root)[0]
        )
        return float(residual @ residual)

    about = excess(
        statistic, freedom=len(x) - 2, noise=float(variance.mean()), highest=float(np.ptp(rows[0])) ** 2 + 1.0
    )
    root = 1 / np.sqrt(variance + about.variance)
    generator = stream("minima exponent", 0)
    moved = about.drawn(draws, generator)[:, None] * generator.standard_normal((draws, len(x)))
    moved = np.concatenate([rows[:1], rows[1:] + moved])
    return np.asarray((moved * root @ np.linalg.pinv(basis * root[:, None]).T)[:, 1], dtype=np.float64)


def _slices(draws: CellDraws, n: Floats) -> list[NDArray[np.intp]]:
    """Cells of one compute each, by rising compute."""
    if (draws.cells["regime"] == "fixed-compute").all():
        found = [positions for _, positions in draws.groups(["budget"])]
        return [positions for positions in found if len(np.unique(n[positions])) >= _FEWEST]
    log_c = np.log(draws.cells["train_flops"].to_numpy(np.float64))
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


def by_surface(draws: CellDraws, law: RepeatedFit) -> Slope:
    """Approach 3, with residuals resampled for the interval.

    Args:
        draws: The cells of one family.
        law: What repeated data and parameters are worth; the surface is one of data seen once.
    """
    columns = ("train_flops_per_sample", "subset_size", "samples_seen", "runs", "error")
    n, unique, seen, runs, error = (draws.cells[name].to_numpy(np.float64) for name in columns)
    error = np.maximum(error, _LEAST)
    inside = law.effective(n, unique, seen)
    surface = fit(*inside, error, weights=runs)
    if surface.status != "ok":
        return _none(len(n), f"surface: {surface.reason}")
    fitted = surface(*inside)
    generator = stream("surface exponent", 0)
    residual, freedom = np.log(error / fitted) * np.sqrt(runs), len(n) - _PARAMETERS
    picked = residual[generator.integers(len(n), size=(REFITS, len(n)))] / np.sqrt(runs)
    picked *= np.sqrt(len(n) / generator.chisquare(freedom, size=(REFITS, 1)))
    drawn = fit_draws(*inside, fitted * np.exp(picked), weights=runs[None, :], around=surface)
    repeated = ", for data seen once" if (seen > unique).any() else ""
    return Slope(
        measured=surface.beta / (surface.alpha + surface.beta),
        drawn=drawn.beta / (drawn.alpha + drawn.beta),
        points=len(n),
        reason=f"α {surface.alpha:.3f}, β {surface.beta:.3f}{repeated}; interval from resampled residuals",
    )
