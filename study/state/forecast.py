"""How long the rest of a study takes: a range, from the speeds at which its kinds of trials ran."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from budgets.planning.price import Range, makespan
from runners.trials.throughput import Kind

_FEW = 3
_SPREAD_OF_FEW = 1.25  # of a speed that was measured once or twice
_SPREAD_UNMEASURED = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """What is left of a trial.

    Attributes:
        kind: Its architecture and strategy.
        samples: Samples that it has still to see.
        predicted_s: Seconds for them as planned, where its kind was not measured.
    """

    kind: Kind
    samples: int
    predicted_s: float


def time_left(ahead: Iterable[Ahead], speeds: Mapping[Kind, Sequence[float]], slots: int) -> Range | None:
    """Forecasts the seconds until the last trial ends, longest first on the next free slot.

    Args:
        ahead: What is left of each trial.
        speeds: Samples a second at which trials of a kind ran.
        slots: Trials that run at once.

    Returns:
        From the fastest to the slowest that each kind ran at, 25 % either way where that is known from one
        or two trials, twice either way where it is not; None where nothing is left.
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
