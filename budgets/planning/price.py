"""Time and money that a plan costs on the declared cluster, as a range.

If the throughput of an architecture and strategy was measured on the device, by the user (``own_speeds``) or
by others (``throughput.csv``), the range is that of the measurements. Otherwise it is FLOPs over the device's
peak at a range of utilisation: the declared one, or the usual one (``devices.json`` cites its source).
"""

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Cluster
from budgets.devices import find_device, measured_samples_per_s, usual_utilisation
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Combination, Trial

_SECONDS_PER_HOUR = 3600

Speeds = Mapping[tuple[str, str, int], float]
"""Measured samples a second on one kind of device, without recomputation.

By (architecture, strategy, devices): those of all the devices of a trial together.
"""

UNMEASURED: Speeds = MappingProxyType({})
"""No measurements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A lowest and a highest value."""

    low: float
    high: float

    def times(self, factor: float) -> "Range":
        """Return both values times a factor."""
        return Range(low=self.low * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Cost of a plan.

    Attributes:
        device_hours: Hours of one device, summed over all trials, evaluations and charges.
        makespan_hours: Hours from start to end with trials side by side, longest first, after the charges.
        money: Device hours times the cluster's price, or None without one.
        measured: Number of trials whose throughput was measured.
    """

    device_hours: Range
    makespan_hours: Range
    money: Range | None
    measured: int
    assumed: int


def utilisation(cluster: Cluster) -> Range:
    """Return the utilisation range assumed without a measurement."""
    shares = cluster.utilisation or usual_utilisation()
    return Range(low=shares[0], high=shares[-1])


def is_measured(trial: Trial, cluster: Cluster, own_speeds: Speeds = UNMEASURED) -> bool:
    """Return whether the trial's throughput was measured on the cluster's device."""
    return _speeds(trial, cluster, own_speeds) is not None


def device_hours(trial: Trial, cluster: Cluster, own_speeds: Speeds = UNMEASURED) -> Range:
    """Device hours of a trial and its evaluation, summed over its devices.

    Recomputed forward passes take time, though they are not among the FLOPs that are booked. The user's own
    measurements are of one device, so the loss over several devices is added to them.
    """
    training = training_hours(trial, cluster, own_speeds)
    combination = trial.cell.combination
    # The usual utilisation, and others' measurements, already contain what is lost over several devices.
    devices = trial.resources.devices if (*combination, 1) in own_speeds else 1
    factor = relative_hours(trial.recipe, combination, devices, cluster, own_speeds)
    evaluation = _hours(trial.evaluation_flops, cluster)
    return Range(low=training.low * factor + evaluation.low, high=training.high * factor + evaluation.high)


def training_hours(trial: Trial, cluster: Cluster, own_speeds: Speeds = UNMEASURED) -> Range:
    """Hours of a trial's training on one device that recomputes nothing."""
    speeds = _speeds(trial, cluster, own_speeds)
    if speeds is None:
        return _hours(trial.paid_flops, cluster)
    slow, fast = speeds
    samples = trial.samples_seen - trial.shared_samples
    return Range(low=samples / fast / _SECONDS_PER_HOUR, high=samples / slow / _SECONDS_PER_HOUR)


def kept_speed(
    combination: Combination, devices: int, cluster: Cluster, own_speeds: Speeds = UNMEASURED
) -> float:
    """Return the share of one device's samples a second that each of several devices keeps.

    It is measured at this width or at the widest measured one below; each doubling beyond that keeps the
    share ``cluster.scaling``.
    """
    alone, width = own_speeds.get((*combination, 1)), devices
    if alone is None:
        width = 1
    elif (*combination, width) not in own_speeds:
        width = max(
            measured for *of, measured in own_speeds if tuple(of) == combination and measured < devices
        )
    kept = 1.0 if alone is None else own_speeds[*combination, width] / width / alone
    return kept * float(cluster.scaling ** math.log2(devices / width))


def relative_hours(
    recipe: Recipe, combination: Combination, devices: int, cluster: Cluster, own_speeds: Speeds = UNMEASURED
) -> float:
    """Return the device hours of training over those of one device that recomputes nothing."""
    return recipe.slowdown / kept_speed(combination, devices, cluster, own_speeds)


def price_plan(plan: Plan, cluster: Cluster, *, own_speeds: Speeds = UNMEASURED) -> Price:
    """Price a plan, given the user's own measurements on the cluster's device."""
    hours = [device_hours(trial, cluster, own_speeds) for trial in plan.all_trials]
    widths = [trial.resources.devices for trial in plan.all_trials]
    held = held_devices([trial.resources for trial in plan.all_trials], cluster)
    charges = _hours(sum(charge.flops for charge in plan.charges), cluster)
    total = Range(
        low=sum(span.low for span in hours) + charges.low,
        high=sum(span.high for span in hours) + charges.high,
    )

    # The later of two ends: of trials that share the devices, and of trials of a trunk, one after the other.
    def end(hours: list[float], of_charges: float) -> float:
        durations = [span / width for span, width in zip(hours, widths, strict=True)]
        trunk = _longest_trunk(plan.all_trials, durations)
        return max(makespan(durations, held, cluster.count), trunk) + of_charges / cluster.count

    low, high = (
        end([span.low for span in hours], charges.low),
        end([span.high for span in hours], charges.high),
    )
    rate = cluster.price_per_hour
    by_kind = Counter(is_measured(trial, cluster, own_speeds) for trial in plan.all_trials)
    return Price(
        device_hours=total,
        makespan_hours=Range(low=low, high=high),
        money=None if rate is None else Range(low=total.low * rate, high=total.high * rate),
        measured=by_kind[True],
        assumed=by_kind[False],
    )


def held_devices(trials: Sequence[TrialResources], cluster: Cluster) -> list[float | Fraction]:
    """Return the devices that each trial keeps from the others.

    Trials that are all alike are packed node by node: of 5 devices each, one fits on a node of 8, and keeps
    all 8; cores may leave room for fewer still. Trials of several kinds fill each other's gaps, so each keeps
    its own devices.
    """
    if len(set(trials)) != 1:
        return [resources.devices for resources in trials]
    alike, full = trials[0], cluster.node_gpus
    part = max(1, alike.devices // alike.nodes)
    rooms = [full] * (cluster.count // full) + [cluster.count % full]
    fit = sum(_fitting(room, part, alike.cpus // alike.nodes, cluster) for room in rooms) // alike.nodes
    return [Fraction(cluster.count, fit) if fit else alike.devices] * len(trials)


def _fitting(devices: int, part: int, cpus: int, cluster: Cluster) -> int:
    """Return how many parts of trials, of some devices and cores, fit on these devices of one node."""
    fit = devices // part
    if cluster.node_cpus is None or not cpus:
        return fit
    return min(fit, cluster.node_cpus * devices // cluster.node_gpus // cpus)


def makespan(durations: Sequence[float], widths: Sequence[float | Fraction], count: int) -> float:
    """Time until the last trial ends if the trials start by falling duration × width, each when it has room.

    Each trial needs ``widths`` of the ``count`` devices. One that has no room waits; those behind it may
    start. With equal widths, the result is at most 4/3 of the optimum (Graham 1969).
    """
    # One queue a width, longest first: if the first of a queue has no room, none of it has.
    queues: dict[float | Fraction, list[float]] = {}
    for duration, width in sorted(zip(durations, widths, strict=True)):
        queues.setdefault(min(width, count), []).append(duration)
    now, running = 0.0, list[tuple[float, float | Fraction]]()
    free: float | Fraction = count
    while queues or running:
        while ready := [width for width in queues if width <= free]:
            width = max(ready, key=lambda devices: (queues[devices][-1] * devices, devices))
            heapq.heappush(running, (now + queues[width].pop(), width))
            free -= width
            if not queues[width]:
                del queues[width]
        now, width = heapq.heappop(running)
        free += width
    return now


def _longest_trunk(trials: Sequence[Trial], durations: Sequence[float]) -> float:
    """Longest time from a trunk's start to the end of one of its trials, if no trial waits for devices."""
    # A trial starts when the shorter one of its trunk reaches its milestone. It reaches its own milestone
    # after this share of its duration: samples up to there over all samples that it sees itself.
    milestones: dict[str, float] = {}
    longest = 0.0
    for trial, duration in sorted(
        zip(trials, durations, strict=True), key=lambda item: (item[0].samples_seen, item[0].trial_id)
    ):
        begin = milestones.get(trial.previous, 0.0)
        longest = max(longest, begin + duration)
        until = trial.milestone_step * trial.batch_size - trial.shared_samples
        share = until / (trial.samples_seen - trial.shared_samples)
        milestones[trial.trial_id] = begin + duration * share
    return longest


def _speeds(trial: Trial, cluster: Cluster, own_speeds: Speeds) -> tuple[float, float] | None:
    kind = trial.cell.combination
    if (*kind, 1) in own_speeds:
        return own_speeds[*kind, 1], own_speeds[*kind, 1]
    return measured_samples_per_s().get((find_device(cluster.device).name, *kind))


def _hours(flops: int, cluster: Cluster) -> Range:
    shares = utilisation(cluster)
    hours = flops / find_device(cluster.device).peak_flops / _SECONDS_PER_HOUR
    return Range(low=hours / shares.high, high=hours / shares.low)
