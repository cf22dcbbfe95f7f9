"""Forecasts by the surface over model size and data: one law for all models of a family.

Model size is training FLOPs a sample, as on the axis of the IsoFLOP profiles: a ViT-B/16 has the parameters
of a ViT-B/32 and costs three times as much. Decays are fitted to the measured errors and held in the draws.

A surface misses its own points by more than the noise of the runs. Of n points and k parameters,
s² = Σ (ln y − ln ŷ)²/(n − k) is what it misses them by, and σ² = max(0, s² − the runs' own variance) is the
discrepancy of the law. Each draw stretches it by (n − k)/χ²: it moves the points that the surface is
refitted to, and what is read off it: intervals are Student's t. Beyond the data the variance grows with the
logarithm of the distance, at the rate that the quarter of largest compute shows when it is held out.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.family import family
from analysis.cells.intervals import Interval, intervals
from analysis.laws.repeated import RepeatedFit, fit_repeated, once
from analysis.laws.surface import SurfaceDraws, fit, fit_draws

Floats = NDArray[np.float64]
Key = tuple[str, str, str, str]

PLAIN, REPEATED = "surface in model size and data", "surface in model size and repeated data"
SHARED = "surface with one exponent"
SURFACES = (SHARED, PLAIN, REPEATED)

_LEAST = 1e-6
"""An error of zero has no logarithm."""
_LARGEST_STRETCH = 100.0
"""Of a variance with one degree of freedom or two: a rarer one would move no percentile that is shown."""
_HELD_SHARE = 0.25
_BELOW = 0.97
"""Cells within 3 % of a level belong to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Where a surface is fitted or read off: model sizes, unique pairs and samples seen, shape (points,)."""

    n: Floats
    unique: Floats
    seen: Floats

    @classmethod
    def of(cls, cells: pd.DataFrame) -> "Points":
        """Those of cells."""
        columns = ("train_flops_per_sample", "subset_size", "samples_seen")
        n, unique, seen = (cells[name].to_numpy(np.float64) for name in columns)
        return cls(n=n, unique=unique, seen=seen)

    @property
    def flops(self) -> Floats:
        """Training FLOPs."""
        return self.n * self.seen

    def take(self, kept: NDArray[np.bool_]) -> "Points":
        """Some of them."""
        return Points(n=self.n[kept], unique=self.unique[kept], seen=self.seen[kept])

    @classmethod
    def joined(cls, *parts: "Points") -> "Points":
        """One after the other."""
        n, unique, seen = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("n", "unique", "seen")
        )
        return cls(n=n, unique=unique, seen=seen)


def key(cell: pd.Series | dict[str, object]) -> Key:
    """What a surface holds: regime, quality, strategy and family of architectures."""
    regime, quality, strategy = (str(cell[name]) for name in ("regime", "quality", "strategy"))
    return regime, quality, strategy, family(str(cell["architecture"]))


def groups(draws: CellDraws) -> dict[Key, NDArray[np.intp]]:
    """The cells that share a surface, by what it holds."""
    kept = draws.groups(["regime", "quality", "strategy", "architecture"])
    names = ("regime", "quality", "strategy", "architecture")
    found: dict[Key, list[NDArray[np.intp]]] = {}
    for values, positions in kept:
        found.setdefault(key(dict(zip(names, values, strict=True))), []).append(positions)
    return {name: np.sort(np.concatenate(parts)) for name, parts in sorted(found.items())}


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilySurface:
    """The surface of one family.

    Attributes:
        key: What it holds.
        fit: The law of repeated data, which is the plain surface where no pair is seen twice.
        alpha: Intervals of the exponent of model size; NaN without draws of runs or a supported surface.
        beta: Intervals of the exponent of data.
    """

    key: Key
    fit: RepeatedFit
    alpha: Interval
    beta: Interval


def family_surfaces(draws: CellDraws) -> tuple[FamilySurface, ...]:
    """The surface of each family of at least two sizes, over all of its cells."""
    found = []
    for name, positions in groups(draws).items():
        here = draws.take(positions)
        at, runs = Points.of(here.cells), here.cells["runs"].to_numpy(np.float64)
        if len(np.unique(at.n)) < 2:  # noqa: PLR2004 (one size is no axis)
            continue
        error = np.maximum(here.resampled(), _LEAST)
        law = fit_repeated(at.n, at.unique, at.seen, error[0], weights=runs)
        alpha = beta = Interval()
        if law.surface.supported and len(at.n) > law.parameters and draws.source == "runs":
            variance, stretch = _discrepancy(law, at, error, draws.refits)
            drawn = _refit(law, at, error, runs, np.sqrt(variance * stretch))
            alpha, beta = (intervals(values, draws.refits) for values in (drawn.alpha, drawn.beta))
        found.append(FamilySurface(key=name, fit=law, alpha=alpha, beta=beta))
    return tuple(found)


def forecast(law: str, cells: pd.DataFrame, error: Floats, at: Points) -> Floats | None:
    """Forecasts of one law.

    Args:
        law: One of ``SURFACES``.
        cells: What it is fitted to.
        error: Their errors, shape (rows, cells): as measured, then as drawn.
        at: Where to forecast.

    Returns:
        Errors of shape (rows, points), with the discrepancy of the law in the drawn ones; None where the
        cells do not bear the law, or none is seen twice and the law of repeated data is the plain one.
    """
    here, error = Points.of(cells), np.maximum(error, _LEAST)
    runs = cells["runs"].to_numpy(np.float64)
    found = _fit(law, here, error[0], runs)
    if found is None:
        return None
    variance, stretch = _discrepancy(found, here, error, len(error) - 1)
    forecasts = _refit(found, here, error, runs, np.sqrt(variance * stretch))(
        *found.effective(at.n, at.unique, at.seen)
    )
    beyond = np.maximum(np.log(at.flops / here.flops.max()), 0.0)
    growth = 0.0
    if len(stretch) and beyond.any():
        growth = _growth(law, here, error[0], runs, found)
    return _moved(forecasts, np.sqrt((variance + growth * beyond) * stretch), "forecast")


def _fit(law: str, here: Points, error: Floats, runs: Floats) -> RepeatedFit | None:
    if law == REPEATED:
        found = fit_repeated(here.n, here.unique, here.seen, error, weights=runs)
        if found.status in ("no repetition", "no surface"):
            return None
    else:
        found = once(fit(here.n, here.seen, error, weights=runs, shared=law == SHARED))
    return found if found.surface.supported and len(error) > found.parameters else None


def _refit(law: RepeatedFit, here: Points, error: Floats, runs: Floats, spread: Floats) -> SurfaceDraws:
    """The surface refitted to each row, its decays as they are."""
    inside = law.effective(here.n, here.unique, here.seen)
    return fit_draws(*inside, _moved(error, spread, "refit"), weights=runs[None, :], around=law.surface)


def _moved(values: Floats, spread: Floats, question: str) -> Floats:
    """Values with the discrepancy in their drawn rows, which follow the first."""
    shift = np.zeros_like(values)
    rows = slice(1, 1 + len(spread))
    shift[rows] = spread * stream(f"surface/{question}", 0).standard_normal(shift[rows].shape)
    return np.asarray(values * np.exp(shift), dtype=np.float64)


def _mean_square(law: RepeatedFit, here: Points, error: Floats, freedom: int) -> float:
    """Of what a law misses its points by, in ln y."""
    miss = np.log(error / law(here.n, here.unique, here.seen))
    return float((miss**2).sum()) / freedom


def _discrepancy(law: RepeatedFit, here: Points, error: Floats, draws: int) -> tuple[float, Floats]:
    """Variance in ln y by which a law misses its points beyond their noise, and each draw's stretch of it."""
    freedom = len(here.n) - law.parameters
    noise = float(np.log(error[1 : 1 + draws]).var(axis=0).mean()) if draws else 0.0
    chi = stream(f"surface/stretch/{freedom}", 0).chisquare(freedom, size=(draws, 1))
    variance = max(0.0, _mean_square(law, here, error[0], freedom) - noise)
    return variance, np.minimum(freedom / chi, _LARGEST_STRETCH)


def _growth(law: str, here: Points, error: Floats, runs: Floats, found: RepeatedFit) -> float:
    """Variance in ln y that a unit of ln compute beyond the data adds: by the largest cells, held out.

    The misses of a law are smooth: what is independent within the data goes one way beyond them.
    """
    cut = np.sort(here.flops)[-max(1, int(len(here.n) * _HELD_SHARE))]
    left = here.flops < cut * _BELOW
    without = _fit(law, here.take(left), error[left], runs[left]) if left.any() else None
    if without is None:
        return 0.0
    out = here.take(~left)
    far = float(np.log(out.flops / here.flops[left].max()).mean())
    missed = _mean_square(without, out, error[~left], len(out.n))
    return max(0.0, missed - _mean_square(found, here, error, len(here.n) - found.parameters)) / far
