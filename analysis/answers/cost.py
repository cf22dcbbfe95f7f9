"""The cost of a study: FLOPs by budget level from its plan and its book, and time from its events."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan

import numpy as np
import pandas as pd

from analysis.cells.table import budgets, of_trunks, records
from analysis.labels import budget_text, with_regime
from budgets.planning.facts import ScoreCost
from budgets.planning.plan import AGAIN
from budgets.quantity import format_flops, format_share
from runners.results import ENDS, STARTS, TUNING_STARTED

_NOTABLE = 0.01  # share of the study's compute
_TWO_DIGITS = 0.1  # from this share on, whole percent have them
_PAID = ("spent_flops", "wasted_flops")
_SPENT_COLUMNS = ("spent", "wasted", "evaluation", "hours")
TUNING, EARLIER = "tuning", "earlier declarations"
"""Levels of trials that the plan lacks: those of a tuning, and those of the declaration before an edit."""
# Recorded just before a run starts; counting them would lengthen the run before.
_BESIDE = (AGAIN, "node-left-out")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTime:
    """The time that the runs of a study took, and the part of it that trials used.

    Attributes:
        wall_s: Seconds from the start of each tuning and each grid to its last event, summed.
        busy_s: Seconds in which trials ran, failed attempts included.
        slot_s: Slot seconds: number of slots at each time × seconds.
        slots: Largest number of slots.
    """

    wall_s: float
    busy_s: float
    slot_s: float
    slots: int

    @property
    def busy(self) -> float | None:
        """Share of the slot seconds in which a trial ran; None without slot seconds."""
        # A lost node is recorded a moment before the trials on it, so the share may exceed 1.
        return min(1.0, self.busy_s / self.slot_s) if self.slot_s > 0 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Totals of a study; FLOPs are training FLOPs, as ``status`` and the study budget count them.

    Attributes:
        planned_flops: FLOPs of all planned trials, of the tuning as far as it was paid, and of charges.
        spent_flops: FLOPs of trials, waste included, and of quality scores if the budget counts them.
        wasted_flops: The part of ``spent_flops`` that was lost with failed attempts.
        evaluation_flops: Forward FLOPs of evaluations, which no budget counts.
        budget_flops: Declared cap on ``spent_flops``; NaN without one.
        device_hours: Hours in trials, lost attempts included, times the devices of each; NaN without events.
        price: Price of the device hours; NaN if no price is declared.
        time: Time that the runs took; NaN without events.
    """

    planned_flops: float
    spent_flops: float
    wasted_flops: float
    evaluation_flops: float
    budget_flops: float
    device_hours: float
    price: float
    time: RunTime


def totals(
    levels: pd.DataFrame,
    events: pd.DataFrame,
    *,
    budget_flops: float | None = None,
    price_per_hour: float | None = None,
) -> Cost:
    """Sum up the table of `by_level`, and events; the price is for one device and hour."""
    planned, spent, wasted, evaluation, hours = (
        float(levels[name].sum()) for name in ("planned", *_SPENT_COLUMNS)
    )
    hours = hours if len(events) else float("nan")
    return Cost(
        planned_flops=planned,
        spent_flops=spent,
        wasted_flops=wasted,
        evaluation_flops=evaluation,
        budget_flops=float(budget_flops) if budget_flops is not None else float("nan"),
        device_hours=hours,
        price=float("nan") if price_per_hour is None else hours * price_per_hour,
        time=run_time(events),
    )


def trial_hours(events: pd.DataFrame) -> dict[str, float]:
    """Return the device hours of each trial over all its attempts.

    An attempt without an end, as of a driver that was killed, counts until the last event of its run.
    """
    if events.empty or "trial" not in events:
        return {}
    hours = defaultdict[str, float](float)
    for _, phase in phases(events.reindex(columns=["time", "event", "trial", "wall_s", "devices"])):
        open_: dict[str, tuple[float, float]] = {}
        for time, event, trial, seconds, devices in phase.itertuples(index=False, name=None):
            if event == "trial-started":
                open_[trial] = time, devices
            elif event in ENDS and not isnan(seconds):
                hours[trial] += seconds * open_.pop(trial, (time, 1.0))[1] / 3600
        last = phase["time"].max()
        for trial, (time, devices) in open_.items():
            hours[trial] += (last - time) * devices / 3600
    return dict(hours)


def run_hours(results: pd.DataFrame, events: pd.DataFrame) -> dict[str, float]:
    """Return the device hours that each trial takes as a run of its own.

    A branch continues its trunk from a milestone. The part of the trunk up to there is added, as long as it
    took the trials that trained it: the next shorter branches, or trials that end at the milestones.
    """
    by_trial = trial_hours(events)
    if not by_trial or "trunk" not in results:
        return by_trial
    hours = dict(by_trial)
    branches = results[(results["trunk"].fillna("") != "") & (results["train_flops"] > 0)]
    starts = branches["train_flops"] - branches["paid_flops"]
    branches = branches.assign(start=starts, longer=of_trunks(branches)).sort_values(["start", "longer"])
    for _, trunk in branches.groupby("trunk"):
        shared = start = per_flop = 0.0
        for trial, flops, paid in trunk[["trial", "train_flops", "paid_flops"]].itertuples(index=False):
            shared += (flops - paid - start) * per_flop
            start, per_flop = flops - paid, by_trial.get(trial, 0.0) / paid
            if trial in by_trial:
                hours[trial] += shared if start else 0.0
    return hours


def phases(events: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the events of each run or tuning with its number from 1; 0 has those before the first."""
    counted = events[~events["event"].isin(_BESIDE)]
    for number, phase in counted.groupby(counted["event"].isin(STARTS).cumsum()):
        yield int(str(number)), phase


def run_time(events: pd.DataFrame, *, now: float | None = None) -> RunTime:
    """Sum up the times of the events of all runs, in order.

    ``now`` is the current time in seconds since 1970 if the last run is still going; None if it has ended.
    """
    if events.empty or "slots" not in events:
        return RunTime(wall_s=float("nan"), busy_s=float("nan"), slot_s=0.0, slots=0)
    wall = busy = slot = 0.0
    runs = int(events["event"].isin(STARTS).sum())
    for number, counted in phases(events.reindex(columns=["time", "event", "trial", "slots", "wall_s"])):
        if not number:
            continue
        last = float(counted["time"].max())
        if now is not None and number == runs:
            last = max(last, now)
        wall += last - float(counted["time"].min())
        at = counted.dropna(subset=["slots"])
        until = np.append(at["time"].to_numpy(np.float64)[1:], last)
        slot += float((at["slots"].to_numpy(np.float64) * (until - at["time"].to_numpy(np.float64))).sum())
        ended = counted[counted["event"].isin(ENDS)]
        changes = counted[counted["event"].isin([*ENDS, "trial-started"])]
        latest = changes.drop_duplicates("trial", keep="last")
        running = latest[latest["event"] == "trial-started"]
        busy += float(ended["wall_s"].sum()) + float((last - running["time"]).sum())
    return RunTime(wall_s=wall, busy_s=busy, slot_s=slot, slots=int(events["slots"].max()))


def tuning_trials(events: pd.DataFrame) -> set[str]:
    """Return the trials that ran in a tuning."""
    if events.empty or "trial" not in events:
        return set()
    return {
        str(trial)
        for _, phase in phases(events)
        if phase["event"].iloc[0] == TUNING_STARTED
        for trial in phase["trial"].dropna()
    }


def by_level(plan: pd.DataFrame, spent: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return training FLOPs and hours by budget level.

    Charges, tuning trials and trials of earlier declarations, which are not in the plan, have rows of their
    own.

    Returns:
        Columns ``level`` (text, with the regime if there are several), ``trials``, ``planned``, ``spent``
        (waste included), ``wasted``, ``evaluation`` (forward FLOPs) and ``hours`` (of devices).
    """
    columns = ["level", "trials", "planned", *_SPENT_COLUMNS]
    if "trial" not in plan:
        return pd.DataFrame(columns=columns)
    planned = pd.DataFrame({
        "trial": plan["trial"].to_numpy(object), "regime": plan["regime"].to_numpy(object),
        "budget": budgets(plan), "planned": plan["paid_flops"].to_numpy(np.float64),
    })  # fmt: skip
    charges, attempts = spent[spent["charge"]], spent[~spent["charge"]]
    of_trial = {
        "spent": _by_what(attempts, *_PAID),
        "wasted": _by_what(attempts, "wasted_flops"),
        "evaluation": _by_what(attempts, "evaluation_flops"),
        "hours": trial_hours(events),
    }
    for kind, known in of_trial.items():
        planned[kind] = planned["trial"].map(known).fillna(0.0)
    rows, several = [], len(planned["regime"].unique()) > 1
    for (regime, level), group in planned.groupby(["regime", "budget"], sort=True):
        sums = {kind: float(group[kind].sum()) for kind in ("planned", *_SPENT_COLUMNS)}
        text = budget_text(str(regime), float(str(level)))
        rows.append({
            "level": with_regime(text, str(regime), named=several), "trials": len(group),
        } | sums)  # fmt: skip
    unplanned = {trial for known in of_trial.values() for trial in known} - set(plan["trial"])
    tuned = tuning_trials(events)
    for name, trials in ((TUNING, unplanned & tuned), (EARLIER, unplanned - tuned)):
        if trials:
            sums = {kind: sum(known.get(trial, 0.0) for trial in trials) for kind, known in of_trial.items()}
            rows.append({"level": name, "trials": len(trials), "planned": sums["spent"]} | sums)
    for what, flops in _by_what(charges, "spent_flops").items():
        rows.append({
            "level": str(what), "trials": 0, "planned": flops, "spent": flops, "wasted": 0.0,
            "evaluation": 0.0, "hours": 0.0,
        })  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def score_costs(scores: pd.DataFrame, *of: str) -> list[ScoreCost]:
    """Return the costs in a table of scores, all or those of a quality and of a strategy with columns."""
    rows = scores[scores["quality"].isin(of)] if of and not scores.empty else scores
    costs = (
        ScoreCost(
            score=row["score"], model=row["model"], pool=row["pool"], pairs=row["pairs"],
            train_flops=int(row["train_flops"]), scoring_flops=int(row["scoring_flops"]),
        )
        for row in records(rows)
    )  # fmt: skip
    return list(dict.fromkeys(costs))


def score_text(flops: float, cost: Cost) -> str:
    """Return what scores cost, and their share of the compute that the study spent; empty for nothing."""
    if not (flops and cost.spent_flops):
        return format_flops(flops) if flops else ""
    share = flops / cost.spent_flops
    return f"{format_flops(flops)}, {format_share(share, int(share < _TWO_DIGITS))} of the compute spent"


def notable_score(flops: float, cost: Cost) -> str:
    """Return what the score of a winner's quality cost, to end a sentence with; empty if that is little."""
    score = score_text(flops, cost)
    return f"; its score cost {score}" if score and flops >= _NOTABLE * cost.spent_flops else ""


def _by_what(spent: pd.DataFrame, *columns: str) -> dict[str, float]:
    sums = spent[list(columns)].sum(axis=1)
    return dict(zip(spent["what"].astype(str), sums, strict=True))
