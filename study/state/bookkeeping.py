"""Bookkeeping of tuning and grid alike: events, and the ledger entries of trials."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from budgets.book import Book
from budgets.ledger import Ledger, append_whole
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops
from runners.results import read_json_lines
from runners.trials.records.meter import METER, FlopCount, read_meter, write_meter
from runners.trials.records.trial_files import (
    Outcome,
    drop_damaged,
    drop_scaffolding,
    kept_steps,
    read_outcome,
    read_progress,
)
from study.state.study import Study

Say = Callable[[str], None]


def add_event(study: Study, event: str, **facts: object) -> None:
    """Append a line to the study's ``events.jsonl``."""
    line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
    append_whole(study.folder / "events.jsonl", line)


def trials_of(folder: Path, event: str) -> list[str]:
    """Return the trial of each event of a name, in the order in which they happened."""
    events = read_json_lines(folder / "events.jsonl")
    if "trial" not in events:  # no event of a trial so far
        return []
    return events.loc[events["event"] == event, "trial"].astype(str).tolist()


def paid_by(outcome: Outcome, trial: Trial | None) -> int:
    """Return the training FLOPs that a result cost the study; ``trial`` is None if the plan lacks it.

    With a trunk the row decides: the plan may share other trunks by now than when the trial ran.
    """
    row = outcome.row
    if row["trunk"]:
        return int(row["paid_flops"])
    samples = int(row["samples_seen"])
    return samples * int(row["train_flops_per_sample"]) if trial is None else trial.train_flops_after(samples)


def passed(trial: Trial, outcome: Outcome) -> bool:
    """Return whether a trial with a result reached its milestone."""
    return int(outcome.row["steps"]) >= trial.milestone_step


def has_begun(folder: Path) -> bool:
    """Return whether a trial's files show that it has computed something."""
    if (folder / "result.json").exists() or kept_steps(folder):
        return True
    progress = read_progress(folder.parents[1], [folder.name]).get(folder.name)
    return progress is not None and progress["samples_seen"] > 0


def unbooked_flops(folder: Path, book: Book) -> int:
    """Return the training FLOPs of a trial that a run began and has booked neither as spent nor as wasted.

    If its meter can't be read, or is older than what is booked as wasted, this is its whole reservation.
    """
    held, count = book.open[folder.name].left, read_meter(folder)
    if count is None:
        return held if _is_lost(folder) else 0
    unbooked = count.train_flops - book.wasted.get(folder.name, (0, 0))[0]
    return held if unbooked < 0 else min(held, unbooked)


class Bookkeeper:
    """Books what trials spent and lost, from the files in their folders.

    A trial's meter counts everything that it has computed, over all of its starts. What its result or newest
    checkpoint needed is spent or still needed; the rest is waste. Each method may be called again after it
    failed halfway: the ledger books only what is new. ``say`` is called with a line about a meter that can't
    be read.
    """

    def __init__(self, ledger: Ledger, study: Study, say: Say) -> None:
        self._ledger, self._study, self._say = ledger, study, say

    def outcome(self, trial: Trial, outcome: Outcome, *, starts: int = 1) -> None:
        """Book a trial's result as spent, and the compute that did not contribute to it as wasted.

        ``starts`` is an upper bound on the starts whose lost work is not booked yet.

        Raises:
            ValueError: The ledger has another number of FLOPs as spent.
        """
        spent, booked = paid_by(outcome, trial), self._ledger.book.finished.get(trial.trial_id)
        if booked not in {None, spent}:
            result = self._study.trial_folder(trial.trial_id) / "result.json"
            raise ValueError(
                f"{self._ledger.path} has {booked:,} FLOP spent by trial {trial.trial_id}, but by "
                f"{result} it spent {spent:,}; `run --repair` rebuilds the ledger from results and meters"
            )
        finished = outcome.row["status"] == "finished"
        most = (starts - 1) * trial.train_flops  # the last start has the result, and lost nothing
        self._close(trial.trial_id, spent, trial.evaluation_flops if finished else 0, most=most)

    def lost(self, trial: Trial) -> list[Path]:
        """Book the compute of a trial beyond its last sound checkpoint as wasted.

        Returns:
            Damaged checkpoints, which were removed.
        """
        folder = self._study.trial_folder(trial.trial_id)
        damaged = drop_damaged(folder)
        kept = trial.paid_flops_after(kept_steps(folder) * trial.batch_size)
        self._waste(trial.trial_id, FlopCount(train_flops=kept), most=trial.train_flops - kept)
        return damaged

    def given_up(self, trial_id: str) -> None:
        """Book all compute of a trial as wasted and close its reservation; a later run starts at step 0."""
        held = self._ledger.book.open.get(trial_id)
        self._waste(trial_id, FlopCount(), most=0 if held is None else held.left)
        drop_scaffolding(self._study.trial_folder(trial_id))
        self._ledger.settle(trial_id, train_flops=0, evaluation_flops=0)

    def set_aside(self, trial_id: str) -> None:
        """Release what an interrupted trial has not computed yet; its checkpoint stays."""
        folder = self._study.trial_folder(trial_id)
        self._ledger.release(trial_id, keep=unbooked_flops(folder, self._ledger.book))

    def left_behind(self, trial_id: str) -> None:
        """Close the reservation of a trial that an earlier declaration started and the plan does not have."""
        outcome = read_outcome(self._study.trial_folder(trial_id))
        if outcome is None:
            self.given_up(trial_id)
            return
        row = outcome.row  # the trial ended, but its driver died before booking it
        evaluation = int(row["evaluation_flops"]) if row["status"] == "finished" else 0
        self._close(trial_id, paid_by(outcome, None), evaluation, most=0)

    def _close(self, trial_id: str, train_flops: int, evaluation_flops: int, *, most: int) -> None:
        """Book what a result needed as spent, and the rest as wasted."""
        spent = FlopCount(train_flops=train_flops, evaluation_flops=evaluation_flops)
        self._waste(trial_id, spent, most=most)
        self._ledger.settle(trial_id, train_flops=train_flops, evaluation_flops=evaluation_flops)

    def _waste(self, trial_id: str, kept: FlopCount, *, most: int) -> None:
        """Book as wasted all compute of a trial but ``kept``, which its result or newest checkpoint needed.

        If the meter can't be read, ``most`` training FLOPs are taken to be lost since the last booking.
        """
        folder, ledger = self._study.trial_folder(trial_id), self._ledger
        count = read_meter(folder)
        if count is None and _is_lost(folder) and trial_id in ledger.book.open:
            self._say(
                f"the meter of trial {trial_id} is missing or damaged; {format_flops(most)} are booked as "
                "wasted, the most that it can have lost since the last booking"
            )
            lost = ledger.book.wasted.get(trial_id, (0, 0))[0] + most
            count = FlopCount(train_flops=kept.train_flops + lost, evaluation_flops=kept.evaluation_flops)
            write_meter(folder, count)  # the next start counts on from here
        if count is not None:
            ledger.waste(
                trial_id,
                count.train_flops - kept.train_flops,
                count.evaluation_flops - kept.evaluation_flops,
            )


def _is_lost(folder: Path) -> bool:
    """Return whether an unreadable meter held a count; an empty one, of a trial without work, did not."""
    meter = folder / METER
    return has_begun(folder) or (meter.exists() and meter.stat().st_size > 0)
