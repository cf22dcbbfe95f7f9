"""Sweeps in a table of results: one trial of the best run of each cell, without the bias of choosing it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from analysis.arrays import Floats, Indices, Mask
from analysis.cells.study_frames import TUNED_COLUMN
from analysis.cells.sweep_surface import Surface
from analysis.cells.table import CELL, READING_ERROR, budgets, group_numbers
from analysis.error_unit import ErrorUnit, is_loss
from budgets.quantity import plural

_DRAWS, _FEWEST, _WIDEST = 300, 4, 3.0
"""Draws; runs of a cell, and widest interval in deviations of the table, with which an optimum is shown."""
_LIKELY = 0.8
_WORTH = 0.005
"""Smallest expected loss that is flagged: half a point, or this share of a loss."""
_FAR = 10.0
"""Height above the best of the cell, in median heights, from which a run counts as diverged."""


def choose(frame: pd.DataFrame, *, metric: str, mean: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reduce the runs of each cell to one trial: the best, or with the mean of all.

    Settings with several seeds are compared by their mean, and the best keep one trial of each seed.

    Args:
        frame: All runs in the results schema, with their hyper-parameters in columns ``tuned_<name>``.
        metric: Column that is compared.
        mean: Take the mean of a cell's runs instead of the best.

    Returns:
        The frame, in which all other runs have failed, with the reason, and the reading error of a trial is
        the standard error of its corrected value; and one row per cell: the columns of ``CELL``, ``trial``,
        ``runs``, ``diverged``, ``best`` (its error as measured), ``error`` (without the bias of choosing it),
        ``standard_error`` (NaN if the table has too few runs to tell), ``bias``, each ``tuned_<name>``; of
        numbers ``<name>_optimum`` with its 90 % interval ``<name>_low`` to ``<name>_high`` (NaN where the
        runs do not show it); and ``flag``, why the cell looks undertuned.
    """
    fields = [str(name) for name in frame.columns if str(name).startswith(TUNED_COLUMN)]
    frame = frame.reset_index(drop=True).astype({metric: np.float64})
    started = frame[frame["status"] == "finished"]
    started = started.assign(budget=budgets(started))
    number = group_numbers(started, CELL)
    ended = started[metric].notna().to_numpy()
    lost = np.bincount(number, ~ended)
    there, cell = np.unique(number[ended], return_inverse=True)
    runs = started[ended]
    error = runs[metric].to_numpy(np.float64)
    error = error if is_loss(metric) else 1.0 - error
    sweeps = _Sweeps(runs, error, cell, fields, metric)
    setting = group_numbers(runs.assign(cell=cell), ["cell", *fields])
    tried = []
    name = f"{metric.rpartition('/')[0]}/{READING_ERROR}"
    frame[name] = frame.get(name, 0.0)
    left = np.isin(number, there) | pd.Series(number).duplicated().to_numpy()
    frame.loc[started.index[left], ["status", "reason"]] = [
        "failed", "in the mean of its sweep" if mean else "not the best run of its sweep"
    ]  # fmt: skip
    frame.loc[started.index[left & ~ended], "reason"] = "no number, in a sweep"
    for place, rows in enumerate(sweeps.rows):
        means = pd.Series(error[rows]).groupby(setting[rows]).transform("mean").to_numpy()
        same = rows[setting[rows] == setting[rows[np.argmin(means)]]]
        best, chosen = (error[rows].mean(), rows[:1]) if mean else (means.min(), same)
        value, spread = best, sweeps.spread(rows) if mean else np.nan
        if sweeps.surface.known and not mean:
            expected, covariance = sweeps.surface.at(place, sweeps.x[chosen[:1]])
            value, spread = float(expected[0]), float(np.sqrt(covariance[0, 0]))
        away = int(lost[there[place]])
        tried.append({
            **runs.iloc[chosen[0]][[*CELL, "trial"]], "runs": len(rows) + away,
            "diverged": int(sweeps.far[rows].sum()) + away, "best": best, "error": value,
            "standard_error": spread, "bias": value - best,
            **({} if mean else sweeps.optimum(place, chosen[0])),
        })  # fmt: skip
        used = runs.index[chosen]
        moved = (np.full(1, value) if mean else error[chosen] + value - best).clip(0.0)
        frame.loc[used, metric] = moved if is_loss(metric) else 1.0 - moved.clip(max=1.0)
        frame.loc[used, name] = np.hypot(frame.loc[used, name], np.nan_to_num(spread) * np.sqrt(len(chosen)))
        frame.loc[used, ["status", "reason"]] = ["finished", ""]
    return frame, pd.DataFrame(tried)


class _Sweeps:
    """Runs with a number, the surface over them, and what each cell's runs show."""

    def __init__(
        self, runs: pd.DataFrame, error: Floats, cell: Indices, fields: Sequence[str], metric: str
    ) -> None:
        self._runs, self._fields = runs, fields
        self._numbers = [name for name in fields if is_numeric_dtype(runs[name])]
        values = [_positive(runs[name].to_numpy(np.float64)) for name in self._numbers]
        logs = np.log(np.reshape(values, (len(values), len(runs))))
        self._middle, self._unit = np.median(logs, axis=1), _unit(logs.T)
        names = [_indicators(runs[name]) for name in fields if name not in self._numbers]
        self.x = np.column_stack([(logs.T - self._middle) / self._unit, *names])
        self.rows = [np.flatnonzero(cell == place) for place in range(1 + cell.max(initial=-1))]
        squares = sum(((error[rows] - error[rows].mean()) ** 2).sum() for rows in self.rows)
        self._variance = squares / max(len(error) - len(self.rows), 1)
        first = runs.iloc[[rows[0] for rows in self.rows]]
        known = np.log(first[["train_flops_per_sample", "samples_seen"]].to_numpy(np.float64))
        known = np.c_[known, _indicators(first["strategy"])]
        known = (known - known.mean(axis=0)) / _unit(known)
        self.surface = Surface(
            cell, self.x, error, np.c_[np.ones(len(known)), known], numbers=len(self._numbers)
        )
        self._curvatures = self.surface.curvatures(_DRAWS) if self.surface.known else np.empty(0)
        height = self.surface.height
        self.far: Mask = height > _FAR * np.median(height[height > 0]) if height.any() else height > 0
        self._unit_of = ErrorUnit.of(metric)
        self._worth = _WORTH * (float(np.median(error)) if is_loss(metric) else 1.0)

    def spread(self, rows: Indices) -> float:
        """Return the standard error of the mean of a cell's runs, by the noise of all cells."""
        return float(np.sqrt(self._variance / len(rows)))

    def optimum(self, cell: int, chosen: int) -> dict[str, Any]:
        """Return the chosen settings, the optimum of each number, and why the cell looks undertuned."""
        rows, count = self.rows[cell], len(self._numbers)
        settings = {name: self._runs[name].iloc[chosen] for name in self._fields}
        flags = []
        if self.far[rows].sum() == len(rows) - 1 > 0:
            flags.append(f"all of its {plural(len(rows), 'run')} but one diverged")
        if not self.surface.known or not count:
            return {**settings, "flag": "; ".join(flags)}
        tried = self.x[rows, :count]
        places, losses = self._drawn(cell, tried)
        if np.quantile(losses, 0.1) > self._worth:
            values = np.exp(np.median(places, axis=0) * self._unit + self._middle)
            named = zip(self._numbers, values, strict=True)
            where = ", ".join(f"{name.removeprefix(TUNED_COLUMN)} {value:.2g}" for name, value in named)
            flags.append(
                f"no run near {where}, the optimum by all cells; expected loss "
                f"{self._unit_of.gap(float(np.median(losses)))}"
            )
        for place, name in enumerate(self._numbers):
            short = name.removeprefix(TUNED_COLUMN)
            ends = np.quantile(places[:, place], [0.05, 0.5, 0.95])
            told = len(rows) >= _FEWEST and ends[2] - ends[0] < _WIDEST
            texts = np.exp(ends * self._unit[place] + self._middle[place]) if told else [np.nan] * 3
            settings |= dict(zip((f"{short}_low", f"{short}_optimum", f"{short}_high"), texts, strict=True))
            at, low, high = self.x[chosen, place], tried[:, place].min(), tried[:, place].max()
            for edge, sign, word in ((low, -1.0, "lowest"), (high, 1.0, "highest")):
                beyond = sign * (places[:, place] - edge)
                gain = float(np.median(0.5 * self._curvatures[:, place, place] * beyond.clip(0.0) ** 2))
                if low < high and at == edge and (beyond > 0).mean() > _LIKELY and gain > self._worth:
                    flags.append(
                        f"the best {short} is the {word} tried, and the {self._unit_of.word} still falls "
                        f"there, by about {self._unit_of.gap(gain)}"
                    )
        return {**settings, "flag": "; ".join(flags)}

    def _drawn(self, cell: int, tried: Floats) -> tuple[Floats, Floats]:
        """Return draws of a cell's optimum, and of the loss to it of the nearest run."""
        slopes = np.random.default_rng(1).multivariate_normal(*self.surface.slopes(cell), size=_DRAWS)
        value, vector = np.linalg.eigh(self._curvatures)
        rises = value.min(axis=1) > 0
        value = np.where(rises[:, None], value, value.clip(1e-3 * value.max()))
        shift = np.einsum("sde,se,sfe,sf->sd", vector, 1 / value, vector, slopes)
        places = self.surface.centre(cell) - shift
        apart = tried - places[:, None]
        losses = 0.5 * np.einsum("snd,sde,sne->sn", apart, self._curvatures, apart).min(axis=1)
        return places, np.where(rises, losses, 0.0)


def _indicators(names: "pd.Series[str]") -> Floats:
    """Return 0 or 1 for each name but the first, shape (rows, names - 1)."""
    codes, known = pd.factorize(names)
    return np.asarray(codes[:, None] == np.arange(1, len(known)), dtype=np.float64)


def _positive(values: Floats) -> Floats:
    """Return values whose logarithms exist: zeros, as of a weight decay, below the least other value."""
    least = values[values > 0].min(initial=np.inf)
    return np.where(values > 0, values, least / 2.0 if np.isfinite(least) else 1.0)


def _unit(columns: Floats) -> Floats:
    """Return the deviation of each column, 1 for a constant."""
    spread = columns.std(axis=0)
    return np.where(spread > 0, spread, 1.0)
