"""Time of trials, and time and money that a plan costs on the declared cluster, as ranges.

A trial starts up, trains and is evaluated. If the throughput of its architecture and strategy was measured,
by the user (``own_speeds``) or by others on the cluster's device (``throughput.csv``), the range of training
is that of the measurements. Otherwise it is FLOPs over the device's peak at a range of utilisation, the
declared one or the usual one, or the time of loading its samples with its cores if these are declared,
whichever takes longer. ``devices.json`` cites the sources. Without a cluster it is a factor of `_SPREAD`
around the time on one CPU core.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from budgets.declaration.recipe import Recipe
from budgets.declaration.rules import TrialResources
from budgets.declaration.sections import Cluster
from budgets.devices import find_device, measured_samples_per_s, start_seconds, usual_range
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Combination, Trial

_SECONDS_PER_HOUR = 3600
# Measured on a CPU core with small models: a cost per sample and a cost per FLOP; the start of a process.
_SECONDS_PER_SAMPLE, _FLOPS_PER_SECOND, _START_S = 60e-6, 150e9, 1.0
_SPREAD = 2.0  # factor of uncertainty of these
_FEW = 3  # measurements from which their own range is used
_SPREAD_OF_FEW, _SPREAD_OF_OTHERS = 1.25, 1.5

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

    def plus(self, more: float) -> "Range":
        """Return both values plus a number."""
        return Range(low=self.low + more, high=self.high + more)

    @property
    def middle(self) -> float:
        """The geometric mean of both values."""
        return math.sqrt(self.low * self.high)


def sum_of(spans: Sequence[Range]) -> Range:
    """Return the sum of the low values, and that of the high ones."""
    return Range(low=sum(span.low for span in spans), high=sum(span.high for span in spans))


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Cost of a plan.

    Attributes:
        device_hours: Hours of one device, summed over all trials, evaluations and charges.
        makespan_hours: Hours from start to end with trials side by side, longest first, after the charges.
        money: Device hours times the cluster's price, or None without one.
        measured: Number of trials whose throughput was measured.
        assumed: Number of the others.
    """

    device_hours: Range
    makespan_hours: Range
    money: Range | None
    measured: int
    assumed: int


def utilisation(cluster: Cluster) -> Range:
    """Return the utilisation range assumed without a measurement."""
    shares = cluster.utilisation or usual_range("utilisation")
    return Range(low=shares[0], high=shares[-1])


def is_measured(trial: Trial, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED) -> bool:
    """Return whether the trial's throughput was measured on the cluster's device, or here without one."""
    return _speeds(trial, cluster, own_speeds) is not None


def device_hours(trial: Trial, cluster: Cluster, own_speeds: Speeds = UNMEASURED) -> Range:
    """Device hours of a trial, summed over its devices.

    Recomputed forward passes take time, though they are not among the FLOPs that are recorded.
    """
    return wall_s(trial, cluster, own_speeds).times(trial.resources.devices / _SECONDS_PER_HOUR)


def wall_s(trial: Trial, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED) -> Range:
    """Return the seconds from a trial's start to its end."""
    return work_s(trial, cluster, own_speeds).plus(start_s(trial.resources.gpus, trial.recipe))


def work_s(trial: Trial, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED) -> Range:
    """Return the seconds of a trial's training and evaluation, which its devices share.

    What training loses by it was measured, or is ``cluster.scaling``.
    """
    training = training_s(trial, cluster, own_speeds)
    if cluster is None:
        return training
    return sum_of([training, _seconds(trial.evaluation_flops, cluster).times(1 / trial.resources.devices)])


def planned_range(middle_s: float) -> Range:
    """Return the range around a planned time of which only the middle is known."""
    return Range(low=middle_s / _SPREAD, high=middle_s * _SPREAD)


def start_s(gpus: int, recipe: Recipe) -> float:
    """Return the seconds of a trial before its first step."""
    return start_seconds(group=gpus > 1, compiled=recipe.compile) if gpus else _START_S


def training_s(trial: Trial, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED) -> Range:
    """Return the seconds of a trial's training on its devices."""
    samples, cores = trial.samples_seen - trial.shared_samples, trial.resources.cpus
    devices, kind = trial.resources.devices, trial.cell.combination
    measured = _speeds(trial, cluster, own_speeds)
    if measured is not None:
        slow, fast = measured
        alone = Range(low=samples / fast, high=samples / slow)
    elif cluster is None:
        per_sample = _SECONDS_PER_SAMPLE + trial.train_flops_per_sample / _FLOPS_PER_SECOND
        alone = Range(low=samples * per_sample / _SPREAD, high=samples * per_sample * _SPREAD)
    else:
        alone = _seconds(trial.paid_flops, cluster)
    shared = alone.times(relative_hours(trial.recipe, kind, devices, cluster, own_speeds) / devices)
    if measured is not None or not trial.resources.gpus or trial.resources.assumed:
        return shared
    slow, fast = (samples / speed / cores for speed in usual_range("loading"))
    return Range(low=max(shared.low, fast), high=max(shared.high, slow))


def kept_speed(
    combination: Combination, devices: int, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED
) -> float:
    """Return the share of one device's samples a second that each of several devices keeps.

    It is measured at this width or at the widest measured one below; each doubling beyond that keeps the
    share ``cluster.scaling``, or all of it without a cluster.
    """
    alone, width = own_speeds.get((*combination, 1)), devices
    if alone is None:
        width = 1
    elif (*combination, width) not in own_speeds:
        width = max(
            measured for *of, measured in own_speeds if tuple(of) == combination and measured < devices
        )
    share = 1.0 if alone is None else own_speeds[*combination, width] / width / alone
    scaling = 1.0 if cluster is None else cluster.scaling
    return share * float(scaling ** math.log2(devices / width))


def relative_hours(
    recipe: Recipe,
    combination: Combination,
    devices: int,
    cluster: Cluster | None,
    own_speeds: Speeds = UNMEASURED,
) -> float:
    """Return the device hours of training over those of one device that recomputes nothing."""
    return recipe.slowdown / kept_speed(combination, devices, cluster, own_speeds)


def price_plan(plan: Plan, cluster: Cluster, *, own_speeds: Speeds = UNMEASURED) -> Price:
    """Price a plan, given the user's own measurements on the cluster's device."""
    trials = plan.all_trials
    resources = [trial.resources for trial in trials]
    walls = [wall_s(trial, cluster, own_speeds).times(1 / _SECONDS_PER_HOUR) for trial in trials]
    hours = [wall.times(allocation.devices) for wall, allocation in zip(walls, resources, strict=True)]
    charged_flops = sum(charge.flops for charge in plan.charges)
    charges = _seconds(charged_flops, cluster).times(1 / _SECONDS_PER_HOUR)
    all_hours, rate = sum_of([*hours, charges]), cluster.price_per_hour
    side_by_side = ends(walls, held_devices(resources, cluster), cluster.count)

    # The later of two ends: of trials that share the devices, and of trials of a trunk, one after the other.
    def end(together: float, walls: list[float], of_charges: float) -> float:
        return max(together, _longest_trunk(trials, walls)) + of_charges / cluster.count

    low = end(side_by_side.low, [wall.low for wall in walls], charges.low)
    high = end(side_by_side.high, [wall.high for wall in walls], charges.high)
    measured = sum(is_measured(trial, cluster, own_speeds) for trial in trials)
    return Price(
        device_hours=all_hours,
        makespan_hours=Range(low=low, high=high),
        money=None if rate is None else all_hours.times(rate),
        measured=measured,
        assumed=len(trials) - measured,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingTrial:
    """What is left of a trial: its start-up, and its work as planned, before other trials were measured."""

    kind: Combination
    start_s: float
    work_s: Range

    @staticmethod
    def of(trial: Trial, cluster: Cluster | None, own_speeds: Speeds = UNMEASURED) -> "PendingTrial":
        """Return all of a trial."""
        return PendingTrial(
            kind=trial.cell.combination, start_s=start_s(trial.resources.gpus, trial.recipe),
            work_s=work_s(trial, cluster, own_speeds),
        )  # fmt: skip


Speed = tuple[Combination, float]
"""A kind, and a measured speed as a multiple of the planned one."""


def forecast(
    ahead: Iterable[PendingTrial], measured: Iterable[Speed] = (), *, slots: int = 1
) -> Range | None:
    """Forecast the seconds until the last trial ends, if ``slots`` run at once; None if none is left.

    The work of a kind that was measured goes from its highest to its lowest speed, widened by a factor of
    1.25 each way for one or two measurements. A kind that was not takes the speeds of all others, widened by
    1.5: machine and load are the same, the model is not. Without any measurement, the planned range holds.
    """
    speeds = defaultdict[Combination, list[float]](list)
    for kind, speed in measured:
        if speed > 0:  # 0: the trial resumed at its last step, which tells nothing
            speeds[kind].append(speed)
    every = [speed for of_kind in speeds.values() for speed in of_kind]

    def left(trial: PendingTrial) -> Range:
        of_kind, middle = speeds.get(trial.kind, []), trial.work_s.middle
        if not every:
            return trial.work_s.plus(trial.start_s)
        spread = _SPREAD_OF_OTHERS if not of_kind else 1.0 if len(of_kind) >= _FEW else _SPREAD_OF_FEW
        known = of_kind or every
        work = Range(low=middle / max(known) / spread, high=middle / min(known) * spread)
        return work.plus(trial.start_s)

    spans = list(map(left, ahead))
    return ends(spans, [1] * len(spans), slots) if spans else None


def ends(spans: Sequence[Range], held: Sequence[float | Fraction], count: int) -> Range:
    """Return when the last of some trials ends, each on so many of ``count`` devices; longest first."""
    return Range(
        low=makespan([span.low for span in spans], held, count),
        high=makespan([span.high for span in spans], held, count),
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


def _speeds(trial: Trial, cluster: Cluster | None, own_speeds: Speeds) -> tuple[float, float] | None:
    kind = trial.cell.combination
    if (*kind, 1) in own_speeds:
        return own_speeds[*kind, 1], own_speeds[*kind, 1]
    if cluster is None:
        return None
    return measured_samples_per_s().get((find_device(cluster.device).name, *kind))


def _seconds(flops: int, cluster: Cluster) -> Range:
    shares, at_peak = utilisation(cluster), flops / find_device(cluster.device).peak_flops
    return Range(low=at_peak / shares.high, high=at_peak / shares.low)
