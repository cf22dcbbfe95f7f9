"""The FLOP book of a study: what trials spent and lost, and what is set aside for them.

It is derived from the trials' folders, so nothing is written before a trial starts. A trial's meter counts
the training FLOPs of all of its starts. Of these, its result has paid for some (spent), and its newest
checkpoint needs some (kept); all others are wasted.

``spent.parquet`` keeps the book for what has no folder: charges, deleted trials, and shipped studies. A trial
that it has as spent stays so, even if its result is gone, until it is paid again. If that table can't be
used, the tables of results have what such a trial paid; else, if events say that it finished, the plan has.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from analysis.cells.table import records
from budgets.planning.plan import Charge, Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural
from runners.results import SPENT_COLUMNS, read_table, to_frame, write_table
from runners.store.files import matching
from runners.trials.meter import read_meter
from runners.trials.trial_files import Outcome, kept_steps, read_outcome
from study.state.events import trials_of_event
from study.state.study import Study
from study.state.trial_states import running_or_left_out

SPENT = "spent.parquet"
"""Name of the book's table in the study's folder."""

_FLOPS = [name for name in SPENT_COLUMNS if name.endswith("_flops")]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRow:
    """A trial's row in a table of planned trials.

    The table lacks the price of an unmasked tail: there, what a checkpoint needed is estimated.
    """

    batch_size: int
    train_flops: int
    paid_flops: int
    train_flops_per_sample: int

    def paid_flops_after(self, samples: int) -> int:
        """Training FLOPs that the first ``samples`` samples cost the study."""
        trained = min(self.train_flops, samples * self.train_flops_per_sample)
        return max(0, trained - (self.train_flops - self.paid_flops))


Priced = Trial | PlannedRow


def planned_rows(plan: pd.DataFrame) -> dict[str, Priced]:
    """Return the rows of a table of planned trials by trial."""
    names = ("batch_size", "train_flops", "paid_flops", "train_flops_per_sample")
    return {row["trial"]: PlannedRow(**{name: int(row[name]) for name in names}) for row in records(plan)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """FLOPs of a trial over all of its starts; training FLOPs unless named otherwise.

    Attributes:
        spent_flops: FLOPs that its result paid.
        wasted_flops: FLOPs that neither its result nor its newest checkpoint needed.
        kept_flops: FLOPs that the newest checkpoint of a trial without a result needed.
        evaluation_flops: Forward FLOPs of evaluations, which no budget counts.
        reserved_flops: FLOPs set aside for a trial that runs or continues: those kept and those to come.
    """

    spent_flops: int = 0
    wasted_flops: int = 0
    kept_flops: int = 0
    evaluation_flops: int = 0
    reserved_flops: int = 0

    @property
    def computed_flops(self) -> int:
        """FLOPs that its starts have computed."""
        return self.spent_flops + self.wasted_flops + self.kept_flops

    @property
    def taken_flops(self) -> int:
        """FLOPs that other trials can't use."""
        return self.spent_flops + self.wasted_flops + self.reserved_flops


@dataclass(kw_only=True, slots=True)
class Book:
    """The FLOPs of a study: charges by name and trials by id.

    ``problem`` says why the kept table could not be used; it is empty if it could. ``unknown`` are trials
    that were started, and of which no file then has what they cost.
    """

    charged: dict[str, int] = field(default_factory=dict)
    trials: dict[str, Account] = field(default_factory=dict)
    problem: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What the book was derived from if its table could not be used, and what it lacks; else empty."""
        if not self.problem or not (self.spent_flops or self.unknown):  # nothing was run yet
            return ""
        lacks = "what deleted trials lost to crashes is not in it"
        if self.unknown:
            lacks = (
                f"what {plural(len(self.unknown), 'trial')} cost is in no file ({', '.join(self.unknown)})"
            )
        return f"{self.problem}; what the study spent was added up from trials, results and events: {lacks}"

    def of(self, trial_id: str) -> Account:
        """Return a trial's account; one that was never started has an empty one."""
        return self.trials.get(trial_id, Account())

    @property
    def charged_flops(self) -> int:
        """FLOPs of all charges paid."""
        return sum(self.charged.values())

    @property
    def wasted_flops(self) -> int:
        """Training FLOPs that were lost."""
        return sum(account.wasted_flops for account in self.trials.values())

    @property
    def reserved_flops(self) -> int:
        """Training FLOPs set aside for trials that run or continue."""
        return sum(account.reserved_flops for account in self.trials.values())

    @property
    def spent_flops(self) -> int:
        """FLOPs charged, spent and wasted."""
        trials = sum(account.spent_flops + account.wasted_flops for account in self.trials.values())
        return self.charged_flops + trials

    def room_flops(self, study_flops: int | None) -> int | None:
        """Return the FLOPs of a study budget neither spent nor reserved; None without a budget.

        Negative if crashes wasted more than was left.
        """
        return None if study_flops is None else study_flops - self.spent_flops - self.reserved_flops

    def unpaid(self, plan: Plan) -> list[Charge]:
        """Return the plan's charges that are not paid yet."""
        return [charge for charge in plan.charges if charge.what not in self.charged]

    def charge(self, plan: Plan) -> None:
        """Pay the plan's charges that are not paid yet.

        Raises:
            ValueError: The study budget has no room for a charge.
        """
        for charge in self.unpaid(plan):
            # What is reserved for trials gives way.
            room = None if plan.study_flops is None else plan.study_flops - self.spent_flops
            if room is not None and charge.flops > room:
                raise ValueError(
                    f"'{charge.what}' needs {format_flops(charge.flops)}, but only "
                    f"{format_flops(max(0, room))} of the study budget are left"
                )
            self.charged[charge.what] = charge.flops

    def besides(self, plan: Plan) -> int:
        """Sum the FLOPs of charges and trials that are not in a plan, as those of an earlier declaration."""
        charges = {charge.what for charge in plan.charges}
        trials = {trial.trial_id for trial in plan.all_trials}
        others = [flops for what, flops in self.charged.items() if what not in charges]
        accounts = (account for trial, account in self.trials.items() if trial not in trials)
        return sum(others) + sum(account.spent_flops + account.wasted_flops for account in accounts)

    def frame(self) -> pd.DataFrame:
        """Return the book as a table of `SPENT_COLUMNS`: charges, then trials."""
        rows = [
            {"what": what, "charge": True, **_flops(Account(spent_flops=flops))}
            for what, flops in sorted(self.charged.items())
        ]
        for trial, account in sorted(self.trials.items()):
            if any((flops := _flops(account)).values()):
                rows.append({"what": trial, "charge": False, **flops})
        return to_frame(rows, SPENT_COLUMNS)

    def write(self, study: Study) -> None:
        """Write the book's table."""
        write_table(study.folder / SPENT, self.frame(), source=_source(study))


def _flops(account: Account) -> dict[str, float]:
    return {name: float(getattr(account, name)) for name in _FLOPS}


def read_book(study: Study, planned: Mapping[str, Priced], *, running: Collection[str] | None = None) -> Book:
    """Return the book of a study.

    ``planned`` has the trials of its plan by id: of others, nothing is kept or reserved. A run itself names
    the trials that are ``running``; without these, they are read from the events.

    Raises:
        ValueError: The table of a study without trials' folders, or a trial's result, is missing or damaged.
    """
    book = _kept(study)
    if running is None:
        running, _ = running_or_left_out(study.folder)
    if book.problem:
        _recover(book, study, planned)
    for trial_id in {*book.trials, *(folder.name for folder in trial_folders(study))}:
        before = book.of(trial_id)
        trial, folder = planned.get(trial_id), study.trial_folder(trial_id)
        if before.spent_flops:
            continue
        if trial is not None and trial_id in running:
            book.trials[trial_id] = replace(before, reserved_flops=trial.paid_flops)
        else:
            book.trials[trial_id] = account(folder, trial, read_outcome(folder), before)
    return book


def account(folder: Path, trial: Priced | None, outcome: Outcome | None, before: Account) -> Account:
    """Derive the account of a trial that does not run from its folder.

    ``before`` is what the book had: it tells what the trial has computed if its meter can't be read.
    ``trial`` is None if the plan lacks it: its checkpoint is of no use.
    """
    spent = checkpointed = reserved = 0
    if outcome is not None:
        spent = int(outcome.row["paid_flops"])
    elif trial is not None and (steps := kept_steps(folder)):
        checkpointed, reserved = trial.paid_flops_after(steps * trial.batch_size), trial.paid_flops
    meter = read_meter(folder)
    if meter is not None:
        wasted, evaluation = meter.train_flops - spent - checkpointed, meter.evaluation_flops
    else:
        wasted = before.wasted_flops + max(0, before.spent_flops + before.kept_flops - spent - checkpointed)
        evaluation = before.evaluation_flops
    return Account(
        spent_flops=spent,
        wasted_flops=max(0, wasted),
        kept_flops=checkpointed,
        evaluation_flops=evaluation,
        reserved_flops=reserved,
    )


def trial_folders(study: Study) -> Iterator[Path]:
    """Yield the folders of all trials that were ever started."""
    return (path for path in matching(study.folder / "trials", "[!.]*") if path.is_dir())


def _kept(study: Study) -> Book:
    """Return the book of a study's table; an empty one before the first run."""
    path, rerun = study.folder / SPENT, (study.folder / "trials").is_dir()
    if not path.exists():
        if not rerun and (study.folder / "results.parquet").exists():
            raise ValueError(
                f"{path} is missing: it has what the study spent, and there are no trials' folders"
            )
        return Book(problem=f"{path} is missing")
    try:
        rows = records(read_table(path, source=_source(study)))
    except ValueError as error:
        if not rerun:
            raise
        return Book(problem=str(error))
    book = Book()
    for row in rows:
        if row["charge"]:
            book.charged[row["what"]] = int(row["spent_flops"])
        else:
            book.trials[row["what"]] = Account(**{name: int(row[name]) for name in _FLOPS})
    return book


def _recover(book: Book, study: Study, planned: Mapping[str, Priced]) -> None:
    """Add the trials whose results or folders are gone to a book without its table."""
    paid = dict[str, int]()
    for name in ("tuning.parquet", "results.parquet"):
        with suppress(ValueError):  # it is missing or damaged: the plan may know
            rows = records(read_table(study.folder / name))
            paid |= {row["trial"]: int(row["paid_flops"]) for row in rows if row.get("paid_flops")}
    folders = {folder.name for folder in trial_folders(study)}
    for trial_id in {*trials_of_event(study.folder, "trial-finished")} & planned.keys() - folders:
        paid.setdefault(trial_id, planned[trial_id].paid_flops)
    for trial_id, flops in paid.items():
        if read_outcome(folder := study.trial_folder(trial_id)) is None:
            meter = read_meter(folder)
            wasted = 0 if meter is None else max(0, meter.train_flops - flops)
            book.trials[trial_id] = Account(spent_flops=flops, wasted_flops=wasted)
    started = {*trials_of_event(study.folder, "trial-started")}
    book.unknown = tuple(sorted(started - folders - paid.keys()))


def _source(study: Study) -> str:
    """Return what the book's table was derived from: any declaration of the study."""
    return f"study {study.declaration.name}"
