"""Uncertainty of the error of every cell, by resampling runs.

A study can afford two or three seeds per cell. Resampling these alone would give only two or three distinct
values, so the residuals of all cells are pooled (residual bootstrap, Davison and Hinkley 1997, §3.3):

* The residual of a run is its error minus the mean of its cell, times √(n/(n−1)) for the degree of freedom
  that the mean uses up. Its unit is √(p(1−p)/images), the standard deviation of counting correct answers.
* A drawn run is the mean of its cell plus a residual from the pool, in the units of the cell. A drawn cell is
  the mean of as many drawn runs as the cell has.
* Levels and configurations differ in their noise. The variance of the runs of each level, over all its
  configurations, is shrunk towards the pooled variance (Smyth 2004, see ``noise``), and so is, in units
  of that of its levels, the variance of each configuration over all its levels. Residuals are divided by both
  square roots when they enter the pool and multiplied by those of the drawn cell when they leave it.
* Each draw of the study scales its residuals by √(ν/χ²ν), where ν is the number of degrees of freedom of each
  variance. Few seeds then give the wide intervals of Student's t instead of those of a normal distribution.
* Residuals below the counting noise are scaled up to it: an evaluation set of m images has no finer
  resolution.

With trunks (``schedule: trunk``) the runs of a trunk share their noise, and whole trunks are resampled
(``noise``): each trunk of a drawn study gets the residuals of one trunk, level by level. If the L
levels of a trunk correlate at r, their squared residuals count as L/(1 + (L−1)r²) independent ones. The
jackknife leaves out whole trunks.

If no cell has a second seed, only the counting noise is known. It is a lower bound: its source is
``evaluation``, every caption says so, and no verdict rests on it alone.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.arrays import Floats, Indices
from analysis.cells.intervals import COVERAGE
from analysis.cells.noise import LevelNoise, Trunks, find_trunks, level_excess, moderated, squares_of
from analysis.cells.table import CELL, Trials, group_numbers
from analysis.error_unit import LOSS, ErrorUnit, chance_error

NoiseSource = Literal["runs", "evaluation", "none"]

REFITS = 500
"""Draws that a law is refitted to; more move the 5th and 95th percentiles by less than a line's width."""

_LEAST = 1e-12
_MEANS = ("train_flops", "train_flops_per_sample", "parameters", "samples_seen", "epochs")
_BLOCK = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class CellDraws:
    """The error of every cell, as measured and in each draw.

    Attributes:
        cells: One row per cell: the columns of ``CELL``, ``family`` of its architecture, ``error`` (mean of
            its runs), ``runs``, ``images``, ``reading_error``, ``diverged`` (number of its runs that
            diverged; ``runs`` excludes them), and the means of ``train_flops``, ``train_flops_per_sample``,
            ``parameters``, ``samples_seen`` and ``epochs``.
        draws: Errors of shape (draws, cells); no rows when ``source`` is ``none``.
        left_out: Jackknife: for each run of a cell with several runs, the position of that cell, shape
            (runs,).
        without: Error of that cell without the run, shape (runs,).
        unit: Number of the run's trunk, or of the run itself without one; a unit is left out as a whole,
            shape (runs,).
        source: ``runs`` when the noise between seeds was measured, ``evaluation`` when only the counting
            noise is known, ``none`` when neither is.
        freedom: Residual degrees of freedom: runs minus cells, over cells with at least two runs.
        noise: Standard deviation of a run in units of the counting noise; NaN when it was not measured.
        shared: Correlation of the noise of one trunk's levels; 0 without trunks.
        chance: Error of a model that guesses; NaN when unknown.
        error_unit: Unit that errors are shown in.
        explanation: Source of the intervals in one sentence, or the reason why there are none.
    """

    cells: pd.DataFrame
    draws: Floats
    left_out: Indices
    without: Floats
    unit: Indices
    source: NoiseSource
    freedom: int
    noise: float
    shared: float
    chance: float
    error_unit: ErrorUnit
    explanation: str

    def column(self, name: str) -> Floats:
        """Return a column of numbers of the cells, shape (cells,)."""
        return self.cells[name].to_numpy(np.float64)

    def take(self, positions: Indices) -> "CellDraws":
        """Return the draws of the cells at some positions, in that order."""
        place = np.full(len(self.cells), -1, dtype=np.intp)
        place[positions] = np.arange(len(positions))
        kept = place[self.left_out] >= 0
        return replace(
            self,
            cells=self.cells.iloc[positions].reset_index(drop=True),
            draws=self.draws[:, positions],
            left_out=place[self.left_out[kept]],
            without=self.without[kept],
            unit=self.unit[kept],
        )

    def with_measured(self) -> Floats:
        """Return the measured errors followed by the first draws, shape (1 + ``refits``, cells)."""
        measured = self.column("error")[None, :]
        return np.concatenate([measured, self.draws[:REFITS]])

    @property
    def refits(self) -> int:
        """Number of draws that fitted estimates are refitted to."""
        return len(self.draws[:REFITS])

    @property
    def mixed(self) -> bool:
        """True if the cells are of several regimes, which texts then name."""
        return len(self.cells["regime"].unique()) > 1

    def stacked(self) -> Floats:
        """Return the rows of `with_measured`, then the measured errors without each run or trunk in turn."""
        units, row = np.unique(self.unit, return_inverse=True)
        shown = self.with_measured()
        without = np.repeat(shown[:1], len(units), axis=0)
        without[row, self.left_out] = self.without
        return np.concatenate([shown, without])

    def groups(self, columns: list[str]) -> list[tuple[tuple[Hashable, ...], Indices]]:
        """Return each combination of values of the columns with its cells' positions, in sorted order."""
        found = self.cells.groupby(columns, sort=True).indices
        return [
            (key if isinstance(key, tuple) else (key,), np.asarray(positions, dtype=np.intp))
            for key, positions in found.items()
        ]


def stream(question: str, number: int = 0) -> np.random.Generator:
    """Return the random stream of one question; it does not depend on other questions or their order."""
    return np.random.default_rng(int.from_bytes(sha256(f"{number}/{question}".encode()).digest()[:16], "big"))


def cell_draws(trials: Trials, *, question: str, draws: int = 2000) -> CellDraws:
    """Group runs by cell and draw the error of each cell from the noise of the runs.

    ``question`` names the random stream: the same question has the same draws.
    """
    cells, position = _cells(trials)
    mean, runs = cells["error"].to_numpy(np.float64), cells["runs"].to_numpy(np.int64)
    curve = curve_numbers(cells)
    error_unit = ErrorUnit.of(trials.metric)
    images, reading = (cells[name].to_numpy(np.float64) for name in ("images", "reading_error"))
    unit, counted = _units(mean, images, reading, loss=error_unit == LOSS)
    # Runs of cells with at least two: the cell of each, its mean without the run, and the run's residual.
    several = runs[position] > 1
    left_out = position[several]
    deviation = (trials.frame["error"].to_numpy(np.float64) - mean[position])[several]
    without = mean[left_out] - deviation / (runs[left_out] - 1.0)
    residuals = deviation * np.sqrt(runs[left_out] / (runs[left_out] - 1.0))
    residuals /= np.maximum(unit[left_out], _LEAST)
    noise = float(np.sqrt(np.mean(residuals**2))) if len(residuals) else float("nan")
    # Levels before configurations: the noise of a configuration is measured in units of that of its levels.
    levels = LevelNoise.of(cells, residuals, left_out, runs)
    residuals /= levels.noise[levels.number[left_out]]
    trunks = find_trunks(trials.frame, several)
    shared = 0.0 if trunks is None else trunks.correlation(residuals)
    counts = _freedom(runs, curve, shared)
    freedom = round(counts.sum())
    # Seeds that agree to the last digit, without a counting noise as lower bound, do not measure noise.
    measured = freedom > 0 and (counted or noise > 0)
    source: NoiseSource = "runs" if measured else ("evaluation" if counted else "none")
    generator = stream(question)
    if source == "none":
        drawn = np.empty((0, len(cells)))
    elif source == "evaluation":
        drawn = generator.standard_normal((draws, len(cells))) / np.sqrt(runs)
    else:
        drawn = _resampled(
            residuals, left_out, runs, curve, levels=levels, freedom=counts, trunks=trunks, draws=draws,
            counted=counted, generator=generator,
        )  # fmt: skip
    drawn *= unit
    drawn += mean
    return CellDraws(
        cells=cells,
        draws=np.clip(drawn, 0.0, error_unit.most, out=drawn),
        left_out=left_out,
        without=without,
        unit=np.arange(len(left_out)) if trunks is None else trunks.of,
        source=source,
        freedom=freedom,
        noise=noise,
        shared=shared,
        chance=chance_error(trials.metric),
        error_unit=error_unit,
        explanation=_explain(source, freedom, noise if counted else None, runs, images)
        + ("" if trunks is None else f"; whole trunks are resampled, whose levels correlate at {shared:.2f}")
        + ("; values read off a figure include their reading error" if reading.any() else ""),
    )


def curve_numbers(cells: pd.DataFrame) -> Indices:
    """Return the number of each cell's curve: cells of one regime and configuration at any budget.

    In the one-epoch regime more compute means more pairs, so its curves span subset sizes.
    """
    size = cells["subset_size"].where(cells["regime"] != "one-epoch", 0)
    held = ("regime", "architecture", "strategy", "quality", "subset_size")
    return group_numbers(cells.assign(subset_size=size), held)


def _resampled(  # noqa: PLR0913 (residuals, where they come from, and how they are drawn)
    residuals: Floats,
    position: Indices,
    runs: Indices,
    curve: Indices,
    *,
    levels: LevelNoise,
    freedom: Floats,
    trunks: Trunks | None,
    draws: int,
    counted: bool,
    generator: np.random.Generator,
) -> Floats:
    """Return deviations of the cells' means in units of the counting noise, shape (draws, cells).

    Args:
        residuals: Residuals in units of the counting noise and of their level, inflated by √(n/(n−1)).
        position: Cell of each residual.
        runs: Runs of each cell.
        curve: Curve of each cell.
        levels: Level of each cell, and its noise.
        freedom: Degrees of freedom of each curve from ``_freedom``.
        trunks: The units of the noise; None if every run is one.
        draws: Number of draws.
        counted: True if the unit is the counting noise; the noise is then at least one unit.
        generator: Source of the draws.
    """
    squares = squares_of(residuals, runs[position], curve[position], len(freedom))
    if trunks is not None:  # fewer squares that are independent, each of the same size
        squares *= freedom / np.maximum(np.bincount(curve, weights=runs - 1.0), 1.0)
    noise, degrees = moderated(squares, freedom)
    pool = generator.standard_normal(512 if trunks is None else len(residuals))
    if residuals.any():
        pool = residuals / noise[curve[position]]
        pool /= np.sqrt(np.mean(pool**2))
    each = noise[curve] * levels.noise[levels.number]
    if counted:
        each = np.maximum(each, 1.0)
    alike = bool(np.isinf(degrees).all())
    total = freedom.sum()
    degrees = np.minimum(degrees, total)
    # If all curves share one variance, its error is shared as well: one χ² per draw instead of one per curve.
    size = (draws, 1) if alike else (draws, len(freedom))
    stretch = np.sqrt(degrees / generator.chisquare(total if alike else degrees, size=size))
    factor = each * stretch[:, curve]
    if np.isfinite(levels.degrees).any():
        degrees = np.minimum(levels.degrees, total)
        factor *= np.sqrt(degrees / generator.chisquare(degrees, size=(draws, len(degrees))))[
            :, levels.number
        ]
    ends = np.cumsum(runs)
    found = np.empty((draws, len(runs)), order="F")
    step = max(1, _BLOCK // max(1, int(runs.sum())))  # rows that fit into the processor's cache
    for low in range(0, draws, step):
        rows = slice(low, min(low + step, draws))
        if trunks is None:
            picks = generator.integers(len(pool), size=(rows.stop - low, int(runs.sum())))
        else:
            picks = trunks.picks(generator, rows.stop - low)
        picked = pool[picks]
        # Sum each cell's runs column by column: first run, second run and so on.
        sums = picked[:, ends - runs]
        for place in range(1, int(runs.max())):
            several = np.flatnonzero(runs > place)
            sums[:, several] += picked[:, (ends - runs)[several] + place]
        found[rows] = sums / runs * factor[rows]
    return found


def _freedom(runs: Indices, curve: Indices, shared: float) -> Floats:
    """Return the degrees of freedom of each curve's noise: runs minus cells, fewer where trunks share it."""
    found = np.bincount(curve, weights=runs - 1.0)
    levels = np.bincount(curve[runs > 1], minlength=len(found))
    return np.asarray(found / level_excess(levels, shared), dtype=np.float64)


def _cells(trials: Trials) -> tuple[pd.DataFrame, Indices]:
    """Return the cells and the position of each run's cell."""
    position = group_numbers(trials.frame, CELL)
    first, runs = np.unique(position, return_index=True, return_counts=True)[1:]
    one = trials.frame[[*CELL, "family", "diverged"]].iloc[first].reset_index(drop=True)
    means = trials.frame[["error", "images", "reading_error", *_MEANS]].groupby(position).mean()
    cells = pd.concat([one, means], axis=1).assign(runs=runs)
    return cells[[*CELL, "family", "error", "runs", "images", "reading_error", "diverged", *_MEANS]], position


def _units(error: Floats, images: Floats, reading: Floats, *, loss: bool) -> tuple[Floats, bool]:
    """Return the counting noise of one run per cell, joined by its reading error, and whether it is known.

    A loss counts no answers: its unit is its reading error, or else the loss itself.
    """
    read = len(reading) > 0 and bool((reading > 0).all())
    counted = not loss and len(images) > 0 and bool((np.isfinite(images) & (images > 0)).all())
    if read and not counted:
        return reading, True
    if loss:
        return np.abs(error), False
    count = images if counted else np.full_like(error, 100.0)
    proportion = agresti_coull(error, count)
    counting = np.sqrt(proportion * (1.0 - proportion) / (count if counted else 1.0))
    return (np.hypot(counting, reading) if counted else counting), counted


def agresti_coull(error: Floats, images: Floats | float) -> Floats:
    """Return an error with two right and two wrong answers added (Agresti and Coull 1998): 0 has noise."""
    return (error * images + 2.0) / (images + 4.0)


def _explain(
    source: NoiseSource, freedom: int, noise: float | None, runs: NDArray[np.int64], images: Floats
) -> str:
    counts = bool(np.isfinite(images).all())
    if source == "runs":
        alone = "the counting of answers alone" if counts else "the reading error alone"
        size = "" if noise is None else f"; runs vary {noise:.2f} times as much as {alone}"
        single = int((runs == 1).sum())
        borrowed = (
            f"; {single} of {len(runs)} cells have one run and use the noise of the other cells"
            if single
            else ""
        )
        return (
            f"{COVERAGE:.0%} intervals from resampled runs: residuals pooled over cells, the noise of each "
            "level and configuration shrunk towards the pooled noise, "
            f"{freedom} {'degree' if freedom == 1 else 'degrees'} of freedom{size}{borrowed}"
        )
    if source == "evaluation":
        return (
            "one seed per cell: the noise between seeds was not measured, so there is no interval; bars show "
            f"{'the counting noise of the evaluation' if counts else 'the reading error'} ({COVERAGE:.0%}), "
            "a lower bound"
        )
    return "no intervals: neither the noise between seeds nor the number of evaluation images is known"
