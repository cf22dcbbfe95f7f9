"""Expected gains of further runs: how far they would lower the doubt about the best, or narrow a forecast.

The belief is given as joint draws of the true errors, curve by curve independent. A further run of one cell
is told from them by linear regression: of the error t that is asked for on the mean y of the runs, normal
in both.

* ``best``: naming configuration k is right if no other is lower by more than the indifference. Whether the
  curve of the run is right, and each of the likeliest others, depends on t alone, through functions that all
  draws estimate. The gain is the mean over y of the largest probability of being right, less the largest mean
  probability: the drop in the probability of naming a wrong best (the knowledge gradient, Frazier et al.
  2008). It is flat where no single run can unseat the leader. There the gain is the drop in p(1 − p), p the
  probability that the leader is right, which is the variance of p over y.
* ``forecast``: the share of the variance of the forecast that the run would remove, Cov²/(Var y · Var
  forecast).
"""

import numpy as np

from analysis.arrays import Floats, Indices

_LEADERS = 3
_TABLE = 65
_UNLIKELY = 1e-3
# Results in standard deviations, with their weights: a doubtful configuration wins by a result far out.
_OUTCOMES = np.linspace(-3.2, 3.2, 17)
_WEIGHTS = np.exp(-(_OUTCOMES**2) / 2) / np.exp(-(_OUTCOMES**2) / 2).sum()
_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(5)


def right(values: Floats, indifference: float) -> tuple[Floats, Floats]:
    """Return the probability that each curve is the best, and that it is so within the indifference.

    Args:
        values: Draws of the error at the compute that is asked for, shape (draws, curves); infinite for
            curves that do not reach it.
        indifference: Difference in error that does not matter.
    """
    best = np.bincount(values.argmin(axis=1), minlength=values.shape[1]) / len(values)
    return best, (values <= values.min(axis=1, keepdims=True) + indifference).mean(axis=0)


def best_gains(  # noqa: PLR0913 (a belief, options and what counts)
    values: Floats, draws: Floats, variance: Floats, curve: Indices, point: Indices, *, indifference: float
) -> Floats:
    """Return the drop in the probability of naming a wrong best that each option brings.

    Args:
        values: As in ``right``.
        draws: Draws of the errors of all points, shape (draws, curves, points).
        variance: Variance of the mean of the runs of each option, shape (options,).
        curve: Curve of each option.
        point: Point of each option.
        indifference: Difference in error that does not matter.
    """
    gains = np.zeros(len(curve))
    count = values.shape[1]
    likely = right(values, indifference)[1]
    leaders = np.argsort(-likely, kind="stable")[:_LEADERS]
    first = values.argmin(axis=1)
    lowest = values.min(axis=1)
    second = np.partition(values, 1, axis=1)[:, 1] if count > 1 else np.full(len(values), np.inf)
    for each in np.unique(curve):
        if likely[each] < _UNLIKELY or not np.isfinite(values[0, each]):
            continue
        others = np.where(first == each, second, lowest)
        here = np.flatnonzero(curve == each)
        asked = _trimmed(values[:, each])
        table = np.quantile(asked, np.linspace(0, 1, _TABLE))
        # Right: the curve itself if the lowest other is not below t − indifference ...
        functions = [1 - np.searchsorted(np.sort(others), table - indifference) / len(others)]
        for leader in leaders[leaders != each]:
            error = values[:, leader]
            # ... and another if it is within the indifference of the lowest other and of t.
            error = np.sort(error[error <= others + indifference])
            functions.append(np.searchsorted(error - indifference, table, side="right") / len(others))
        slope, left = _regress(asked, draws[:, each, :][:, point[here]], variance[here])
        middle = asked.mean() + slope[:, None] * _OUTCOMES
        at = middle[..., None] + left[:, None, None] * _NODES
        told = np.array([np.interp(at, table, one) @ _SHARES for one in functions]) / _SHARES.sum()
        mean = told @ _WEIGHTS
        lead = told[0 if each == leaders[0] else 1]
        doubt = (lead - (lead @ _WEIGHTS)[:, None]) ** 2 @ _WEIGHTS
        gains[here] = np.maximum(told.max(axis=0) @ _WEIGHTS - mean.max(axis=0), doubt)
    return gains


def forecast_gains(
    forecast: Floats, draws: Floats, variance: Floats, curve: Indices, point: Indices
) -> Floats:
    """Return the share of the variance of a forecast, shape (draws,), that each option would remove.

    The other arguments are those of ``best_gains``.
    """
    asked = _trimmed(forecast)
    told = asked - asked.mean()
    spread = float(told.var())
    if spread == 0:
        return np.zeros(len(curve))
    middle = np.clip(draws, *np.quantile(draws, (0.005, 0.995), axis=0))
    middle = middle - middle.mean(axis=0)
    covariance = np.einsum("s,scp->cp", told, middle) / len(told)
    # Chance correlations over n draws have a square of 1/n.
    squared = covariance[curve, point] ** 2 / (middle.var(axis=0)[curve, point] + variance) / spread
    return np.asarray(np.maximum(squared - 4 / len(told), 0.0), dtype=np.float64)


def settle(draws: Floats, curve: int, point: int, variance: float, generator: np.random.Generator) -> None:
    """Narrow draws, in place, as the expected result of a run would; its value moves no mean."""
    told = draws[:, curve, point]
    seen = told + np.sqrt(variance) * generator.standard_normal(len(told))
    off = _trimmed(seen) - seen.mean()
    of = draws[:, curve] - draws[:, curve].mean(axis=0)
    draws[:, curve] -= np.outer(off, off @ of / max(float(off @ off), 1e-300))


def _regress(asked: Floats, cells: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Return how far t moves per standard deviation of each y, and the deviation of t that is left."""
    cells = np.clip(cells, *np.quantile(cells, (0.005, 0.995), axis=0))
    told = np.sqrt(cells.var(axis=0) + variance)
    slope = (asked - asked.mean()) @ (cells - cells.mean(axis=0)) / len(asked) / told
    return slope, np.sqrt(np.maximum(asked.var() - slope**2, 1e-12))


def _trimmed(values: Floats) -> Floats:
    return np.clip(values, *np.quantile(values, (0.005, 0.995)))
