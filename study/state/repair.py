"""Repair of a study's ledger: rebuilt from the trials' results, checkpoints and meters."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from budgets.book.book import Entry
from budgets.book.ledger import Ledger, read_entries, readable_entries
from budgets.planning.plan import Plan, Trial
from budgets.quantity import format_flops
from runners.trials.records.meter import read_meter
from runners.trials.records.trial_files import kept_steps, read_failure, read_outcome
from study.state.bookkeeping import Bookkeeper, Say, has_begun, paid_by, trials_of
from study.state.study import Study

_NAME = "ledger.jsonl"


def repair_ledger(study: Study, plan: Plan, say: Say) -> None:
    """Rebuild the ledger of a study if it is damaged or contradicts a result; the damaged one is kept.

    The FLOPs that trials spent follow from their results, those that they lost from their meters. Trials
    without a folder are booked by the lines that can be read. The study must be locked, and no trial may run.

    Raises:
        ValueError: A result is damaged; the message names it.
    """
    path = study.folder / _NAME
    problem = _problem(path, study, plan)
    if not problem:
        say("the ledger is sound: nothing to repair")
        return
    say(f"repairing the ledger: {problem}")
    # Build the new ledger beside the old one and replace it last: after a crash in between, the old one is
    # there.
    new = path.with_name(f".{_NAME}.partial-repair")
    new.unlink(missing_ok=True)
    ledger = Ledger(new, None)
    ledger.charge(plan)
    folders, old = trial_folders(study), readable_entries(path)
    trials = {trial.trial_id: trial for trial in plan.all_trials}
    starts = Counter(trials_of(study.folder, "trial-started"))
    keeper = Bookkeeper(ledger, study, say)
    for folder in folders:
        trial = trials.get(folder.name)
        if trial is None:
            _book_foreign(ledger, keeper, folder, old)
        else:
            _book(ledger, keeper, folder, trial, starts=max(1, starts[folder.name]))
    gone = _book_gone(ledger, old, {folder.name for folder in folders} | {each.what for each in plan.charges})
    if path.exists():
        kept = _free_name(path)
        os.link(path, kept)
        say(f"the damaged ledger is kept as {kept}")
    new.replace(path)
    if gone:
        say(f"trials without a folder, booked by the lines that could be read: {', '.join(gone[:5])}")
    say(f"rebuilt {path} from {len(folders)} trials: {format_flops(ledger.book.spent_flops)} are spent")


def trial_folders(study: Study) -> list[Path]:
    """Return the folders of all trials that were ever started, sorted by id."""
    return sorted(path for path in (study.folder / "trials").glob("[!.]*") if path.is_dir())


def _problem(path: Path, study: Study, plan: Plan) -> str:
    """Describe the damage of a ledger; empty if it is sound."""
    try:
        entries = read_entries(path)
    except ValueError as error:
        return str(error).partition("; ")[0]
    spent = {entry.what: entry.train_flops for entry in entries if entry.entry == "spent"}
    started = {entry.what for entry in entries}
    for trial in plan.all_trials:
        folder = study.trial_folder(trial.trial_id)
        outcome = read_outcome(folder)
        if outcome is None:
            if has_begun(folder) and trial.trial_id not in started:
                return f"{path} lacks the trial {trial.trial_id}"
            continue
        by_result = paid_by(outcome, trial)
        if spent.get(trial.trial_id, by_result) != by_result:
            return f"{path} has {spent[trial.trial_id]:,} FLOP spent by {trial.trial_id}, not {by_result:,}"
    return ""


def _computed_nothing(folder: Path) -> bool:
    return not has_begun(folder) and read_meter(folder) is None


def _book(ledger: Ledger, keeper: Bookkeeper, folder: Path, trial: Trial, *, starts: int) -> None:
    """Book a trial of the plan from the files in its folder."""
    outcome = read_outcome(folder)
    if outcome is None and _computed_nothing(folder):
        return
    ledger.reserve(trial.trial_id, max(trial.paid_flops, 0 if outcome is None else paid_by(outcome, trial)))
    if outcome is not None:
        keeper.outcome(trial, outcome, starts=starts)
    elif read_failure(folder) is not None and not kept_steps(folder):
        keeper.given_up(trial.trial_id)
    else:
        keeper.lost(trial)


def _book_foreign(ledger: Ledger, keeper: Bookkeeper, folder: Path, old: Iterable[Entry]) -> None:
    """Book a trial that is not in the plan from the files in its folder, and from its old reservations."""
    outcome = read_outcome(folder)
    if outcome is None and _computed_nothing(folder):
        return
    before = [each.train_flops for each in old if each.what == folder.name and each.entry == "reserved"]
    ledger.reserve(folder.name, max([0 if outcome is None else paid_by(outcome, None), *before]))
    keeper.left_behind(folder.name)


def _book_gone(ledger: Ledger, old: Iterable[Entry], known: set[str]) -> list[str]:
    """Book trials whose folders are gone by the damaged ledger's readable lines, and return their ids."""
    spent: Counter[str] = Counter()
    wasted: Counter[str] = Counter()
    for entry in old:
        if entry.what not in known:
            spent[entry.what] += entry.train_flops if entry.entry == "spent" else 0
            wasted[entry.what] += entry.train_flops if entry.entry == "wasted" else 0
    gone = [name for name in spent if spent[name] or wasted[name]]
    for name in gone:
        ledger.reserve(name, spent[name])
        ledger.waste(name, wasted[name])
        ledger.settle(name, train_flops=spent[name], evaluation_flops=0)
    return gone


def _free_name(path: Path) -> Path:
    """Return a name beside a path that no file has."""
    numbered = (path.with_name(f"{path.name}.damaged-{number}") for number in range(1, 10**6))
    return next(each for each in numbered if not each.exists())
