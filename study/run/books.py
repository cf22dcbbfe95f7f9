"""Accounting of a run: result, failure and FLOPs of each trial, also from earlier runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops
from runners.trials.loggers import Loggers
from runners.trials.meter import METER, FlopCount, read_meter, write_meter
from runners.trials.trial_files import (
    Outcome,
    drop_damaged,
    drop_milestone,
    drop_scaffolding,
    forget_failure,
    kept_steps,
    milestone,
    read_progress,
    write_failure,
)
from study.run.agenda import Agenda, paid_again
from study.run.run_context import RunContext
from study.show.progress import Progress
from study.state.book import Account, account, read_book
from study.state.events import add_event
from study.state.study import Study
from study.state.trial_states import passed_milestone


class PaidBeforeError(ValueError):
    """Trials of the run were paid before, but their results are gone; running them pays them again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The trials that a run left without a result.

    Attributes:
        failures: Trial id → reason, for trials that failed.
        remaining: Trials that the budget had no room for.
        stopped: Source of the request to stop the run early; empty if there was none.
    """

    plan: Plan
    failures: dict[str, str]
    remaining: tuple[Trial, ...]
    stopped: str

    @property
    def incomplete(self) -> bool:
        """True if a trial is left without a result."""
        return bool(self.failures or self.remaining or self.stopped)


class Books(ABC):
    """Results, failures and FLOPs of some trials of a study, with events and the logs of other tools.

    The study must be locked for this run.
    """

    def __init__(
        self, study: Study, plan: Plan, trials: Sequence[Trial], progress: Progress, site: RunContext
    ) -> None:
        self.study, self.plan, self.progress, self.site = study, plan, progress, site
        self.trials = {trial.trial_id: trial for trial in trials}
        planned = {trial.trial_id: trial for trial in plan.all_trials} | self.trials
        self.book = read_book(study, planned, running=())
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self.remaining: list[Trial] = []  # trials that the budget had no room for
        self.loggers = Loggers(study.declaration.loggers, study.folder, progress.say)

    @abstractmethod
    def title(self, trial: Trial) -> str:
        """Return a readable name of a trial."""

    def resume(self, todo: Agenda) -> None:
        """Take over the results of earlier runs and what they lost, also after a crash of the driver.

        Raises:
            PaidBeforeError: Trials would be paid again, and the run may not do that.
            ValueError: The study budget has no room for a charge.
        """
        paid = [trial for trial in todo.to_run if self.book.of(trial.trial_id).spent_flops]
        if paid and not self.site.pay_again:
            raise PaidBeforeError(
                f"{paid_again(paid)}: their results are no longer in {self.study.folder / 'trials'}. "
                f"Restore the folders (such as {paid[0].trial_id}), or use --pay-again"
            )
        if self.book.unknown and not self.site.pay_again:
            raise PaidBeforeError(
                f"{self.book.note}. Restore the table or the folders; with --pay-again those planned count "
                "as wasted in full, and others not at all"
            )
        if self.book.note:
            self.progress.say(f"note: {self.book.note}")
        for trial_id in self.trials.keys() & {*self.book.unknown}:
            self.book.trials[trial_id] = Account(wasted_flops=self.trials[trial_id].paid_flops)
        self.book.charge(self.plan)
        self.outcomes.update(todo.finished)
        for trial_id, outcome in todo.finished.items():
            drop_scaffolding(self.study.trial_folder(trial_id))
            self.book_outcome(self.trials[trial_id], outcome)
        self.failures.update(todo.failed)
        for trial in todo.to_run:
            folder = self.study.trial_folder(trial.trial_id)
            if self.book.of(trial.trial_id).computed_flops or folder.exists():
                self.book_lost(trial)
                if forget_failure(folder):
                    self.publish(trial.trial_id)
        self.write_book()

    def event(self, event: str, **facts: object) -> None:
        """Append a line to ``events.jsonl``."""
        self.site.with_storage(add_event, self.study, event, **facts)

    def publish(self, trial_id: str) -> None:
        """Show nodes a decision on a trial: it has failed, starts again, or counts on from another meter."""
        self.site.with_storage(self.study.storage.publish, trial_id)

    def write_book(self) -> None:
        """Write the table of what trials spent."""
        self.site.with_storage(self.book.write, self.study)

    def book_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Book a trial's result."""
        # It may have been trained under another name of the same pairs (`budgets.planning.planned_trial`).
        outcome = replace(outcome, row={**outcome.row, "quality": trial.cell.quality})
        self.outcomes[trial.trial_id] = outcome
        self._book(trial, outcome)
        folder = self.study.trial_folder(trial.trial_id)
        self.site.with_storage(self.loggers.finish, outcome.row, folder / "curve.parquet")
        if trial.previous and self._is_needless(trial.previous):
            self.site.with_storage(drop_milestone, self.study.trial_folder(trial.previous))
            self.publish(trial.previous)

    def _is_needless(self, previous: str) -> bool:
        """Return whether no trial, of the plan or longer, will continue from a trial's milestone."""
        continuing = {trial_id for trial_id, trial in self.trials.items() if trial.previous == previous}
        if continuing - self.outcomes.keys():
            return False
        # Longer ones continue from one of these, or from one that has made its milestone needless.
        passed = {self.trials[ended].previous for ended in self.outcomes}
        folders = map(self.study.trial_folder, continuing)
        return bool(continuing & passed) or any(self.site.with_storage(milestone, path) for path in folders)

    def book_lost(self, trial: Trial) -> None:
        """Book what a trial has lost since its last sound checkpoint."""
        for path in self.site.with_storage(drop_damaged, self.study.trial_folder(trial.trial_id)):
            self.event("checkpoint-damaged", trial=trial.trial_id, file=path.name)
            self.progress.say(
                f"{self.title(trial)}: {path} is damaged and was removed; using the checkpoint before it"
            )
        self._book(trial)

    def _book(self, trial: Trial, outcome: Outcome | None = None) -> None:
        """Derive a trial's account again; without a result, write its meter if there is none to count from.

        An unreadable meter lacks what the last start computed: the most that it can have lost is wasted.
        """
        folder, with_storage = self.study.trial_folder(trial.trial_id), self.site.with_storage
        entry = with_storage(account, folder, trial, outcome, self.book.of(trial.trial_id))
        if outcome is None and with_storage(read_meter, folder) is None:
            if with_storage(_has_computed, folder):
                lost = trial.train_flops - entry.kept_flops
                entry = replace(entry, wasted_flops=entry.wasted_flops + lost)
                self.progress.say(
                    f"the meter of trial {trial.trial_id} is missing or damaged; {format_flops(lost)} are "
                    "booked as wasted, the most that it can have lost in its last start"
                )
            if entry.computed_flops:
                folder.mkdir(exist_ok=True)
                count = FlopCount(train_flops=entry.computed_flops, evaluation_flops=entry.evaluation_flops)
                with_storage(write_meter, folder, count)
                self.publish(trial.trial_id)
        self.book.trials[trial.trial_id] = entry

    def _drop(self, trial: Trial) -> None:
        """Remove the checkpoints of a trial: all its work is lost, and nothing is reserved for it."""
        self.site.with_storage(drop_scaffolding, self.study.trial_folder(trial.trial_id))
        self._book(trial)

    def give_up(self, trial: Trial, span: Mapping[str, object], reason: str, *, keep: bool) -> None:
        """Book a trial as failed; with ``keep``, its checkpoint stays for a later ``--retry-failed``."""
        if keep:
            self._book(trial)
        else:
            self._drop(trial)
        self.site.with_storage(write_failure, self.study.trial_folder(trial.trial_id), reason)
        self.publish(trial.trial_id)
        self.event("trial-failed", **span, reason=reason)
        self.failures[trial.trial_id] = reason
        self.loggers.leave(trial.trial_id)
        self.progress.failed(trial, reason)

    def set_back(self, trial: Trial) -> None:
        """Book all work of a waiting trial as lost, and release what is reserved for it."""
        self._drop(trial)
        self.publish(trial.trial_id)
        self.event("trial-set-back", trial=trial.trial_id)
        self.progress.say(
            f"{self.title(trial)}: crashes lost so much that the budget has no room to finish it; "
            "it starts again from step 0 if other trials leave room"
        )

    def leave_out(self, trial: Trial, reason: str) -> None:
        """Book a trial that the budget has no room for; a later run with a larger budget starts it."""
        self._drop(trial)
        self.publish(trial.trial_id)
        reason = f"{reason}; the budget has no room for it"
        self.event("trial-left-out", trial=trial.trial_id, reason=reason)
        self.remaining.append(trial)
        self.progress.left_out(trial, reason)

    def can_start(self, trial: Trial) -> bool:
        """Return whether a trial can start now: it need not wait for a milestone of its trunk."""
        previous = self.trials.get(trial.previous)
        look, folder = self.site.with_storage, self.study.trial_folder
        return (
            previous is None
            or look(kept_steps, folder(trial.trial_id)) > 0
            or look(milestone, folder(previous.trial_id)) is not None
            or (
                previous.trial_id in self.outcomes
                # The milestone existed and is lost: the trial computes its steps again.
                and passed_milestone(previous, self.outcomes[previous.trial_id])
            )
        )


def _has_computed(folder: Path) -> bool:
    """Return whether a trial without a readable meter has computed something, as its files show."""
    meter = folder / METER  # it is empty until the first step
    progress = read_progress(folder.parents[1], [folder.name]).get(folder.name, {"samples_seen": 0})
    return bool(kept_steps(folder) or progress["samples_seen"] or (meter.exists() and meter.stat().st_size))
