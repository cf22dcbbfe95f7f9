"""Forecast of a study's remaining time as a range, from the measured speeds of its kinds of trials."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from budgets.planning.price import Range, makespan
from runners.trials.speed.throughput import START_S
from study.state.status.running import Running
from study.state.trial_states import TrialState

_FEW = 3  # measurements from which their own range is used
_SPREAD_OF_FEW = 1.25  # factor of uncertainty for fewer measurements
_SPREAD_UNMEASURED = 2.0  # the same without any


Speed = tuple[tuple[str, str], float]
"""Architecture and strategy, and a measured speed as a multiple of the planned one."""


def speed_of(row: Mapping[str, Any], samples_per_s: float) -> Speed:
    """Return the speed of a trial. Rules may give trials of a kind different numbers of devices.

    Args:
        row: The trial's row of `runners.results.PLAN_COLUMNS`.
        samples_per_s: Its measured samples a second.
    """
    return (row["architecture"], row["strategy"]), samples_per_s * _sample_s(row)


def time_left(
    rows: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, TrialState],
    running: Iterable[Running],
    measured: Iterable[Speed],
    *,
    slots: int,
) -> Range | None:
    """Forecast the seconds until the last trial ends, if the longest starts first on the next free slot.

    Args:
        rows: Trial id → its row of `runners.results.PLAN_COLUMNS`.
        states: The trials' states; those that wait or run are ahead.
        running: Progress of the running trials.
        measured: Speeds of trials, from `speed_of`; that of a trial that resumed at its last step is 0 and
            tells nothing.
        slots: Number of trials that run at once.

    Returns:
        The range from each kind's highest to its lowest measured speed; widened by a factor of 1.25 each way
        for kinds with one or two measurements, and of 2 around the planned time for kinds without any. None
        if no trial is left.
    """
    speeds = defaultdict[tuple[str, str], list[float]](list)
    for kind, speed in measured:
        if speed > 0:
            speeds[kind].append(speed)
    ranges = {
        kind: (min(found), max(found), 1.0 if len(found) >= _FEW else _SPREAD_OF_FEW)
        for kind, found in speeds.items()
    }
    seen = {each.trial: each.samples_seen for each in running}
    low, high = [], []
    for trial, row in rows.items():
        if states[trial].column not in {"waiting", "running"}:
            continue
        # The shorter trials of its trunk see the first samples for it.
        shared = _shared(row)
        done = seen.get(trial, states[trial].kept_steps * row["batch_size"])
        left = row["samples_seen"] - max(done, shared)
        found = ranges.get((row["architecture"], row["strategy"]))
        if found is not None:
            slowest, fastest, spread = found
            low.append(left * _sample_s(row) / fastest / spread)
            high.append(left * _sample_s(row) / slowest * spread)
        else:
            predicted_s = row["predicted_s"] * left / (row["samples_seen"] - shared)
            low.append(predicted_s / _SPREAD_UNMEASURED)
            high.append(predicted_s * _SPREAD_UNMEASURED)
    if not low:
        return None
    widths, slots = [1] * len(low), max(1, slots)
    return Range(low=makespan(low, widths, slots), high=makespan(high, widths, slots))


def _shared(row: Mapping[str, Any]) -> float:
    """Return the samples that the shorter trials of a trunk see for a trial."""
    return float((row["train_flops"] - row["paid_flops"]) // row["train_flops_per_sample"])


def _sample_s(row: Mapping[str, Any]) -> float:
    """Return the planned seconds of a sample on all devices of a trial."""
    return float((row["predicted_s"] - START_S) / (row["samples_seen"] - _shared(row)))
