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


def time_left(
    rows: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, TrialState],
    running: Iterable[Running],
    measured: Iterable[tuple[str, float]],
    *,
    slots: int,
) -> Range | None:
    """Forecast the seconds until the last trial ends, if the longest starts first on the next free slot.

    Args:
        rows: Trial id → its row of `runners.results.PLAN_COLUMNS`.
        states: The trials' states; those that wait or run are ahead.
        running: Progress of the running trials.
        measured: Trials with their measured samples/s; those that are not among the rows do not count.
        slots: Number of trials that run at once.

    Returns:
        The range from each kind's highest to its lowest measured speed; widened by a factor of 1.25 each way
        for kinds with one or two measurements, and of 2 around the planned time for kinds without any. None
        if no trial is left.
    """
    # Speeds as multiples of the planned ones: rules may give trials of a kind different numbers of devices.
    speeds = defaultdict[tuple[str, str], list[float]](list)
    for trial, speed in measured:
        if row := rows.get(trial):
            speeds[row["architecture"], row["strategy"]].append(speed * _sample_s(row))
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
