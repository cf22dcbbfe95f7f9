"""The cost of a study: FLOPs by budget level from its plan and ledger, and time from its events."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.labels import budget_text

SPENT = ("spent", "charged")
STARTS = ("study-started", "tuning-started")
ENDS = ("trial-finished", "trial-retried", "trial-left", "trial-failed")
_BESIDE = ("node-left-out",)  # it may come before a start


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
    """Totals of a study; FLOPs are training plus evaluation.

    Attributes:
        planned_flops: FLOPs of all planned trials.
        spent_flops: FLOPs spent by trials, plus ``charged_flops``.
        charged_flops: FLOPs charged for other work, such as quality scoring.
        wasted_flops: FLOPs lost with failed attempts.
        budget_flops: Declared cap on training FLOPs; NaN without one.
        booked_flops: Training FLOPs used, waste included; this is what the budget caps.
        time: Time that the runs took; NaN without events.
    """

    planned_flops: float
    spent_flops: float
    charged_flops: float
    wasted_flops: float
    budget_flops: float
    booked_flops: float
    time: RunTime


def totals(
    plan: pd.DataFrame, ledger: pd.DataFrame, events: pd.DataFrame, *, budget_flops: float | None = None
) -> Cost:
    """Sum up plan, ledger and events, each of which may be empty; ``budget_flops`` is the declared cap."""
    return Cost(
        planned_flops=float(_flops(plan).sum()),
        spent_flops=_sum(ledger, SPENT),
        charged_flops=_sum(ledger, ("charged",)),
        wasted_flops=_sum(ledger, ("wasted",)),
        budget_flops=float(budget_flops) if budget_flops is not None else float("nan"),
        booked_flops=_booked(ledger),
        time=run_time(events),
    )


def run_time(events: pd.DataFrame, *, now: float | None = None) -> RunTime:
    """Sum up the times of a study's events.

    Args:
        events: Events of all runs, in order.
        now: Current time in seconds since 1970 if the last run is still going; None if it has ended.
    """
    if events.empty or "slots" not in events:
        return RunTime(wall_s=float("nan"), busy_s=float("nan"), slot_s=0.0, slots=0)
    wall = busy = slot = 0.0
    phases = events["event"].isin(STARTS).cumsum()
    for number, phase in events.groupby(phases):
        counted = phase[~phase["event"].isin(_BESIDE)]
        if not number:
            continue
        last = float(counted["time"].max())
        if now is not None and number == phases.iloc[-1]:
            last = max(last, now)
        wall += last - float(counted["time"].min())
        at = counted.dropna(subset=["slots"])
        until = np.append(at["time"].to_numpy(np.float64)[1:], last)
        slot += float((at["slots"].to_numpy(np.float64) * (until - at["time"].to_numpy(np.float64))).sum())
        busy += _busy_s(counted, last)
    return RunTime(wall_s=wall, busy_s=busy, slot_s=slot, slots=int(events["slots"].max()))


def _busy_s(phase: pd.DataFrame, last: float) -> float:
    if "trial" not in phase:
        return 0.0
    ended = phase[phase["event"].isin(ENDS)]
    latest = phase[phase["event"].isin([*ENDS, "trial-started"])].drop_duplicates("trial", keep="last")
    running = latest[latest["event"] == "trial-started"]
    seconds = float(ended["wall_s"].sum()) if "wall_s" in ended else 0.0
    return seconds + float((last - running["time"]).sum())


def _booked(ledger: pd.DataFrame) -> float:
    if ledger.empty:
        return 0.0
    gone = ledger["entry"].isin(["charged", "spent", "wasted"])
    return float(ledger.loc[gone, "train_flops"].astype("float64").sum())


def by_level(plan: pd.DataFrame, ledger: pd.DataFrame) -> pd.DataFrame:
    """Return FLOPs by budget level: ``level`` (text), ``trials``, ``planned``, ``spent``, ``wasted``.

    Charges for other work have rows of their own, as planned and spent. So have the trials outside the plan,
    which belong to the tuning.
    """
    if plan.empty:
        return pd.DataFrame({name: [] for name in ("level", "trials", "planned", "spent", "wasted")})
    fixed = (plan["regime"] == "fixed-compute").to_numpy(bool)
    budget = np.where(
        fixed, plan["level_flops"].to_numpy(np.float64), plan["samples_seen"].to_numpy(np.float64)
    )
    planned = pd.DataFrame({
        "trial": plan["trial"].to_numpy(object), "regime": plan["regime"].to_numpy(object),
        "budget": budget, "planned": _flops(plan),
    })  # fmt: skip
    for kind in ("spent", "wasted"):
        planned[kind] = planned["trial"].map(_by_what(ledger, kind)).fillna(0.0)
    rows = []
    for (regime, level), group in planned.groupby(["regime", "budget"], sort=True):
        sums = {kind: float(group[kind].sum()) for kind in ("planned", "spent", "wasted")}
        rows.append({"level": budget_text(str(regime), float(str(level))), "trials": len(group)} | sums)
    planned_trials = set(plan["trial"])
    tuning = {
        kind: {what: flops for what, flops in _by_what(ledger, kind).items() if what not in planned_trials}
        for kind in ("spent", "wasted")
    }
    if tuning["spent"] or tuning["wasted"]:
        spent, wasted = (sum(tuning[kind].values()) for kind in ("spent", "wasted"))
        trials = len({*tuning["spent"], *tuning["wasted"]})
        rows.append({"level": "tuning", "trials": trials, "planned": spent, "spent": spent, "wasted": wasted})
    for what, flops in _by_what(ledger, "charged").items():
        rows.append({"level": str(what), "trials": 0, "planned": flops, "spent": flops, "wasted": 0.0})
    return pd.DataFrame(rows)


def _flops(frame: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if frame.empty:
        return np.zeros(0)
    # Planned trials cost the study what their trunk does not share; entries of the ledger are paid as booked.
    paid = frame["paid_flops" if "paid_flops" in frame else "train_flops"].to_numpy(np.float64)
    flops = paid + frame["evaluation_flops"].to_numpy(np.float64)
    return np.asarray(flops, dtype=np.float64)


def _by_what(ledger: pd.DataFrame, entry: str) -> dict[str, float]:
    if ledger.empty:
        return {}
    chosen = ledger[ledger["entry"] == entry]
    sums: dict[str, float] = {}
    for what, flops in zip(chosen["what"].astype(str), _flops(chosen), strict=True):
        sums[what] = sums.get(what, 0.0) + float(flops)
    return sums


def _sum(ledger: pd.DataFrame, entries: tuple[str, ...]) -> float:
    return float(sum(sum(_by_what(ledger, entry).values()) for entry in entries))
