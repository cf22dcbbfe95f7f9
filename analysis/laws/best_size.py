"""The best model size at a budget and how it grows with compute, read from the draws of the joint law.

Model size N is training FLOPs of a sample, three times the law's forward FLOPs. In each draw, N*(C) is the
size of lowest error at compute C = N·D, D samples of which none is seen twice, by the surface and the drift,
without what single curves have of their own (Hoffmann et al. 2022, §3). The exponent of N* is the
least-squares slope of ln N* over ln C; D* = C/N*, so that both exponents sum to 1.

A profile is that of the cells of one budget. In each draw of their errors it is the polynomial in ln N
through the sizes at most ``NEIGHBOURS`` sizes from the lowest one, so both sides may differ. Its form
between the sizes is a guess; every fourth draw follows the joint law there.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.belief.cell_draws import CellDraws
from analysis.belief.curves import straight_lines
from analysis.belief.family import Family
from analysis.belief.parameters import FORWARD, resampled, typical
from analysis.cells.intervals import COVERAGE, NO_BAND, band, interval
from analysis.cells.table import records
from analysis.labels import regime_text
from budgets.quantity import format_share, plural

ProfileStatus = Literal["ok", "minimum at the edge", "no intervals", "too few sizes"]

NEIGHBOURS = 2
WIDEST = 30.0
"""Factor beyond the sizes tried up to which a compute's best size takes part in an exponent."""
CELLS = 12
"""Fewest cells of a regime for an exponent: the surface has six parameters."""
EXPONENTS = ("regime", "what", "exponent", "low", "high", "sizes", "status", "reason")
_SIZES = 3
_POINTS, _COMPUTES = 201, 16
_GROWTH = 281  # sizes of a growth
_BY_LAW, _GRID = 4, 1000.0
_UNDETERMINED = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Error against model size at one budget, with data, strategy and family of architectures fixed.

    Attributes:
        identity: ``regime``, ``budget``, ``subset_size``, ``quality``, ``strategy``, ``family``.
        positions: Positions of its cells in ``CellDraws.cells``, by rising size.
        epochs: Epochs of the smallest and of the largest size.
        used: Number of sizes that the curve goes through.
        band: Columns ``x`` (size), ``y`` (median of the draws), ``low``, ``high``; empty without draws.
        size: Median of the sizes at the minimum, and its interval, whose end beyond the sizes used is 0 or
            infinite; NaN unless ``status`` is ``ok``.
        low: Lower end.
        high: Upper end.
        status: ``ok`` if the minimum lies between the sizes used in at least ``COVERAGE`` of the draws.
        reason: The status in one sentence.
    """

    identity: Mapping[str, Any]
    positions: Indices
    epochs: tuple[float, float]
    used: int
    band: pd.DataFrame
    size: float
    low: float
    high: float
    status: ProfileStatus
    reason: str


def profiles(draws: CellDraws) -> tuple[Profile, ...]:
    """Return the profile of each fixed-compute budget and family of architectures with two sizes or more."""
    columns, fitted = ["regime", "subset_size", "quality", "strategy", "family", "budget"], []
    size = draws.column("train_flops_per_sample")
    for key, positions in draws.groups(columns):
        if key[0] == "fixed-compute" and len(np.unique(size[positions])) > 1:
            ordered = positions[np.argsort(size[positions], kind="stable")]
            fitted.append(_profile(draws, dict(zip(columns, key, strict=True)), ordered))
    return tuple(sorted(fitted, key=lambda one: float(one.identity["budget"])))


def slices(profiles: Iterable[Profile]) -> list[list[Profile]]:
    """Return profiles in groups of one family, strategy, pool and quality."""
    groups: dict[tuple[object, ...], list[Profile]] = {}
    for one in profiles:
        key = tuple(one.identity[name] for name in ("family", "strategy", "subset_size", "quality"))
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _profile(draws: CellDraws, identity: Mapping[str, Hashable], positions: Indices) -> Profile:
    sizes, place = np.unique(draws.column("train_flops_per_sample")[positions], return_inverse=True)
    epochs = draws.column("epochs")[positions]
    status: ProfileStatus = "ok"
    used, curve, low, middle, high = len(sizes), NO_BAND, np.nan, np.nan, np.nan
    if len(sizes) < _SIZES:
        status, reason = (
            "too few sizes",
            f"the best of {plural(len(sizes), 'model size')} is not known: that takes {_SIZES}",
        )
    elif not len(draws.draws):
        status, reason = "no intervals", "the noise of a run is unknown, so no minimum is marked"
    else:
        error = np.stack([draws.draws[:, positions[place == one]].mean(axis=1) for one in range(len(sizes))])
        lowest = int(np.median(error, axis=1).argmin())
        near = slice(max(lowest - NEIGHBOURS, 0), lowest + NEIGHBOURS + 1)
        t, used = np.log(sizes[near]) - np.log(sizes[lowest]), len(sizes[near])
        at = np.linspace(t[0], t[-1], _POINTS)
        x = sizes[lowest] * np.exp(at)
        # Values of a polynomial by its values at the sizes; the law instead in every ``_BY_LAW``-th draw.
        lines = (np.vander(at, used) @ np.linalg.inv(np.vander(t, used)) @ error[near]).T
        lines[::_BY_LAW] = _by_law(draws, identity, sizes[near], error[near].T, x)[::_BY_LAW]
        curve = band(x, lines)
        best = lines.argmin(axis=1)
        first, last = float((best == 0).mean()), float((best == _POINTS - 1).mean())
        inside = f"{format_share(1 - first - last)} of the draws"
        reason = f"the best size lies between those tried in {inside}"
        if first + last > 1 - COVERAGE:
            status, beyond = "minimum at the edge", "smaller" if first > last else "larger"
            reason = f"the best size lies between those tried in only {inside}: it may be {beyond}"
        else:
            low, high = interval(np.where(best == 0, 0.0, np.where(best == _POINTS - 1, np.inf, x[best])))
            middle = float(np.median(x[best]))
    return Profile(
        identity=identity, positions=positions, epochs=(float(epochs[0]), float(epochs[-1])), used=used,
        band=curve, size=middle, low=low, high=high, status=status, reason=reason,
    )  # fmt: skip


def _by_law(
    draws: CellDraws, identity: Mapping[str, Hashable], sizes: Floats, error: Floats, at: Floats
) -> Floats:
    """Return the law of a typical configuration plus straight lines through what the sizes lie beside it."""
    every = np.concatenate([sizes, at])[None, :]
    pool = np.full(every.shape, float(str(identity["subset_size"])))
    family, budget = draws.families[str(identity["regime"])], float(str(identity["budget"]))
    law = typical(family, identity, every / FORWARD, budget / every, pool)[:, 0]
    return law[:, len(sizes) :] + straight_lines(sizes, error - law[:, : len(sizes)], at)


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """How the best model size of a regime grows with compute.

    Attributes:
        family: The family of its regime.
        sizes: Smallest and largest size of its cells.
        count: Number of sizes.
        compute: Smallest and largest training FLOPs of its cells.
    """

    family: Family
    sizes: tuple[float, float]
    count: int
    compute: tuple[float, float]

    def best(self, compute: Floats) -> Floats:
        """Return N* at some training FLOPs, shape (computes,), in each draw: shape (draws, computes)."""
        low, high = self.sizes
        sizes = np.geomspace(low / _GRID, high * _GRID, _GROWTH)
        grid = np.broadcast_to(sizes, (len(compute), len(sizes)))
        once = np.full(grid.shape, np.inf)
        error = typical(self.family, {}, grid / FORWARD, compute[:, None] / grid, once)
        return np.asarray(sizes[error.argmin(axis=2)][resampled(self.family)])

    def near(self, best: Floats) -> Mask:
        """Return at which computes the median N* is within ``WIDEST`` times the sizes that were tried."""
        middle, (low, high) = np.median(best, axis=0), self.sizes
        return np.asarray((middle > low / WIDEST) & (middle < high * WIDEST))

    def exponent(self) -> Floats:
        """Return the exponent of N* in each draw; empty if the best size is far from all that were tried."""
        compute = np.geomspace(*self.compute, _COMPUTES)
        best = self.best(compute)
        near = self.near(best)
        if near.sum() < _SIZES or self.compute[0] == self.compute[1]:
            return np.empty(0)
        log_c = np.log(compute[near]) - np.log(compute[near]).mean()
        return np.asarray(np.log(best[:, near]) @ log_c / (log_c @ log_c))


def growths(draws: CellDraws) -> tuple[Growth, ...]:
    """Return the growth of each regime with three sizes and ``CELLS`` cells."""
    fitted = []
    for (regime,), positions in draws.groups(["regime"]):
        of_regime, family = draws.take(positions), draws.families[str(regime)]
        size, compute = of_regime.column("train_flops_per_sample"), of_regime.column("train_flops")
        count = len(np.unique(size))
        if count >= _SIZES and len(positions) >= CELLS and family.belief.law.space.sized:
            fitted.append(
                Growth(
                    family=family, sizes=(float(size.min()), float(size.max())), count=count,
                    compute=(float(compute.min()), float(compute.max())),
                )
            )  # fmt: skip
    return tuple(fitted)


def scaling_exponents(fitted: Sequence[Growth]) -> pd.DataFrame:
    """Return the exponents of N* and D* of each growth, columns ``EXPONENTS``.

    ``status`` is ``ok``; ``undetermined`` if the interval is wider than one half; or ``none`` if the best
    size is far from all sizes at each compute.
    """
    rows = []
    for one in fitted:
        drawn, status, reason = one.exponent(), "ok", ""
        if not len(drawn):
            drawn, status, reason = np.full(1, np.nan), "none", "the best size is far from all sizes tried"
        elif np.subtract(*interval(drawn)) < -_UNDETERMINED:
            status, reason = "undetermined", "the sizes and computes that were tried do not determine it"
        for what, values in (("N", drawn), ("D", 1 - drawn)):
            numbers = (float(np.median(values)), *interval(values), one.count)
            rows.append((one.family.regime, what, *numbers, status, reason))
    return pd.DataFrame(rows, columns=list(EXPONENTS))


def undecided(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each regime whose exponent is not known, from the table of exponents."""
    return [
        f"How model size grows with compute ({regime_text(row['regime'])}): {row['reason']}."
        for row in records(table[table["what"] == "N"])
        if row["status"] != "ok"
    ]
