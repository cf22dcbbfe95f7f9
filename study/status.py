"""Shows where a study stands, from what it has written; works while it runs and after."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.cost import run_time
from budgets.ledger import Entry, read_entries, reserved, spent_flops
from budgets.quantity import format_flops, format_seconds
from runners.results import read_json_lines, read_table
from study.lock import running as running_now
from study.progress import how_far, running_trials
from study.study import Study


def show_status(console: Console, study: Study) -> None:
    """Writes counts by level, the running trials, failures, FLOPs spent against planned, and slots busy.

    Raises:
        ValueError: The study has not been run.
    """
    folder = study.folder
    if not (folder / "plan.parquet").exists():
        raise ValueError(f"{folder} holds no study; run `python -m study run {study.declaration.name}` first")
    plan = read_table(folder / "plan.parquet")
    events = read_json_lines(folder / "events.jsonl")
    entries = read_entries(folder / "ledger.jsonl")
    states = _states(plan, events, entries, running=running_now(folder) is not None)
    console.print(_by_level(plan, states))
    cells = plan.set_index("trial")
    for trial in running_trials(folder, states.index[states == "running"]):
        cell = cells.loc[trial["trial"]]
        console.print(
            f"  running {trial['trial']} {cell['architecture']} {cell['strategy']} on "
            f"{cell['subset_size']:,} ({cell['quality']}): {how_far(trial)}",
            highlight=False,
        )
    if not events.empty and "reason" in events:
        failed = events[events["event"] == "trial-failed"].drop_duplicates("trial", keep="last")
        for row in failed[failed["trial"].map(states) == "failed"].itertuples():
            console.print(f"  failed {row.trial}: {row.reason}", highlight=False, markup=False)

    spent, held = spent_flops(entries), sum(reserved(entries).values())
    cap = study.declaration.study_flops
    budget = f" of a study budget of {format_flops(cap)}" if cap is not None else ""
    console.print(f"{format_flops(spent)} spent, {format_flops(held)} reserved{budget}", highlight=False)
    waste = sum(entry.train_flops for entry in entries if entry.entry == "wasted")
    if waste:
        console.print(f"{format_flops(waste)} of it was lost to crashes and done again", highlight=False)
    left = float(_seconds(plan, events)[plan["trial"].map(states).isin(["waiting", "running"])].sum())
    if left:
        console.print(f"about {format_seconds(left)} of one slot to go", highlight=False)
    busy = slots_busy(events)
    if busy is not None:
        console.print(f"slots busy {busy:.0%} of the last run's time", highlight=False)


def slots_busy(events: pd.DataFrame) -> float | None:
    """Gives the share of its slots' time that the last run filled with trials.

    Returns:
        The share, or None before its first trial ended.
    """
    if events.empty:
        return None
    starts = events.index[events["event"] == "study-started"]
    if not len(starts):
        return None
    wall, busy, slots = run_time(events.loc[starts[-1] :])
    return busy / (wall * slots) if busy else None


def _seconds(plan: pd.DataFrame, events: pd.DataFrame) -> "pd.Series[float]":
    """Predicts each trial's seconds: at the speed that its kind ran at, else as planned."""
    if "samples_per_s" not in events:
        return plan["predicted_s"]
    kind = ["architecture", "strategy"]
    measured = events.merge(plan, on="trial").groupby(kind)["samples_per_s"].median()
    speed = plan[kind].merge(measured.reset_index(), on=kind, how="left")["samples_per_s"]
    return (plan["samples_seen"] / speed).fillna(plan["predicted_s"])


def _states(
    plan: pd.DataFrame, events: pd.DataFrame, entries: list[Entry], *, running: bool
) -> "pd.Series[str]":
    """Gives each planned trial's state: the ledger knows what is done, the events what started and failed."""
    states = pd.Series("waiting", index=plan["trial"])
    if not events.empty and "trial" in events:
        last = events.dropna(subset=["trial"]).groupby("trial")["event"].last()
        states.update(last[last == "trial-failed"].map(lambda _event: "failed"))
        if running:
            this_run = events.loc[events.index[events["event"] == "study-started"][-1] :]
            started = this_run.dropna(subset=["trial"]).groupby("trial")["event"].last()
            states.update(started[started == "trial-started"].map(lambda _event: "running"))
    done = {entry.what for entry in entries if entry.entry == "spent"}
    states[states.index.isin(done)] = "done"
    return states


def _by_level(plan: pd.DataFrame, states: "pd.Series[str]") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("done", "running", "failed", "waiting")
    table.add_column("level", justify="right")
    for name in names:
        table.add_column(name, justify="right")
    counted = plan.assign(state=states.to_numpy())
    for level, rows in counted.groupby("level_flops", dropna=False):
        label = "no level" if pd.isna(level) else format_flops(float(level))  # type: ignore[arg-type]
        table.add_row(label, *(str((rows["state"] == name).sum()) for name in names))
    table.add_row("all", *(str((counted["state"] == name).sum()) for name in names), style="bold")
    return table
