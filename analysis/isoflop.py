"""IsoFLOP profile: error against model size at one budget, and where its minimum lies.

A convex parabola in the logarithm of the size (Hoffmann et al. 2022, §3.2) by least squares on the cells'
means, weighted by their runs. Of one coefficient that must not be negative the constrained optimum is known:
the free parabola where it is convex, the straight line where it is not. Where the constraint binds, that is
reported. A minimum is given only where the data hold one: the constraint is free and the minimum lies between
the smallest and the largest size tried, in most draws of the study too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.bootstrap import CellDraws, Source
from analysis.intervals import COVERAGE, Interval, intervals
from analysis.labels import plural
from budgets.architecture import load_architecture

Floats = NDArray[np.float64]
Status = Literal["ok", "one seed", "unstable", "minimum at the edge", "concave", "too few sizes"]

_SIZES = 3
_STRAIGHT = 1e-12
_FAMILIES = {
    "vit": "ViT", "resnet": "ResNet", "convnext": "ConvNeXt", "swin": "Swin", "mixer": "Mixer",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One budget's profile.

    Attributes:
        coefficients: c0, c1, c2 of c0 + c1·t + c2·t², t = ln(size / unit), c2 ≥ 0; NaN when not fitted.
        unit: Geometric mean of the sizes.
        size: Size at the minimum, NaN unless ``status`` is ``ok``.
        ends: Its intervals; NaN unless ``status`` is ``ok``.
        status: ``ok`` when a minimum may be marked, or why not.
        reason: The status in one sentence.
    """

    coefficients: tuple[float, float, float]
    unit: float
    size: float
    ends: Interval
    status: Status
    reason: str

    def __call__(self, size: Floats) -> Floats:
        """The parabola at a size."""
        t = np.log(size / self.unit)
        c0, c1, c2 = self.coefficients
        return np.asarray(c0 + c1 * t + c2 * t * t, dtype=np.float64)


def profile(size: Floats, stack: Floats, *, refits: int, runs: NDArray[np.int64], source: Source) -> Profile:
    """Fits one budget's profile.

    Args:
        size: Training FLOPs per sample (or parameters) of each cell, above zero, shape (cells,).
        stack: Errors of each cell, shape (rows, cells): as measured, as drawn, without each run in turn.
        refits: How many rows are draws.
        runs: Runs behind each mean.
        source: What the draws stand for, see ``bootstrap``.
    """
    nan = float("nan")
    sizes = len(np.unique(size))
    if sizes < _SIZES:
        reason = f"{plural(sizes, 'model size')}; a minimum needs at least {_SIZES}"
        return Profile(
            coefficients=(nan, nan, nan), unit=nan, size=nan, ends=Interval(), status="too few sizes",
            reason=reason,
        )  # fmt: skip
    unit = float(np.exp(np.log(size).mean()))
    t = np.log(size / unit)
    coefficients = _convex(t, stack, runs)
    c0, c1, c2 = (float(c) for c in coefficients[0])
    status, reason = _judge(c1, c2, t)
    ends = Interval()
    if status == "ok":
        minimum = _minima(coefficients, t)
        status, reason = _stability(minimum[1 : 1 + refits], t, source)
        ends = intervals(unit * np.exp(minimum), refits) if status == "ok" else ends
    return Profile(
        coefficients=(c0, c1, c2),
        unit=unit,
        size=unit * float(np.exp(-c1 / (2 * c2))) if status == "ok" else nan,
        ends=ends,
        status=status,
        reason=reason,
    )


def _convex(t: Floats, error: Floats, runs: NDArray[np.int64]) -> Floats:
    """Coefficients c0, c1, c2 ≥ 0 of the best convex parabola through each row of errors."""
    root = np.sqrt(runs.astype(np.float64))
    basis = np.vander(t, 3, increasing=True) * root[:, None]
    free = error @ (np.linalg.pinv(basis) * root).T
    line = error @ (np.linalg.pinv(basis[:, :2]) * root).T
    # Rounding bends a straight line by some 1e-16.
    bound = free[:, 2] <= _STRAIGHT * np.abs(error).max(axis=1, initial=0.0)
    return np.where(bound[:, None], np.pad(line, ((0, 0), (0, 1))), free)


def _judge(c1: float, c2: float, t: Floats) -> tuple[Status, str]:
    if c2 <= 0:
        return "concave", (
            "the constraint binds: the error is not convex in the logarithm of the size, the best convex "
            f"curve is a line towards the {'smallest' if c1 > 0 else 'largest'} model: no minimum is marked"
        )
    minimum = -c1 / (2 * c2)
    if minimum <= t.min():
        return (
            "minimum at the edge",
            "the error falls down to the smallest model tried: the best may be smaller",
        )
    if minimum >= t.max():
        return "minimum at the edge", "the error falls up to the largest model tried: the best may be larger"
    return "ok", "the minimum lies between the sizes tried"


def _minima(coefficients: Floats, t: Floats) -> Floats:
    """Where each convex curve is lowest among the sizes tried: at an edge where it has no minimum inside."""
    c1, c2 = coefficients[:, 1], coefficients[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        free = np.where(c2 > 0, -c1 / (2 * c2), np.where(c1 > 0, -np.inf, np.inf))
    return np.clip(free, t.min(), t.max())


def _stability(minima: Floats, t: Floats, source: Source) -> tuple[Status, str]:
    """Whether the minimum stays inside the sizes tried in the draws."""
    if source != "runs":
        return "one seed", "one seed per cell: the noise of the minimum is not known, it is not marked"
    share = float(((minima > t.min()) & (minima < t.max())).mean())
    reason = f"a minimum between the sizes tried in {share:.1%} of the draws"
    if share < COVERAGE:
        return "unstable", f"{reason} only: it is not marked"
    return "ok", reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The profile of one budget with the data, strategy and family of architectures held.

    Attributes:
        identity: ``regime``, ``budget``, ``subset_size``, ``quality``, ``strategy``, ``family``.
        positions: Its cells among all, by rising training FLOPs per sample, which is the size on its axis.
        profile: The fit.
    """

    identity: Mapping[str, Any]
    positions: NDArray[np.intp]
    profile: Profile


def family(architecture: str) -> str:
    """What one size axis holds: the catalogue's family, or the letters that an unknown name begins with.

    Names that begin with no letter, such as a number of parameters, are sizes of one family.
    """
    try:
        return _FAMILIES[load_architecture(architecture).family]
    except ValueError:
        match = re.match(r"[A-Za-z]+", architecture)
        return match[0] if match else "model"


def curves(draws: CellDraws) -> list[Curve]:
    """Profiles of every budget of the fixed-compute regime with at least two sizes of a family."""
    families = {str(name): family(str(name)) for name in set(draws.cells["architecture"])}
    named = replace(
        draws, cells=draws.cells.assign(family=[families[str(name)] for name in draws.cells["architecture"]])
    )
    columns = ["regime", "budget", "subset_size", "quality", "strategy", "family"]
    found = []
    for key, positions in named.groups(columns):
        size = named.cells["train_flops_per_sample"].to_numpy(np.float64)[positions]
        if key[0] != "fixed-compute" or len(np.unique(size)) < 2:  # noqa: PLR2004 (one size is no profile)
            continue
        ordered = positions[np.argsort(size, kind="stable")]
        here = named.take(ordered)
        fitted = profile(
            np.sort(size),
            here.resampled(),
            refits=here.refits,
            runs=here.cells["runs"].to_numpy(np.int64),
            source=draws.source,
        )
        found.append(Curve(identity=dict(zip(columns, key, strict=True)), positions=ordered, profile=fitted))
    return found
