"""Power law that saturates at small x, y = E + A·(x + x₀)^-α, with or without the floor E.

x₀ is the compute or data below which more of it does not help yet (Zhai et al. 2022, §2.2, fit their curves
so). For a given x₀ this is the law of `power_law` in x + x₀, solved exactly; x₀ itself is scanned on a grid,
x₀ = 0 included, and the grid is narrowed around its best value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.power_law import Draws, fit_draws

Floats = NDArray[np.float64]

_RATIOS = np.concatenate([[0.0], np.geomspace(0.03, 30.0, 12)])
_NARROWINGS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class SaturatedDraws:
    """Laws of many sets of y.

    Attributes:
        law: In x + x₀, in the unit of each draw's geometric mean of it.
        shift: x₀ ≥ 0, shape (draws,); at the upper end of what is tried (30 times the smallest x) the data
            do not bound it.
        unit: Geometric mean of x + x₀, shape (draws,).
    """

    law: Draws
    shift: Floats
    unit: Floats

    def __call__(self, x: Floats) -> Floats:
        """The laws at x, shape (points,) or (draws, points): errors of shape (draws, points)."""
        ratio = (x + self.shift[:, None]) / self.unit[:, None]
        power = ratio ** -self.law.alpha[:, None]
        return np.asarray(self.law.floor[:, None] + self.law.scale[:, None] * power, dtype=np.float64)


def fit_saturated(x: Floats, y: Floats, *, runs: NDArray[np.int64], floor: bool = True) -> SaturatedDraws:
    """Fits the law to many sets of y at once.

    Args:
        x: Shape (cells,), at least four distinct values (three without a floor); or (draws, cells).
        y: Shape (draws, cells).
        runs: Weights, shape (cells,) or (draws, cells).
        floor: Whether the law has one.
    """
    rows, x = np.arange(len(y)), np.broadcast_to(x, y.shape)
    tried = x.min(axis=1, keepdims=True) * _RATIOS
    for _ in range(_NARROWINGS):
        shifted = (x[:, None, :] + tried[:, :, None]).reshape(-1, x.shape[1])
        repeated = np.repeat(y, tried.shape[1], axis=0)
        weights = runs if runs.ndim == 1 else np.repeat(runs, tried.shape[1], axis=0)
        objectives = fit_draws(shifted, repeated, runs=weights, floor=floor).objective.reshape(tried.shape)
        # Between equals the smaller shift: what the data do not ask for is left out.
        best = (objectives <= objectives.min(axis=1, keepdims=True) * (1 + 1e-9)).argmax(axis=1)
        low = tried[rows, np.maximum(best - 1, 0)]
        high = tried[rows, np.minimum(best + 1, tried.shape[1] - 1)]
        shift = tried[rows, best]
        tried = np.sort(np.concatenate([np.linspace(low, high, 7, axis=1), shift[:, None]], axis=1), axis=1)
    shifted = x + shift[:, None]
    return SaturatedDraws(
        law=fit_draws(shifted, y, runs=runs, floor=floor),
        shift=shift,
        unit=np.exp(np.log(shifted).mean(axis=1)),
    )
