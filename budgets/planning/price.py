"""Time and money that a plan costs on the declared cluster, as a range.

If the throughput of an architecture and strategy was measured on the device, by the user (``own``) or by
others (``throughput.csv``), the range is that of the measurements. Otherwise it is FLOPs over the device's
peak at a range of utilisation: the declared one, or the usual one (``devices.json`` cites its source).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from budgets.declaration import Cluster
from budgets.devices import device, measured_samples_per_s, usual_utilisation
from budgets.planning.plan import Plan, Trial

_SECONDS_PER_HOUR = 3600

Speeds = Mapping[tuple[str, str], float]
"""Measured samples a second of one device, by (architecture, strategy)."""

NOTHING: Speeds = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A lowest and a highest value."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Cost of a plan.

    Attributes:
        device_hours: Hours of one device, summed over all trials, evaluations and charges.
        makespan_hours: Hours from start to end with trials side by side, longest first, after the charges.
        money: Device hours times the cluster's price, or None without one.
        measured: Number of trials whose throughput was measured.
        assumed: Number of trials priced by utilisation.
    """

    device_hours: Range
    makespan_hours: Range
    money: Range | None
    measured: int
    assumed: int


def utilisation(cluster: Cluster) -> Range:
    """Return the utilisation range assumed without a measurement."""
    if cluster.utilisation is not None:
        return Range(low=cluster.utilisation[0], high=cluster.utilisation[1])
    usual = usual_utilisation()
    return Range(low=usual.low, high=usual.high)


def is_measured(trial: Trial, cluster: Cluster, own: Speeds = NOTHING) -> bool:
    """Return whether the trial's throughput was measured on the cluster's device."""
    return _speeds(trial, cluster, own) is not None


def device_hours(trial: Trial, cluster: Cluster, own: Speeds = NOTHING) -> Range:
    """Device hours of a trial and its evaluation, independent of how many devices share the trial."""
    evaluation = _hours(trial.evaluation_flops, cluster)
    speeds = _speeds(trial, cluster, own)
    if speeds is None:
        training = _hours(trial.train_flops, cluster)
    else:
        slow, fast = speeds
        training = Range(
            low=trial.samples_seen / fast / _SECONDS_PER_HOUR,
            high=trial.samples_seen / slow / _SECONDS_PER_HOUR,
        )
    return Range(low=training.low + evaluation.low, high=training.high + evaluation.high)


def price(plan: Plan, cluster: Cluster, *, devices_per_trial: int, own: Speeds = NOTHING) -> Price:
    """Price a plan.

    Args:
        plan: The plan.
        cluster: The cluster.
        devices_per_trial: Devices that each trial uses, at least one.
        own: The user's own measurements on the cluster's device.
    """
    hours = [device_hours(trial, cluster, own) for trial in plan.all_trials]
    charges = _hours(sum(each.train_flops + each.evaluation_flops for each in plan.charges), cluster)
    total = Range(
        low=sum(each.low for each in hours) + charges.low,
        high=sum(each.high for each in hours) + charges.high,
    )
    # Trials that run side by side.
    slots = max(1, cluster.count // devices_per_trial)
    span = Range(
        low=makespan((each.low / devices_per_trial for each in hours), slots) + charges.low / cluster.count,
        high=makespan((each.high / devices_per_trial for each in hours), slots)
        + charges.high / cluster.count,
    )
    rate = cluster.price_per_hour
    by_kind = Counter(is_measured(trial, cluster, own) for trial in plan.all_trials)
    return Price(
        device_hours=total,
        makespan_hours=span,
        money=None if rate is None else Range(low=total.low * rate, high=total.high * rate),
        measured=by_kind[True],
        assumed=by_kind[False],
    )


def makespan(durations: Iterable[float], slots: int) -> float:
    """Time until the last trial ends if the longest waiting one always starts on the next free slot.

    At most 4/3 of the optimum (Graham 1969).
    """
    waiting: Sequence[float] = sorted(durations, reverse=True)
    # A heap of the times at which slots become free; its first element is the earliest.
    ends = [0.0] * min(slots, max(1, len(waiting)))
    for duration in waiting:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def _speeds(trial: Trial, cluster: Cluster, own: Speeds) -> tuple[float, float] | None:
    kind = trial.cell.architecture, trial.cell.strategy
    if kind in own:
        return own[kind], own[kind]
    return measured_samples_per_s().get((device(cluster.device).name, *kind))


def _hours(flops: int, cluster: Cluster) -> Range:
    shares = utilisation(cluster)
    hours = flops / device(cluster.device).peak_flops / _SECONDS_PER_HOUR
    return Range(low=hours / shares.high, high=hours / shares.low)
