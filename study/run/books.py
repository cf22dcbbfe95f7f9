"""The books of a run: result, failure and ledger entries of each trial, also from earlier runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from budgets.ledger import Ledger
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from runners.trials.loggers import Loggers
from runners.trials.meter import METER
from runners.trials.trial_files import (
    Outcome,
    drop_milestone,
    drop_scaffolding,
    forget_failure,
    kept_steps,
    milestone,
    write_failure,
)
from study.run.agenda import Agenda, paid_again
from study.run.site import Site
from study.show.progress import Progress
from study.state.bookkeeping import Bookkeeper, add_event, paid_by, passed_milestone
from study.state.study import Study


class PaidBeforeError(ValueError):
    """Trials of the run were paid before, but their results are gone; running them pays them again."""


class Books(ABC):
    """Results and failures of some trials of a study, with ledger, events and the logs of other tools.

    The study must be locked for this run.
    """

    def __init__(
        self, study: Study, plan: Plan, trials: Sequence[Trial], progress: Progress, site: Site
    ) -> None:
        self.study, self.plan, self.progress, self.site = study, plan, progress, site
        self.ledger = Ledger(study.ledger, plan.study_flops)
        self.keeper = Bookkeeper(self.ledger, study, progress.say)
        self.trials = {trial.trial_id: trial for trial in trials}
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self.remaining: list[Trial] = []  # trials that the budget had no room for
        self.loggers = Loggers(study.declaration.loggers, study.folder, progress.say)

    @abstractmethod
    def title(self, trial: Trial) -> str:
        """Return a readable name of a trial."""

    def resume(self, todo: Agenda) -> None:
        """Take over the results of earlier runs, and book what a crashed driver could not book.

        A trial writes its folder before the driver books it, so after a crash of the driver the ledger may
        lack results that the folders hold.

        Raises:
            PaidBeforeError: Trials would be paid again, and the run may not do that.
            ValueError: The ledger contradicts a result.
        """
        paid = [trial for trial in todo.to_run if trial.trial_id in self.ledger.book.finished]
        if paid and not self.site.pay_again:
            raise PaidBeforeError(
                f"{paid_again(paid)}: their results are no longer in {self.study.folder / 'trials'}. "
                f"Restore the folders (such as {paid[0].trial_id}), or use --pay-again"
            )
        self.ledger.charge(self.plan)
        for trial in self.trials.values():
            outcome = todo.finished.get(trial.trial_id)
            if outcome is None:
                # An earlier run left the reservation open: book the lost work, and reserve the trial's cost
                # by the present plan.
                if trial.trial_id in self.ledger.book.open:
                    self.book_lost(trial)
                    self.ledger.renew(trial.trial_id, trial.paid_flops)
                continue
            drop_scaffolding(self.study.trial_folder(trial.trial_id))
            # An unbooked result needs a reservation; an open one is kept as it is.
            if trial.trial_id not in self.ledger.book.finished:
                self.ledger.reserve(trial.trial_id, max(trial.paid_flops, paid_by(outcome, trial)))
            self.book_outcome(trial, outcome)
        self.failures.update(todo.failed)
        for trial in todo.to_run:
            again = trial.trial_id in self.ledger.book.finished
            if again:  # it is paid again, and its meter counts from 0
                (self.study.trial_folder(trial.trial_id) / METER).unlink(missing_ok=True)
            if forget_failure(self.study.trial_folder(trial.trial_id)) or again:
                self.publish(trial.trial_id)

    def event(self, event: str, **facts: object) -> None:
        """Append a line to ``events.jsonl``."""
        self.site.with_storage(add_event, self.study, event, **facts)

    def publish(self, trial_id: str) -> None:
        """Show nodes a decision on a trial: it has failed, or it starts again."""
        self.site.with_storage(self.study.storage.publish, trial_id)

    def book_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Book a trial's result."""
        # It may have been trained under another name of the same pairs (`budgets.planning.planned_trial`).
        outcome = replace(outcome, row={**outcome.row, "quality": trial.cell.quality})
        self.outcomes[trial.trial_id] = outcome
        folder = self.study.trial_folder(trial.trial_id)
        self.site.with_storage(self.keeper.outcome, trial, outcome)
        self.site.with_storage(self.loggers.finish, outcome.row, folder / "curve.parquet")
        # Longer trials continue from this one.
        if trial.previous and self.site.with_storage(milestone, folder) is not None:
            self.site.with_storage(drop_milestone, self.study.trial_folder(trial.previous))
            self.publish(trial.previous)

    def book_lost(self, trial: Trial) -> None:
        """Book what a trial has lost since its last sound checkpoint."""
        for path in self.site.with_storage(self.keeper.lost, trial):
            self.event("checkpoint-damaged", trial=trial.trial_id, file=path.name)
            self.progress.say(
                f"{self.title(trial)}: {path} is damaged and was removed; using the checkpoint before it"
            )

    def give_up(self, trial: Trial, span: Mapping[str, object], reason: str, *, keep: bool) -> None:
        """Book a trial as failed; with ``keep``, its checkpoint stays for a later ``--retry-failed``."""
        # Close the reservation first: if the driver dies before the failure is written, the trial runs again;
        # in the other order a failed trial would hold its reservation for good.
        if not keep:
            self.site.with_storage(self.keeper.given_up, trial.trial_id)
        self.site.with_storage(write_failure, self.study.trial_folder(trial.trial_id), reason)
        self.publish(trial.trial_id)
        self.event("trial-failed", **span, reason=reason)
        self.failures[trial.trial_id] = reason
        self.loggers.leave(trial.trial_id)
        self.progress.failed(trial, reason)

    def set_back(self, trial: Trial) -> None:
        """Book all work of a waiting trial as lost, and release its reservation."""
        self.site.with_storage(self.keeper.given_up, trial.trial_id)
        self.publish(trial.trial_id)
        self.event("trial-set-back", trial=trial.trial_id)
        self.progress.say(
            f"{self.title(trial)}: crashes lost so much that the budget has no room to finish it; "
            "it starts again from step 0 if other trials leave room"
        )

    def leave_out(self, trial: Trial, reason: str) -> None:
        """Book a trial that the budget has no room for; a later run with a larger budget starts it."""
        self.site.with_storage(self.keeper.given_up, trial.trial_id)
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
