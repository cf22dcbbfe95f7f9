"""Books of tuning and grid: events, the ledger entries of trials, and the repair of a damaged ledger."""

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from budgets.book import Book, Entry
from budgets.ledger import Ledger, append_whole, read_entries, readable_entries
from budgets.planning.plan import Charge, Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural
from runners.results import read_json_lines
from runners.trials.meter import METER, FlopCount, read_meter, write_meter
from runners.trials.trial_files import (
    Outcome,
    drop_damaged,
    drop_scaffolding,
    kept_steps,
    read_failure,
    read_outcome,
    read_progress,
)
from study.state.study import Study

Say = Callable[[str], None]


def add_event(study: Study, event: str, **facts: object) -> None:
    """Append a line to the study's ``events.jsonl``."""
    line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
    append_whole(study.folder / "events.jsonl", line)


def trials_of_event(folder: Path, event: str) -> list[str]:
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


def passed_milestone(trial: Trial, outcome: Outcome) -> bool:
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
    held, meter = book.open[folder.name].left, read_meter(folder)
    if meter is None:
        return held if _is_lost(folder) else 0
    unbooked = meter.train_flops - book.wasted.get(folder.name, (0, 0))[0]
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
        meter = read_meter(folder)
        if meter is None and _is_lost(folder) and trial_id in ledger.book.open:
            self._say(
                f"the meter of trial {trial_id} is missing or damaged; {format_flops(most)} are booked as "
                "wasted, the most that it can have lost since the last booking"
            )
            lost = ledger.book.wasted.get(trial_id, (0, 0))[0] + most
            meter = FlopCount(train_flops=kept.train_flops + lost, evaluation_flops=kept.evaluation_flops)
            write_meter(folder, meter)  # the next start counts on from here
        if meter is not None:
            lost = meter.train_flops - kept.train_flops
            ledger.waste(trial_id, lost, meter.evaluation_flops - kept.evaluation_flops)


def _is_lost(folder: Path) -> bool:
    """Return whether an unreadable meter held a count; an empty one, of a trial without work, did not."""
    file = folder / METER
    return has_begun(folder) or (file.exists() and file.stat().st_size > 0)


def unbooked(study: Study, book: Book) -> str:
    """Return the reason why a study can't be run if its ledger was deleted or cut; empty otherwise.

    Such a ledger, of which ``book`` was made, lacks trials that have computed something.
    """
    if not (missing := _missing_from(study, book)):
        return ""
    return (
        f"{study.ledger} was deleted or cut: it lacks {len(missing):,} of the trials that have computed "
        f"something, such as {missing[0]}. `run --repair` rebuilds the ledger from results and meters"
    )


def require_booked(study: Study) -> None:
    """Refuse a study whose ledger was deleted or cut.

    Raises:
        ValueError: It lacks a trial that has computed something; the message names it.
    """
    if reason := unbooked(study, study.book()):
        raise ValueError(reason)


def repair_ledger(study: Study, plan: Plan, say: Say) -> None:
    """Rebuild the ledger of a study if it is damaged or contradicts a result; the damaged one is kept.

    The FLOPs that trials spent follow from their results, those that they lost from their meters. The lines
    that can be read tell what trials without files have spent, what trials were paid before `--pay-again`,
    and the charges that the plan lacks. The study must be locked, and no trial may run.

    Raises:
        ValueError: A result is damaged; the message names it.
    """
    path = study.ledger
    problem = _damage(path, study, plan)
    if not problem:
        say("the ledger is sound: nothing to repair")
        return
    say(f"repairing the ledger: {problem}")
    # Build the new ledger beside the old one and replace it last: after a crash in between, the old one is
    # there.
    new = path.with_name(f".{path.name}.partial-repair")
    new.write_bytes(b"")
    ledger, old = Ledger(new, None), defaultdict[str, list[Entry]](list)
    for entry in readable_entries(path):
        old[entry.what].append(entry)
    charges = {
        entry.what: Charge(what=entry.what, flops=entry.train_flops)
        for entries in old.values()
        for entry in entries
        if entry.entry == "charged"
    } | {charge.what: charge for charge in plan.charges}
    ledger.charge(replace(plan, charges=tuple(charges.values())))
    folders = [folder for folder in trial_folders(study) if not _computed_nothing(folder)]
    trials = {trial.trial_id: trial for trial in plan.all_trials}
    starts = Counter(trials_of_event(study.folder, "trial-started"))
    keeper = Bookkeeper(ledger, study, say)
    for folder in folders:
        _book_earlier(ledger, old[folder.name])
        trial = trials.get(folder.name)
        if trial is None:
            _book_foreign(ledger, keeper, folder, old[folder.name], grid_waits=plan.grid_waits)
        else:
            _book_planned(ledger, keeper, folder, trial, starts=max(1, starts[folder.name]))
    gone = [
        what for what, lines in old.items() if what not in ledger.book.known and _book_lines(ledger, lines)
    ]
    if path.exists():
        numbered = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
        kept = next(name for name in numbered if not name.exists())
        os.link(path, kept)
        say(f"the damaged ledger is kept as {kept}")
    new.replace(path)
    if gone:
        say(f"trials without files, booked by the lines that could be read: {', '.join(gone[:5])}")
    say(
        f"rebuilt {path} from {plural(len(folders), 'trial')}: "
        f"{format_flops(ledger.book.spent_flops)} are spent"
    )


def trial_folders(study: Study) -> list[Path]:
    """Return the folders of all trials that were ever started, sorted by id."""
    return sorted(path for path in (study.folder / "trials").glob("[!.]*") if path.is_dir())


def _damage(path: Path, study: Study, plan: Plan) -> str:
    """Describe the damage of a ledger; empty if it is sound."""
    try:
        entries = read_entries(path)
    except ValueError as error:
        return str(error).partition("; ")[0]
    spent = {entry.what: entry.train_flops for entry in entries if entry.entry == "spent"}
    if missing := _missing_from(study, Book.of(entries)):
        return f"{path} lacks the trial {missing[0]}"
    for trial in plan.all_trials:
        outcome = read_outcome(study.trial_folder(trial.trial_id))
        booked = spent.get(trial.trial_id)
        if outcome is not None and booked not in {None, paid := paid_by(outcome, trial)}:
            return f"{path} has {booked:,} FLOP spent by {trial.trial_id}, not {paid:,}"
    return ""


def _missing_from(study: Study, book: Book) -> list[str]:
    """Return the trials, also those of earlier plans, that have computed something and are not in a book."""
    new = (folder for folder in trial_folders(study) if folder.name not in book.known)
    return [folder.name for folder in new if not _computed_nothing(folder)]


def _computed_nothing(folder: Path) -> bool:
    return not has_begun(folder) and read_meter(folder) is None


def _book_planned(ledger: Ledger, keeper: Bookkeeper, folder: Path, trial: Trial, *, starts: int) -> None:
    """Book a trial of the plan from the files in its folder."""
    outcome = read_outcome(folder)
    paid = 0 if outcome is None else paid_by(outcome, trial)
    if outcome is None or outcome.row["status"] != "finished":
        paid = max(paid, trial.paid_flops)
    ledger.reserve(trial.trial_id, paid)
    if outcome is not None:
        keeper.outcome(trial, outcome, starts=starts)
    elif read_failure(folder) is not None and not kept_steps(folder):
        keeper.given_up(trial.trial_id)
    else:
        keeper.lost(trial)


def _book_foreign(
    ledger: Ledger, keeper: Bookkeeper, folder: Path, old: Iterable[Entry], *, grid_waits: bool
) -> None:
    """Book a trial that is not in the plan from the files in its folder, and from its old reservations.

    While the grid waits for the tuning, it may turn out to need the checkpoint of an interrupted trial.
    """
    outcome, meter = read_outcome(folder), read_meter(folder)
    interrupted = outcome is None and kept_steps(folder) > 0
    needed = [line.train_flops for line in old if line.entry == "reserved"]
    if outcome is not None:
        needed.append(paid_by(outcome, None))
    elif meter is not None:
        needed.append(meter.train_flops)
    ledger.reserve(folder.name, max(needed, default=0))
    if interrupted and grid_waits:
        keeper.set_aside(folder.name)
    else:
        keeper.left_behind(folder.name)


def _book_earlier(ledger: Ledger, old: Sequence[Entry]) -> None:
    """Book what a trial was paid before it was run again, by its lines before its last reservation."""
    again = max((at for at, entry in enumerate(old) if entry.entry == "reserved"), default=0)
    if any(entry.entry == "spent" for entry in old[:again]):
        _book_lines(ledger, old[:again])


def _book_lines(ledger: Ledger, old: Iterable[Entry]) -> bool:
    """Book what a trial spent and lost by its readable lines; return True if there are any."""
    spent, wasted = ([line for line in old if line.entry == kind] for kind in ("spent", "wasted"))
    lines = [*spent, *wasted]
    if lines:
        what, paid = lines[0].what, sum(line.train_flops for line in spent)
        ledger.reserve(what, paid)
        ledger.waste(
            what, sum(line.train_flops for line in wasted), sum(line.evaluation_flops for line in wasted)
        )
        ledger.settle(what, train_flops=paid, evaluation_flops=sum(line.evaluation_flops for line in spent))
    return bool(lines)
