"""Forecasts by the surface over model size and data, one law for all models of a family.

Model size is training FLOPs per sample, as on the axis of the IsoFLOP profiles: a ViT-B/16 has as many
parameters as a ViT-B/32 but costs three times as much. Decays are fitted to the measured errors and kept
fixed in the draws.

A surface misses its points by more than the noise of the runs. With n points and k parameters the mean square
miss is s² = Σ (ln y − ln ŷ)²/(n − k), and σ² = max(0, s² − variance of the runs) is the discrepancy of the
law. Each draw multiplies σ² by (n − k)/χ² and moves both the points that the surface is refitted to and the
forecasts by deviates of that variance, so that intervals are those of Student's t. Beyond the data the
variance grows with the logarithm of the distance, at the rate found when the quarter of the cells with the
largest compute is held out.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices
from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.intervals import Interval, intervals
from analysis.cells.pareto import SAME_COST
from analysis.laws.form_choice import HELD_SHARE
from analysis.laws.repeated import Points, RepeatedFit, fit_repeated, once
from analysis.laws.surface import SurfaceDraws, fit, fit_draws

FamilyKey = tuple[str, str, str, str]

PLAIN, REPEATED = "surface in model size and data", "surface in model size and repeated data"
SHARED = "surface with one exponent"
SURFACES = (SHARED, PLAIN, REPEATED)

_LEAST = 1e-6
"""Smallest error, since zero has no logarithm."""
_LARGEST_STRETCH = 100.0
"""Largest factor of the discrepancy in a draw; rarer ones do not affect the shown percentiles."""


def surface_key(draws: CellDraws, position: int) -> FamilyKey:
    """Return the key of a cell's surface: regime, quality, strategy and family of architectures."""
    cell = draws.cells.iloc[position]
    return str(cell["regime"]), str(cell["quality"]), str(cell["strategy"]), str(cell["family"])


def groups(draws: CellDraws) -> dict[FamilyKey, Indices]:
    """Return the positions of the cells of each surface, by its key."""
    kept = draws.groups(["regime", "quality", "strategy", "family"])
    return {
        (str(regime), str(quality), str(strategy), str(name)): positions
        for (regime, quality, strategy, name), positions in kept
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilySurface:
    """The surface of one family: the law of repeated data, or the plain one if no pair is seen twice.

    ``alpha`` and ``beta`` are the intervals of the exponents of model size and data; NaN without draws of
    runs or a supported surface.
    """

    key: FamilyKey
    fit: RepeatedFit
    alpha: Interval
    beta: Interval


def family_surfaces(draws: CellDraws) -> tuple[FamilySurface, ...]:
    """Fit the surface of each family of at least two sizes to all its cells."""
    found = []
    for name, positions in groups(draws).items():
        here = draws.take(positions)
        at, runs = Points.of(here.cells), here.column("runs")
        if len(np.unique(at.n)) < 2:  # noqa: PLR2004 (one size is no axis)
            continue
        error = np.maximum(here.stacked(), _LEAST)
        law = fit_repeated(at.n, at.unique, at.seen, error[0], weights=runs)
        alpha = beta = Interval()
        if law.surface.supported and len(at.n) > law.parameters and draws.source == "runs":
            variance, stretch = _discrepancy(law, at, error, draws.refits)
            drawn = _refit(law, at, error, runs, np.sqrt(variance * stretch))
            alpha, beta = (intervals(values, draws.refits) for values in (drawn.alpha, drawn.beta))
        found.append(FamilySurface(key=name, fit=law, alpha=alpha, beta=beta))
    return tuple(found)


def forecast(law: str, cells: pd.DataFrame, error: Floats, at: Points) -> Floats | None:
    """Forecast errors by one of ``SURFACES``, fitted to errors (rows, cells): as measured, then as drawn.

    Returns:
        Errors of shape (rows, points); the drawn rows include the discrepancy of the law. None if the cells
        do not support the law, or if no pair is seen twice, so that the law of repeated data is the plain
        one.
    """
    here, error = Points.of(cells), np.maximum(error, _LEAST)
    runs = cells["runs"].to_numpy(np.float64)
    found = _fit(law, here, error[0], runs)
    if found is None:
        return None
    variance, stretch = _discrepancy(found, here, error, len(error) - 1)
    forecasts = _refit(found, here, error, runs, np.sqrt(variance * stretch))(*found.effective(at))
    # Distance beyond the fitted range in ln compute; the growth of the variance is only needed there.
    beyond = np.maximum(np.log(at.n * at.seen / (here.n * here.seen).max()), 0.0)
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
    """Refit the surface to each row, with fixed decays."""
    return fit_draws(
        *law.effective(here), _moved(error, spread, "refit"), weights=runs[None, :], around=law.surface
    )


def _moved(values: Floats, spread: Floats, question: str) -> Floats:
    """Return values with a draw of the discrepancy in every drawn row, that is all but the first."""
    shift = np.zeros_like(values)
    rows = slice(1, 1 + len(spread))
    shift[rows] = spread * stream(f"surface/{question}").standard_normal(shift[rows].shape)
    return values * np.exp(shift)


def _mean_square(law: RepeatedFit, here: Points, error: Floats, freedom: int) -> float:
    """Return the mean square miss of a law in ln y, over the given degrees of freedom."""
    miss = np.log(error / law(here))
    return float((miss**2).sum()) / freedom


def _discrepancy(law: RepeatedFit, here: Points, error: Floats, draws: int) -> tuple[float, Floats]:
    """Return the discrepancy of a law, a variance of ln y, and the factor of each draw."""
    freedom = len(here.n) - law.parameters
    noise = float(np.log(error[1 : 1 + draws]).var(axis=0).mean()) if draws else 0.0
    # Named after its degrees of freedom: surfaces with equal degrees of freedom share these draws.
    chi = stream(f"surface/stretch/{freedom}").chisquare(freedom, size=(draws, 1))
    variance = max(0.0, _mean_square(law, here, error[0], freedom) - noise)
    return variance, np.minimum(freedom / chi, _LARGEST_STRETCH)


def _growth(law: str, here: Points, error: Floats, runs: Floats, found: RepeatedFit) -> float:
    """Return the variance of ln y added per unit of ln compute beyond the data, from held-out large cells.

    The misses of a law are smooth in compute: within the data they alternate, beyond them they add up.
    """
    # Hold out the cells from the largest quarter of the compute on, with all cells of the level at the cut.
    flops = here.n * here.seen
    left = flops < np.sort(flops)[-max(1, int(len(flops) * HELD_SHARE))] / SAME_COST
    without = _fit(law, here.take(left), error[left], runs[left]) if left.any() else None
    if without is None:
        return 0.0
    out = here.take(~left)
    # Mean distance of the held-out cells from the fitted range, in ln compute.
    far = float(np.log(flops[~left] / flops[left].max()).mean())
    missed = _mean_square(without, out, error[~left], len(out.n))
    return max(0.0, missed - _mean_square(found, here, error, len(here.n) - found.parameters)) / far
