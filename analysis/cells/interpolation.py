"""A curve between the cells that were measured."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SAME = 1e-9  # in ln x: nothing lies between cells of one x


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


def bends(x: Floats, error: Floats, at: Floats) -> Floats:
    """Return how far a curve may lie below the straight lines between its cells: what parabolas do.

    Args:
        x: Rising, shape (cells,).
        error: Shape (cells,).
        at: Shape (points,).

    Returns:
        Shape (2, points): of the parabola through the cell before each pair as well, and of that through the
        cell after it; NaN where there is no such cell, zero at and beyond the ends. Of two cells alone, an
        eighth of their fall at the middle.
    """
    if len(x) == 1:
        return np.zeros((2, len(at)))
    log_x, log_at = np.log(x), np.log(at)
    right = np.clip(np.searchsorted(log_x, log_at, side="right"), 1, len(x) - 1)
    reach = np.maximum(0.0, log_at - log_x[right - 1]) * np.maximum(0.0, log_x[right] - log_at)
    step = np.maximum(np.diff(log_x), _SAME)
    if len(x) == 2:  # noqa: PLR2004 (no third cell)
        return np.repeat([reach * (error[0] - error[1]) / (2 * step[0] ** 2)], 2, axis=0)
    second = np.diff(np.diff(error) / step) / np.maximum(log_x[2:] - log_x[:-2], _SAME)
    curvature = np.concatenate([[np.nan], second, [np.nan]])
    return np.asarray([curvature[right - 1] * reach, curvature[right] * reach], dtype=np.float64)
