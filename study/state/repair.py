"""Repair of a study's ledger: rebuilt from the trials' results, checkpoints and meters."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from budgets.book import Book, Entry
from budgets.ledger import Ledger, read_entries, readable_entries
from budgets.planning.plan import Charge, Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural
from runners.trials.records.meter import read_meter
from runners.trials.records.trial_files import kept_steps, read_failure, read_outcome
from study.state.bookkeeping import Bookkeeper, Say, has_begun, paid_by, trials_of
from study.state.study import Study


def unbooked(study: Study, book: Book) -> str:
    """Return the reason why a study can't be run if its ledger was deleted or cut; empty otherwise.

    Such a ledger, of which ``book`` was made, lacks trials that have computed something.
    """
    # Of a driver that died, the ledger in a bucket may lack the last seconds: the next run books from meters.
    if book.known and study.storage.lags:
        return ""
    missing = _missing_from(study, book)
    if not missing:
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
    charges = {charge.what: charge for charge in (*_old_charges(old.values()), *plan.charges)}
    ledger.charge(replace(plan, charges=tuple(charges.values())))
    folders = [folder for folder in trial_folders(study) if not _computed_nothing(folder)]
    trials = {trial.trial_id: trial for trial in plan.all_trials}
    starts = Counter(trials_of(study.folder, "trial-started"))
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
        if outcome is None:
            continue
        by_result = paid_by(outcome, trial)
        if spent.get(trial.trial_id, by_result) != by_result:
            return f"{path} has {spent[trial.trial_id]:,} FLOP spent by {trial.trial_id}, not {by_result:,}"
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
    outcome, metered = read_outcome(folder), read_meter(folder)
    interrupted = outcome is None and kept_steps(folder) > 0
    needed = [line.train_flops for line in old if line.entry == "reserved"]
    if outcome is not None:
        needed.append(paid_by(outcome, None))
    elif metered is not None:
        needed.append(metered.train_flops)
    ledger.reserve(folder.name, max(needed, default=0))
    if interrupted and grid_waits:
        keeper.set_aside(folder.name)
    else:
        keeper.left_behind(folder.name)


def _old_charges(old: Iterable[Sequence[Entry]]) -> list[Charge]:
    """Return the charges among the readable lines."""
    return [
        Charge(what=line.what, train_flops=line.train_flops, evaluation_flops=line.evaluation_flops)
        for lines in old
        for line in lines
        if line.entry == "charged"
    ]


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
        evaluation = sum(line.evaluation_flops for line in spent)
        ledger.settle(what, train_flops=paid, evaluation_flops=evaluation)
    return bool(lines)
