"""The map from trunks' states to the errors after their cooldowns, as the belief of a family has it.

A cooled run that has its trunk's state is compared with what the belief predicts for it from everything but
the cooled runs of its curve.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.arrays import Floats
from analysis.belief.family import Family, families
from analysis.cells.intervals import QUANTILE
from analysis.cells.table import CELL, Trials, records, tidy
from runners.results import AVERAGE

_RUN = ("trial", "family", "error")
_PREDICTED = ("trunk_error", "predicted", "low", "high", "residual")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrunkMap:
    """The map of a family.

    Attributes:
        pairs: One row per cooled run with its trunk's state: ``trial``, the columns of ``CELL``, ``family``
            (of the architecture), ``seed``, ``trunk_error``, ``error``, ``predicted`` (its error without the
            cooled runs of its curve), its 90 % interval ``low`` and ``high``, and ``residual``.
        middle: Mean error of the states measured.
        gain: Draws of how far the error falls in a cooldown from there, shape (draws,).
        slope: Draws of the change of that for one unit of the state's error, shape (draws,).
        learned: True if states count as runs, see `Family.learned`.
    """

    pairs: pd.DataFrame
    middle: float
    gain: Floats
    slope: Floats
    learned: bool

    def cooled(self, at: Floats) -> Floats:
        """Return draws of the error after a cooldown from states of some errors, shape (draws, states)."""
        return np.asarray(at - self.gain[:, None] - self.slope[:, None] * (at - self.middle))

    @property
    def miss(self) -> float:
        """Root mean square of the residuals; NaN without pairs."""
        return float(np.sqrt((self.pairs["residual"] ** 2).mean()))


def trunk_map(family: Family, trials: Trials) -> TrunkMap | None:
    """Return the map of a family; None if no state of a trunk was measured."""
    points = family.x.shape[1]
    seen = family.measured.runs[:, points:] > 0
    if not seen.any():
        return None
    cooled, states = (half[:, seen] for half in np.split(family.belief.draws, [points], axis=2))
    middle = float(states.mean())
    off, gain = states - middle, states - cooled
    apart = off - off.mean(axis=1, keepdims=True)
    slope = (apart * gain).sum(axis=1) / np.maximum((apart**2).sum(axis=1), 1e-12)
    return TrunkMap(
        pairs=_pairs(family, trials), middle=middle, gain=gain.mean(axis=1) - slope * off.mean(axis=1),
        slope=slope, learned=family.learned,
    )  # fmt: skip


def _pairs(family: Family, trials: Trials) -> pd.DataFrame:
    names, rows = [*CELL, "seed"], []
    states = trials.trunks.set_index(names)["error"]
    for run in records(trials.sound[[*names, *_RUN]]):
        place, key = family.place_of.get(run["trial"]), tuple(run[name] for name in names)
        if place is None or key not in states.index:
            continue
        (curve, point), state = place, float(states[key])
        both = family.measured.errors[curve][:, [point, point + family.x.shape[1]]]
        unit = int((both == [run["error"], state]).all(axis=1).argmax())
        miss, deviation = family.belief.beside[:, curve, unit, point].tolist()
        predicted, reach = run["error"] - miss, QUANTILE * deviation
        rows.append(run | {
            "trunk_error": state, "predicted": predicted, "low": predicted - reach,
            "high": predicted + reach, "residual": miss,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=[*names, *_RUN, *_PREDICTED])


def weights_miss(results: pd.DataFrame, plan: pd.DataFrame, metric: str) -> float:
    """Return `TrunkMap.miss` for the weights of trunks, where their averages were measured as well."""
    trials = tidy(results.drop(columns=metric + AVERAGE), metric=metric)
    maps = (trunk_map(family, trials) for family in families(trials, plan).values())
    return next(fitted.miss for fitted in maps if fitted is not None)
