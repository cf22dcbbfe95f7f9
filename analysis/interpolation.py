"""A curve between the cells that were measured."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def straight_lines(x: Floats, error: Floats, at: Floats) -> Floats:
    """Join the cells of a curve by straight lines in ln x; beyond its ends, its ends are carried on.

    Args:
        x: Of at least one cell, rising, shape (cells,).
        error: Shape (rows, cells).
        at: Where to read them off, shape (points,).

    Returns:
        Errors of shape (rows, points).
    """
    log_x, log_at = np.log(x), np.log(at)
    right = np.clip(np.searchsorted(log_x, log_at, side="right"), 0, len(log_x) - 1)
    left = np.maximum(right - 1, 0)
    width = np.maximum(log_x[right] - log_x[left], 1e-300)
    share = np.clip((log_at - log_x[left]) / width, 0.0, 1.0)
    return np.asarray(error[:, left] + share * (error[:, right] - error[:, left]), dtype=np.float64)
