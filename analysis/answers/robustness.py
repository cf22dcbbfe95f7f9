"""Effective robustness: accuracy on shifted images above the prediction from plain ones.

Models of one kind lie on a line if both accuracies are on a logit scale (Taori et al. 2020, §2; Miller et al.
2021). The line is fitted to the plain CLIP cells of a study. The effective robustness of a group of cells is
its height above the line, in points on the shifted set. Higher plain accuracy alone does not raise it.

The noise is that of a run's distance from the line: both accuracies of a run vary together, so it is smaller
than theirs. Distances are linear in the noise of all cells to first order, the line's included, and have the
intervals of Student's t.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.answers.crossing import BASELINE
from analysis.arrays import Floats, Indices, Mask
from analysis.cells.intervals import COVERAGE
from analysis.cells.noise import level_excess
from analysis.cells.table import CELL, tidy
from runners.data.evaluation.paper_suite import MEANS, variant_sets

FEWEST_CELLS = 4
_OWN = ("validation", "seen")
_AGREE = 1e-9  # noise of runs that differ by rounding alone
COLUMNS = ("shifted", "slope", "r2", "axis", "value", "cells", "points", "low", "high", "verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """The line of a shifted set, and what the noise of runs does to the distances from it.

    Attributes:
        cells: One row per cell: the columns of ``CELL``, and ``plain`` and ``shifted`` accuracy.
        slope: Slope on the logit scale.
        r2: Its r².
        above: Distance of each cell from the line, in accuracy.
        moves: Change of each distance with the noise of each cell, shape (cells, cells), in the unit of
            ``noise``.
        cell: Cell of each run.
        unit: Trunk of each run, or the run itself.
        noise: Standard deviation of a run; NaN if unknown.
        freedom: Its degrees of freedom.
        shared: Correlation between the levels of a trunk.
    """

    cells: pd.DataFrame
    slope: float
    r2: float
    above: Floats
    moves: Floats
    cell: Indices
    unit: Indices
    noise: float
    freedom: float
    shared: float

    def interval(self, members: Mask) -> tuple[float, float]:
        """Return the ends of the interval of the mean distance of some cells; NaN without noise."""
        if np.isnan(self.noise):
            return float("nan"), float("nan")
        from scipy.special import stdtrit  # noqa: PLC0415 (a fifth of the report's import)

        moves = self.moves[members].mean(axis=0)[self.cell] / np.bincount(self.cell)[self.cell]
        apart, together = (moves**2).sum(), (np.bincount(self.unit, moves) ** 2).sum()
        deviation = self.noise * np.sqrt((1 - self.shared) * apart + self.shared * together)
        reach = float(stdtrit(self.freedom, (1 + COVERAGE) / 2)) * deviation
        middle = float(self.above[members].mean())
        return middle - reach, middle + reach


def robustness(results: pd.DataFrame, *, metric: str) -> pd.DataFrame:
    """Return the effective robustness of each architecture with plain CLIP, and of each other strategy.

    The evaluation set of the metric is the plain one.

    Returns:
        One row per group and shifted set (the ``top1`` of another set, or its mean over the paper's variants
        of ImageNet): slope and r² of the line on the logit scale, effective robustness in ``points`` (a
        fraction) with its interval from the noise between seeds (NaN with one seed), and ``verdict``:
        ``above``, ``below`` or ``on`` the line, or ``undecided`` without an interval. Empty if the metric is
        not top-1 or fewer than four plain CLIP cells have both accuracies.
    """
    rows = []
    for name, line in _lines(results, metric):
        for (axis, value), members in _groups(line.cells):
            low, high = line.interval(members)
            verdict = "undecided" if np.isnan(low) else "above" if low > 0 else "below" if high < 0 else "on"
            rows.append({
                "shifted": name, "slope": line.slope, "r2": line.r2, "axis": axis, "value": value,
                "cells": int(members.sum()), "points": float(line.above[members].mean()), "low": low,
                "high": high, "verdict": verdict,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def line_predictions(results: pd.DataFrame, *, metric: str) -> pd.DataFrame:
    """Return the accuracy of every cell on the plain and each shifted set, and the line's prediction.

    Returns:
        The columns of ``CELL``, ``shifted_set``, ``plain``, ``shifted`` and ``predicted``, the accuracy on
        the shifted set by the line (fractions). Empty without a line.
    """
    frames = [
        line.cells.assign(shifted_set=name, predicted=line.cells["shifted"] - line.above)
        for name, line in _lines(results, metric)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _lines(results: pd.DataFrame, metric: str) -> Iterator[tuple[str, _Line]]:
    """Yield each shifted set that has a line, by its name."""
    place, _, what = metric.rpartition("/")
    trials = tidy(results, metric=metric).frame
    if what != "top1" or trials.empty:
        return
    for name, accuracy, images in _shifted(results.set_index("trial"), place):
        shifted = accuracy.reindex(trials["trial"]).to_numpy(np.float64)
        both = trials[["trial", "trunk", *CELL]].assign(plain=1 - trials["error"], shifted=shifted)
        both = both.dropna(subset=["shifted"]).reset_index(drop=True)
        cells = both.groupby(list(CELL), dropna=False)[["plain", "shifted"]].mean().reset_index()
        base = (cells["strategy"] == BASELINE).to_numpy(bool)
        if base.sum() >= FEWEST_CELLS and np.ptp(cells["plain"][base]) > 0:
            yield name, _line(both, cells, base, float(trials["images"].mean()), float(images.mean()))


def _shifted(results: pd.DataFrame, plain: str) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Yield the name of each shifted set, its accuracies, and its number of images (NaN if unknown)."""
    names = [name.removesuffix("/top1") for name in map(str, results.columns) if name.endswith("/top1")]
    others = [name for name in names if name not in (plain, *_OWN)]
    variants = variant_sets(others)
    unknown = pd.Series(np.nan, index=results.index)
    count = {name: results.get(f"{name}/count", unknown) for name in others}
    for name in variants.values() if variants else others:
        yield name, results[f"{name}/top1"], count[name]
    for mean, titles in MEANS.items():
        if set(titles) <= set(variants):
            sets = [variants[title] for title in titles]
            # A mean of k sets is as certain as k² ÷ Σ 1/images images.
            inverse = pd.DataFrame({name: 1 / count[name] for name in sets})
            images = len(sets) ** 2 / inverse.sum(axis=1, skipna=False)
            yield mean, results[[f"{name}/top1" for name in sets]].mean(axis=1, skipna=False), images


def _line(both: pd.DataFrame, cells: pd.DataFrame, base: Mask, plain: float, shifted: float) -> _Line:
    """Fit a line to the cells of plain CLIP; ``plain`` and ``shifted`` are numbers of images, NaN unknown."""
    x, y = (_logit(cells[name].to_numpy(np.float64)) for name in ("plain", "shifted"))
    centred = x - x[base].mean()
    lever = np.where(base, centred, 0.0) / (centred[base] ** 2).sum()
    slope = float(lever @ y)
    predicted = 1 / (1 + np.exp(-(y[base].mean() + slope * centred)))
    hat = base / base.sum() + np.outer(centred, lever)
    # The noise of a run's y − slope·x: at least that of counting, in whose units it is pooled. If the numbers
    # of images are unknown, the unit is √(p(1 − p)) of the shifted set.
    counted = _counting(y) / shifted + slope**2 * _counting(x) / plain
    unit = np.sqrt(np.where(np.isfinite(counted), counted, _counting(y)))
    cell = both.groupby(list(CELL), dropna=False).ngroup().to_numpy(np.intp).astype(np.intp)
    runs = np.bincount(cell)
    off = _logit(both["shifted"].to_numpy(np.float64)) - slope * _logit(both["plain"].to_numpy(np.float64))
    off = off - (np.bincount(cell, off) / runs)[cell]
    off *= np.sqrt(runs / np.maximum(runs - 1, 1))[cell] / unit[cell]
    trunk = pd.factorize(both["trunk"].where(both["trunk"] != "", both["trial"]))[0].astype(np.intp)
    several = runs[cell] > 1
    noise = float(np.sqrt((off[several] ** 2).mean())) if several.any() else 0.0
    shared, levels = _shared(off[several], trunk[several])
    steep = predicted * (1 - predicted)
    return _Line(
        cells=cells, slope=slope, above=cells["shifted"].to_numpy(np.float64) - predicted,
        r2=float(np.corrcoef(x[base], y[base])[0, 1] ** 2) if np.ptp(y[base]) > 0 else float("nan"),
        moves=steep[:, None] * (np.eye(len(cells)) - hat) * unit, cell=cell, unit=trunk,
        noise=float("nan") if noise * unit.max() < _AGREE else max(noise, float(np.isfinite(counted).all())),
        freedom=float((runs - 1).sum() / level_excess(np.array(levels), shared)), shared=shared,
    )  # fmt: skip


def _shared(off: Floats, trunk: Indices) -> tuple[float, float]:
    """Return the correlation of a trunk's deviations at different levels, and the mean number of levels."""
    if not len(off):
        return 0.0, 1.0
    sums, squares, counts = (np.bincount(trunk, weights) for weights in (off, off**2, np.ones_like(off)))
    # Σ rᵢrⱼ over the pairs of each trunk, over Σ (rᵢ² + rⱼ²)/2.
    pairs = float(((counts - 1.0) * squares)[counts > 1].sum())
    shared = float(np.clip((sums**2 - squares).sum() / pairs, 0.0, 1.0)) if pairs else 0.0
    return shared, float(counts[counts > 0].mean())


def _counting(logit: Floats) -> Floats:
    """Return the variance of a logit that counts one image: 1 / (p(1 − p))."""
    return np.asarray(2 + 2 * np.cosh(logit))


def _groups(cells: pd.DataFrame) -> Iterator[tuple[tuple[str, str], Mask]]:
    plain = cells["strategy"] == BASELINE
    for axis, among in (("architecture", plain), ("strategy", ~plain)):
        for value in sorted(set(cells.loc[among, axis])):
            yield (axis, str(value)), (among & (cells[axis] == value)).to_numpy(bool)


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, 1e-4, 1 - 1e-4)
    return np.log(inside / (1 - inside))
