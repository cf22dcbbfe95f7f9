"""Forecasts by the surface over model size and data: one law for all models of a family.

Model size is training FLOPs a sample, as on the axis of the IsoFLOP profiles: a ViT-B/16 has the parameters
of a ViT-B/32 and costs three times as much. Decays are fitted to the measured errors and held in the draws.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws
from analysis.intervals import Interval, intervals
from analysis.isoflop import family
from analysis.repeated import RepeatedFit, fit_repeated
from analysis.surface import fit, fit_draws

Floats = NDArray[np.float64]
Key = tuple[str, str, str, str]

PLAIN, REPEATED = "surface in model size and data", "surface in model size and repeated data"
SURFACES = (PLAIN, REPEATED)

_LEAST = 1e-6
"""An error of zero has no logarithm."""


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
        law = fit_repeated(at.n, at.unique, at.seen, error[0], weights=runs, delta=np.inf)
        alpha = beta = Interval()
        if law.surface.supported and draws.source == "runs":
            inside = law.effective(at.n, at.unique, at.seen)
            drawn = fit_draws(*inside, error, weights=runs[None, :], around=law.surface, delta=np.inf)
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
        Errors of shape (rows, points); None where the cells do not bear the law, or none is seen twice and
        the law of repeated data is the plain one.
    """
    here, error = Points.of(cells), np.maximum(error, _LEAST)
    runs = cells["runs"].to_numpy(np.float64)
    found: RepeatedFit | None = None
    if law == REPEATED:
        found = fit_repeated(here.n, here.unique, here.seen, error[0], weights=runs, delta=np.inf)
        if found.status in ("no repetition", "no surface"):
            return None
        surface = found.surface
    else:
        surface = fit(here.n, here.seen, error[0], weights=runs, delta=np.inf)
    if not surface.supported:
        return None
    inside, outside = (
        (points.n, points.seen) if found is None else found.effective(points.n, points.unique, points.seen)
        for points in (here, at)
    )
    drawn = fit_draws(*inside, error, weights=runs[None, :], around=surface, delta=np.inf)
    return drawn(*outside)
