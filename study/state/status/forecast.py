"""Forecast of a study's remaining time as a range, from the measured speeds of its kinds of trials."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from budgets.planning.price import Range, makespan
from runners.trials.speed.throughput import Kind

_FEW = 3  # measurements from which their own range is used
_SPREAD_OF_FEW = 1.25  # factor of uncertainty for fewer measurements
_SPREAD_UNMEASURED = 2.0  # the same without any


@dataclass(frozen=True, kw_only=True, slots=True)
class RemainingTrial:
    """The rest of a trial.

    Attributes:
        kind: Architecture and strategy.
        samples: Samples still to be seen.
        predicted_s: Planned seconds for them, used if the kind was not measured.
    """

    kind: Kind
    samples: int
    predicted_s: float


def rest_of(kind: Kind, *, samples: int, shared: int, seen: int, predicted_s: float) -> RemainingTrial:
    """Return the rest of a trial.

    Args:
        kind: Architecture and strategy.
        samples: Samples that the trial sees in all.
        shared: The first of them, which the shorter trials of its trunk see for it.
        seen: Samples seen so far.
        predicted_s: Planned seconds for those that the trial sees itself.
    """
    left = samples - max(seen, shared)
    return RemainingTrial(kind=kind, samples=left, predicted_s=predicted_s * left / (samples - shared))


def time_left(
    ahead: Iterable[RemainingTrial], speeds: Mapping[Kind, Sequence[float]], slots: int
) -> Range | None:
    """Forecast the seconds until the last trial ends, if the longest starts first on the next free slot.

    Args:
        ahead: The rest of each trial.
        speeds: Measured samples/s of each kind of trial.
        slots: Number of trials that run at once.

    Returns:
        The range from each kind's highest to its lowest measured speed; widened by a factor of 1.25 each way
        for kinds with one or two measurements, and of 2 for kinds without any. None if no trial is left.
    """
    low, high = [], []
    for each in ahead:
        found = sorted(speeds.get(each.kind, ()))
        if found:
            spread = 1.0 if len(found) >= _FEW else _SPREAD_OF_FEW
            low.append(each.samples / found[-1] / spread)
            high.append(each.samples / found[0] * spread)
        else:
            low.append(each.predicted_s / _SPREAD_UNMEASURED)
            high.append(each.predicted_s * _SPREAD_UNMEASURED)
    if not low:
        return None
    widths, slots = [1] * len(low), max(1, slots)
    return Range(low=makespan(low, widths, slots), high=makespan(high, widths, slots))
