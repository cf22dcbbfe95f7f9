"""Effective robustness: accuracy on shifted images above the prediction from plain ones.

Models of one kind lie on a line if both accuracies are on a logit scale (Taori et al. 2020, §2; Miller et al.
2021). The line is fitted to the plain CLIP cells of a study. The effective robustness of a group of cells is
its height above the line, in points on the shifted set. Higher plain accuracy alone does not raise it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.bootstrap import stream
from analysis.cells.intervals import COVERAGE
from analysis.cells.noise import Trunks, find_trunks
from analysis.cells.table import CELL, tidy
from runners.data.evaluation.paper_suite import MEANS, variant_sets

BASELINE = "clip"
FEWEST_CELLS = 4
_OWN = ("validation", "seen")
_DRAWS = 1000
_AGREE = 1e-9  # noise of runs that differ by rounding alone
COLUMNS = ("shifted", "slope", "r2", "axis", "value", "cells", "points", "low", "high", "verdict")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cells:
    """Cells with their accuracies on the plain and on the shifted set, shape (2, cells)."""

    frame: pd.DataFrame
    accuracy: Floats
    runs: NDArray[np.int64]
    residuals: Floats  # (2, runs of cells with several), in units of √(p(1−p))
    freedom: int
    place: Indices  # cell of each run
    trunks: Trunks | None
    counting: Floats  # (2,): counting noise of a run in units of √(p(1−p)), 1/√images; 0 if unknown


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
    rows = [row for name, cells, base in _measured(results, metric) for row in _above_line(name, cells, base)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def line_predictions(results: pd.DataFrame, *, metric: str) -> pd.DataFrame:
    """Return the accuracy of every cell on the plain and each shifted set, and the line's prediction.

    Returns:
        The columns of ``CELL``, ``shifted_set``, ``plain``, ``shifted`` and ``predicted``, the accuracy on
        the shifted set by the line (fractions). Empty without a line.
    """
    frames = []
    for name, cells, base in _measured(results, metric):
        above = _residuals(cells.accuracy[None], base)[2][0]
        frames.append(cells.frame.assign(shifted_set=name, predicted=cells.accuracy[1] - above))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _measured(results: pd.DataFrame, metric: str) -> Iterator[tuple[str, _Cells, Mask]]:
    """Yield each shifted set that has a line: its name, the cells, and which of them are plain CLIP."""
    place, _, what = metric.rpartition("/")
    trials = tidy(results, metric=metric).frame
    if what != "top1" or trials.empty:
        return
    for name, accuracy, images in _shifted(results.set_index("trial"), place):
        shifted = accuracy.reindex(trials["trial"]).to_numpy(np.float64)
        both = trials[["trial", "trunk", *CELL]].assign(plain=1 - trials["error"], shifted=shifted)
        counting = 1 / np.sqrt([float(trials["images"].mean()), float(images.mean())])
        cells = _cells(both.dropna(subset=["shifted"]), np.nan_to_num(counting))
        base = (cells.frame["strategy"] == BASELINE).to_numpy(bool)
        if base.sum() >= FEWEST_CELLS and np.ptp(cells.accuracy[0, base]) > 0:
            yield name, cells, base


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


def _above_line(name: str, cells: _Cells, base: Mask) -> list[dict[str, object]]:
    slope, r2, above = _residuals(cells.accuracy[None], base)
    draws = _draw(cells, name)
    drawn = _residuals(draws, base)[2] if draws is not None else np.full((1, len(base)), np.nan)
    tail = 100 * (1 - COVERAGE) / 2
    rows = []
    for (axis, value), members in _groups(cells.frame):
        low, high = np.percentile(drawn[:, members].mean(axis=1), [tail, 100 - tail])
        verdict = "undecided" if np.isnan(low) else "above" if low > 0 else "below" if high < 0 else "on"
        rows.append({
            "shifted": name, "slope": slope, "r2": r2, "axis": axis, "value": value,
            "cells": int(members.sum()), "points": float(above[0, members].mean()), "low": low,
            "high": high, "verdict": verdict,
        })  # fmt: skip
    return rows


def _groups(cells: pd.DataFrame) -> Iterator[tuple[tuple[str, str], Mask]]:
    plain = cells["strategy"] == BASELINE
    for axis, among in (("architecture", plain), ("strategy", ~plain)):
        for value in sorted(set(cells.loc[among, axis])):
            yield (axis, str(value)), (among & (cells[axis] == value)).to_numpy(bool)


def _cells(measured: pd.DataFrame, counting: Floats) -> _Cells:
    # Residuals as in `bootstrap`: times √(n/(n−1)), in units of √(p(1−p)), the standard deviation of one
    # answer; the number of images cancels out.
    grouped = measured.groupby(list(CELL), dropna=False)[["plain", "shifted"]]
    means = grouped.mean().reset_index()
    runs = np.asarray(grouped.size(), dtype=np.int64)
    spread = np.sqrt(runs / np.maximum(runs - 1, 1))
    at, place = grouped.transform("mean").to_numpy(np.float64), grouped.ngroup().to_numpy(np.intp)
    several = runs[place] > 1
    unit = np.sqrt(np.clip(at * (1 - at), 1e-6, None))
    off = (measured[["plain", "shifted"]].to_numpy(np.float64) - at) / unit * spread[place, None]
    return _Cells(
        frame=means, accuracy=means[["plain", "shifted"]].to_numpy(np.float64).T, runs=runs,
        residuals=off[several].T, freedom=int((runs - 1).sum()), place=place.astype(np.intp),
        trunks=find_trunks(measured, several), counting=counting,
    )  # fmt: skip


def _draw(cells: _Cells, name: str) -> Floats | None:
    """Return draws of the cells, shape (draws, 2, cells); both accuracies of a run are drawn together."""
    rng = stream(f"robustness/{name}")
    residuals = cells.residuals
    noise = np.sqrt((residuals**2).mean(axis=1)) if residuals.size else np.zeros(2)
    if noise.max() < _AGREE:  # single runs, or runs that agree exactly
        return None
    # Never less noise than the counting of the answers.
    residuals = residuals * np.maximum(1.0, cells.counting / np.maximum(noise, 1e-12))[:, None]
    pool = residuals.shape[1]
    means = np.empty((_DRAWS, 2, len(cells.runs)))
    if cells.trunks is not None:
        # Runs sorted by cell, so that `reduceat` sums each cell's runs.
        order, starts = np.argsort(cells.place, kind="stable"), np.cumsum(cells.runs) - cells.runs
        picked = residuals[:, cells.trunks.picks(rng, _DRAWS)][:, :, order]
        means[:] = (np.add.reduceat(picked, starts, axis=2) / cells.runs).transpose(1, 0, 2)
    for runs in np.unique(cells.runs) if cells.trunks is None else ():
        chosen = rng.integers(pool, size=(_DRAWS, int((cells.runs == runs).sum()), runs))
        means[:, :, cells.runs == runs] = residuals[:, chosen].mean(axis=3).transpose(1, 0, 2)
    # √(ν/χ²ν) as in `bootstrap`: few seeds give the wide intervals of Student's t.
    stretch = np.sqrt(cells.freedom / rng.chisquare(cells.freedom, size=(_DRAWS, 1, 1)))
    unit = np.sqrt(np.clip(cells.accuracy * (1 - cells.accuracy), 1e-6, None))
    return cells.accuracy + means * stretch * unit


def _residuals(accuracy: Floats, base: Mask) -> tuple[float, float, Floats]:
    """Return slope and r² of the first draw's line, and the distance of all cells from each draw's line."""
    x, y = _logit(accuracy[:, 0]), _logit(accuracy[:, 1])
    x_base, y_base = x[:, base], y[:, base]
    x_mean, y_mean = x_base.mean(axis=1, keepdims=True), y_base.mean(axis=1, keepdims=True)
    together = ((x_base - x_mean) * (y_base - y_mean)).sum(axis=1, keepdims=True)
    slope = together / np.square(x_base - x_mean).sum(axis=1, keepdims=True)
    predicted = 1 / (1 + np.exp(-(y_mean + slope * (x - x_mean))))
    r2 = float(np.corrcoef(x_base[0], y_base[0])[0, 1] ** 2) if np.ptp(y_base[0]) > 0 else float("nan")
    return float(slope[0, 0]), r2, np.asarray(accuracy[:, 1] - predicted, dtype=np.float64)


def _logit(share: Floats) -> Floats:
    inside = np.clip(share, 1e-4, 1 - 1e-4)
    return np.log(inside / (1 - inside))
