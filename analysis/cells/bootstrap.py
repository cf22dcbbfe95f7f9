"""Uncertainty of every cell's error, by resampling runs.

With the two or three seeds a cell that a study can afford, a cell's own runs cannot be resampled: the draws
would hold no more than two or three values. The residuals of all cells are pooled instead (residual
bootstrap, Davison and Hinkley 1997, §3.3):

* a run's residual is its error minus its cell's mean, times √(n/(n−1)) for the degree of freedom that the
  mean took, in units of √(p(1−p)/images), the standard deviation that counting correct answers alone would
  give;
* a drawn run is its cell's mean plus a residual drawn from the pool in the cell's own units; a cell is the
  mean of as many drawn runs as it has;
* configurations differ in their noise: the variance of each one's runs, over all its levels, is shrunk
  towards the pooled one (Smyth 2004, see ``moderated``); residuals enter the pool in units of its root and
  leave it in those of the cell's;
* each draw of the study stretches its residuals by √(ν/χ²ν), ν the degrees of freedom of that variance, so
  that few seeds give the wide intervals of Student's t and not the narrow ones of a normal;
* residuals smaller than the counting noise are stretched to it: an evaluation set of m images cannot tell
  more.

Without a second seed anywhere, the counting noise is all that is known. It is a lower bound, drawn as
``evaluation`` and named so wherever it is shown; no verdict rests on it alone.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.chance import chance_error
from analysis.cells.intervals import COVERAGE
from analysis.cells.moderated import moderated
from analysis.cells.table import CELL, Trials, is_loss

Floats = NDArray[np.float64]
Source = Literal["runs", "evaluation", "none"]

REFITS = 500
"""Draws that a law is refitted to: the 5th and 95th percentiles of more move by less than a line is thick."""

_LEAST = 1e-12
_MEANS = ("train_flops", "train_flops_per_sample", "parameters", "samples_seen", "epochs")
_BLOCK = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class CellDraws:
    """Every cell's error, as measured and as it might have been.

    Attributes:
        cells: One row a cell: the columns of ``CELL``, ``error`` (mean of its runs), ``runs``, ``images``,
            ``reading_error``, ``diverged`` (runs that did and are not among these), and the means of
            ``train_flops``,
            ``train_flops_per_sample``, ``parameters``, ``samples_seen``, ``epochs``.
        draws: Errors of shape (draws, cells); no rows when ``source`` is ``none``.
        left_out: Of each run of the cells that have several, the position of its cell, shape (runs,).
        without: The error of that cell without the run.
        source: ``runs`` when the noise between seeds was measured, ``evaluation`` when only the counting
            noise is known, ``none`` when neither is.
        freedom: Residual degrees of freedom: runs minus cells, over cells of at least two.
        noise: Standard deviation of a run in units of the counting noise (NaN when not measured).
        chance: The error of a model that guesses; NaN where it is not known.
        explanation: One sentence on where the intervals come from, or why there are none.
    """

    cells: pd.DataFrame
    draws: Floats
    left_out: NDArray[np.intp]
    without: Floats
    source: Source
    freedom: int
    noise: float
    chance: float
    explanation: str

    def take(self, positions: NDArray[np.intp]) -> "CellDraws":
        """The same for the cells at the given positions, in that order."""
        place = np.full(len(self.cells), -1, dtype=np.intp)
        place[positions] = np.arange(len(positions))
        kept = place[self.left_out] >= 0
        return replace(
            self,
            cells=self.cells.iloc[positions].reset_index(drop=True),
            draws=self.draws[:, positions],
            left_out=place[self.left_out[kept]],
            without=self.without[kept],
        )

    def with_measured(self) -> Floats:
        """The measured errors and then the first draws, shape (1 + ``refits``, cells)."""
        measured = self.cells["error"].to_numpy(np.float64)[None, :]
        return np.concatenate([measured, self.draws[:REFITS]])

    @property
    def refits(self) -> int:
        """How many draws an estimate that is fitted is fitted to."""
        return len(self.draws[:REFITS])

    def resampled(self, positions: NDArray[np.intp] | None = None) -> Floats:
        """The rows of `with_measured`, and the measured errors without each run in turn.

        Args:
            positions: Some cells, in that order; all by default.
        """
        positions = np.arange(len(self.cells)) if positions is None else positions
        place = np.full(len(self.cells), -1, dtype=np.intp)
        place[positions] = np.arange(len(positions))
        left = place[self.left_out]
        kept = np.flatnonzero(left >= 0)
        shown = 1 + self.refits
        found = np.empty((shown + len(kept), len(positions)))
        found[0] = found[shown:] = self.cells["error"].to_numpy(np.float64)[positions]
        found[1:shown] = self.draws[:REFITS, positions]
        found[np.arange(shown, len(found)), left[kept]] = self.without[kept]
        return found

    def curves(self) -> NDArray[np.intp]:
        """The number of each cell's curve: one configuration over its levels."""
        return curve_numbers(self.cells)

    def groups(self, columns: list[str]) -> list[tuple[tuple[Hashable, ...], NDArray[np.intp]]]:
        """Values of the columns and the positions of the cells that share them, in sorted order."""
        found = self.cells.groupby(columns, sort=True).indices
        return [
            (key if isinstance(key, tuple) else (key,), np.asarray(positions, dtype=np.intp))
            for key, positions in found.items()
        ]


def stream(question: str, seed: int) -> np.random.Generator:
    """The random stream of one question: the same whatever else is asked, and in whatever order."""
    return np.random.default_rng(int.from_bytes(sha256(f"{seed}/{question}".encode()).digest()[:16], "big"))


def cell_draws(trials: Trials, *, question: str, draws: int = 2000, seed: int = 0) -> CellDraws:
    """Groups runs by cell and draws each cell's error as the runs' noise allows.

    Args:
        trials: The finished trials of a study.
        question: Names the random stream.
        draws: How many studies are drawn.
        seed: Seed of the analysis.
    """
    cells, position = _cells(trials)
    mean, runs = cells["error"].to_numpy(np.float64), cells["runs"].to_numpy(np.int64)
    loss = is_loss(trials.metric)
    images, reading = (cells[name].to_numpy(np.float64) for name in ("images", "reading_error"))
    unit, counted = _loss_units(mean, reading) if loss else _units(mean, images, reading)
    residuals = _residuals(trials, cells, position, unit)
    left_out, without = _jackknife(trials, cells, position)
    freedom = int((runs[runs > 1] - 1).sum())
    noise = float(np.sqrt(np.mean(residuals**2))) if freedom else float("nan")
    # Seeds that agree to the last digit, with no count to bound them, measure nothing.
    measured = freedom > 0 and (counted or noise > 0)
    source: Source = "runs" if measured else ("evaluation" if counted else "none")
    generator = stream(question, seed)
    if source == "none":
        drawn = np.empty((0, len(cells)))
    elif source == "evaluation":
        drawn = generator.standard_normal((draws, len(cells))) / np.sqrt(runs)
    else:
        drawn = _resampled(residuals, left_out, cells, draws=draws, counted=counted, generator=generator)
    drawn *= unit
    drawn += mean
    return CellDraws(
        cells=cells,
        draws=np.clip(drawn, 0.0, None if loss else 1.0, out=drawn),
        left_out=left_out,
        without=without,
        source=source,
        freedom=freedom,
        noise=noise,
        chance=chance_error(trials.metric),
        explanation=_explain(source, freedom, noise if counted else None, runs)
        + ("; what was read off a figure has its reading error, too" if reading.any() else ""),
    )


def curve_numbers(cells: pd.DataFrame) -> NDArray[np.intp]:
    """The number of each cell's curve: cells of one regime and configuration, whatever their budget.

    In one epoch more compute is more pairs, so cells of different subset sizes are of one curve.
    """
    size = cells["subset_size"].where(cells["regime"] != "one-epoch", 0)
    held = [cells["regime"], cells["architecture"], cells["strategy"], cells["quality"], size]
    return np.asarray(cells.groupby(held, sort=True).ngroup(), dtype=np.intp)


def _resampled(  # noqa: PLR0913 (residuals, where they come from, and how they are drawn)
    residuals: Floats,
    position: NDArray[np.intp],
    cells: pd.DataFrame,
    *,
    draws: int,
    counted: bool,
    generator: np.random.Generator,
) -> Floats:
    """Deviations of the cells' means in units of the counting noise, shape (draws, cells).

    Args:
        residuals: What ``_residuals`` gave.
        position: The cell of each residual.
        cells: What ``_cells`` gave.
        draws: How many.
        counted: Whether the units are those of counted answers: less noise than one is not believed.
        generator: Draws them.
    """
    runs, curve = cells["runs"].to_numpy(np.int64), curve_numbers(cells)
    freedom = np.bincount(curve, weights=runs - 1.0).astype(np.float64)
    squared = residuals**2 * (1.0 - 1.0 / runs[position])
    squares = np.bincount(curve[position], squared, minlength=len(freedom)).astype(np.float64)
    noise, degrees = moderated(squares, freedom)
    pool = generator.standard_normal(512)
    if residuals.any():
        pool = residuals / noise[curve[position]]
        pool /= np.sqrt(np.mean(pool**2))
    if counted:
        noise = np.maximum(noise, 1.0)
    alike = bool(np.isinf(degrees).all())
    total = freedom.sum()
    degrees = np.minimum(degrees, total)
    # Curves of one and the same noise are wrong about it together.
    size = (draws, 1) if alike else (draws, len(freedom))
    stretch = np.sqrt(degrees / generator.chisquare(total if alike else degrees, size=size))
    factor, ends = (noise * stretch)[:, curve], np.cumsum(runs)
    found = np.empty((draws, len(runs)), order="F")
    step = max(1, _BLOCK // max(1, int(runs.sum())))  # what fits into the processor's cache
    for low in range(0, draws, step):
        rows = slice(low, min(low + step, draws))
        picked = pool[generator.integers(len(pool), size=(rows.stop - low, int(runs.sum())))]
        total = picked[:, ends - runs]
        for place in range(1, int(runs.max())):
            several = np.flatnonzero(runs > place)
            total[:, several] += picked[:, (ends - runs)[several] + place]
        found[rows] = total / runs * factor[rows]
    return found


def _cells(trials: Trials) -> tuple[pd.DataFrame, NDArray[np.intp]]:
    """The cells, and the position of each run's cell."""
    grouped = trials.frame.groupby(list(CELL), sort=True)
    cells = grouped[["error", "images", "reading_error", *_MEANS]].mean()
    cells.insert(1, "runs", grouped.size())
    cells.insert(4, "diverged", grouped["diverged"].first())
    return cells.reset_index(), np.asarray(grouped.ngroup(), dtype=np.intp)


def _units(error: Floats, images: Floats, reading: Floats) -> tuple[Floats, bool]:
    """Counting noise of one run of each cell with its reading error, and whether either is known."""
    read = _read(reading)
    counted = bool(len(images)) and bool(np.isfinite(images).all()) and bool((images > 0).all())
    if read and not counted:
        return reading, True
    count = images if counted else np.full_like(error, 100.0)
    # Two answers of each kind are added (Agresti and Coull 1998): no error does not mean no noise.
    proportion = (error * count + 2.0) / (count + 4.0)
    counting = np.sqrt(proportion * (1.0 - proportion) / (count if counted else 1.0))
    return (np.hypot(counting, reading) if counted else counting), counted


def _loss_units(loss: Floats, reading: Floats) -> tuple[Floats, bool]:
    """A loss counts no answers: its runs are taken to vary as it was read, or else in proportion to it."""
    return (reading, True) if _read(reading) else (np.abs(loss), False)


def _read(reading: Floats) -> bool:
    """Whether every cell was read with an error."""
    return bool(len(reading)) and bool((reading > 0).all())


def _jackknife(
    trials: Trials, cells: pd.DataFrame, position: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Floats]:
    """Of each run of the cells that have at least two, its cell and that cell's mean without it."""
    runs, mean = (cells[name].to_numpy(np.float64)[position] for name in ("runs", "error"))
    several = runs > 1
    error = trials.frame["error"].to_numpy(np.float64)[several]
    left = mean[several] - (error - mean[several]) / (runs[several] - 1.0)
    return position[several], np.asarray(left, dtype=np.float64)


def _residuals(trials: Trials, cells: pd.DataFrame, position: NDArray[np.intp], unit: Floats) -> Floats:
    """Standardised residuals of the runs of the cells that have at least two, inflated by √(n/(n−1))."""
    runs = cells["runs"].to_numpy(np.float64)[position]
    deviation = trials.frame["error"].to_numpy(np.float64) - cells["error"].to_numpy(np.float64)[position]
    several = runs > 1
    inflated = deviation[several] * np.sqrt(runs[several] / (runs[several] - 1.0))
    inflated = inflated / np.maximum(unit[position][several], _LEAST)
    return np.asarray(inflated, dtype=np.float64)


def _explain(source: Source, freedom: int, noise: float | None, runs: NDArray[np.int64]) -> str:
    if source == "runs":
        size = (
            ""
            if noise is None
            else f"; a run varies {noise:.2f} times as much as counting its answers alone would"
        )
        single = int((runs == 1).sum())
        borrowed = (
            f"; {single} of {len(runs)} cells have one run and borrow the noise of the others"
            if single
            else ""
        )
        return (
            f"{COVERAGE:.0%} intervals from resampled runs: residuals pooled over cells, each "
            "configuration's noise shrunk towards that of all, "
            f"{freedom} {'degree' if freedom == 1 else 'degrees'} of freedom{size}{borrowed}"
        )
    if source == "evaluation":
        return (
            "one seed per cell: the noise between seeds was not measured, so there is no interval; what is "
            f"shown is the evaluation's own counting noise ({COVERAGE:.0%}), a lower bound"
        )
    return (
        "no noise between seeds was measured and the evaluation images are not counted: there is no interval"
    )
