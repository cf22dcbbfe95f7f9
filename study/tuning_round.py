"""The trials of a tuning that are known at one time: run through Ray Tune, booked and written down."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budgets.ledger import Ledger, read_entries
from budgets.plan import Trial, TuningPlan
from budgets.quantity import format_flops
from budgets.winner import words
from runners.loggers import Loggers
from runners.ray_backend.tune import tune_trials
from runners.results import PLAN_COLUMNS, plan_row, to_frame, write_table
from runners.throughput import predict_s
from runners.trial import Outcome, drop_scaffolding, read_outcome
from study.bookkeeping import (
    add_event,
    book_given_up,
    book_lost,
    book_outcome,
    needs,
    trial_folder,
    trial_job,
    write_failure,
)
from study.progress import Progress
from study.site import Site
from study.study import Study
from study.tuning_table import write_tried

if TYPE_CHECKING:
    from collections.abc import Mapping


class Round:
    """The trials of a tuning that are known at one time.

    Args:
        study: The study.
        tuning: The trials.
        ledger: The study's book.
        progress: Where progress is shown.
        loggers: Other tools that are written to.
        site: Knows when the run is told to stop.
    """

    def __init__(  # noqa: PLR0913 - what a run has open
        self,
        study: Study,
        tuning: TuningPlan,
        ledger: Ledger,
        progress: Progress,
        *,
        loggers: Loggers,
        site: Site,
    ) -> None:
        self._study, self._tuning, self._ledger, self._progress = study, tuning, ledger, progress
        self._loggers, self._site = loggers, site
        self._stopped, self._over_budget = "", ""
        self._slots = 1
        self._trials = {trial.trial_id: trial for trial in tuning.trials}
        self._rows: dict[str, Mapping[str, Any]] = {}
        self._failures: dict[str, str] = {}
        self._started_at: dict[str, tuple[int, float]] = {}

    def execute(self, slots: int) -> dict[str, str]:
        """Runs the trials that have no result, and writes what all of them gave.

        Args:
            slots: How many run at once.

        Returns:
            Trial id → reason, for the trials that gave no result.

        Raises:
            ValueError: What crashes lost left no room in the share or in the study budget.
        """
        for trial in self._tuning.trials:
            self._take(trial)
        trials = self._tuning.trials
        self._progress.show(
            trials,
            finished=self._rows,
            planned_flops=sum(trial.train_flops for trial in trials),
            spent_flops=self._ledger.spent_flops,
            phase="tuning",
        )
        waiting = [trial for trial in trials if trial.trial_id not in self._rows]
        if waiting:
            self._run(waiting, slots)
        self._write()
        return self._failures

    def _run(self, waiting: list[Trial], slots: int) -> None:
        resources = self._study.declaration.resources
        for trial in waiting:  # what a killed driver left behind
            self._book_lost(trial.trial_id)
        cost = self._reserve(waiting)
        self._progress.tell(
            f"tuning: {len(waiting)} trials, {format_flops(cost)}; {self._tuning.metric} selects"
        )
        rows = [{**plan_row(trial), "predicted_s": predict_s(trial, {})} for trial in self._tuning.trials]
        write_table(self._study.folder / "tuning-plan.parquet", to_frame(rows, PLAN_COLUMNS))
        self._slots = slots
        self._event("tuning-started", slots=slots, trials=len(waiting))
        tune_trials(
            [trial_job(self._study, trial) for trial in waiting],
            self,
            resources=needs(self._study),
            retries=resources.retries,
            pause_s=resources.backoff_s,
            leave=self._site.stop_mark,
        )
        self._event("tuning-ended")
        self._loggers.close()
        if self._over_budget:
            raise ValueError(self._over_budget)

    def _reserve(self, waiting: list[Trial]) -> int:
        """Sets the trials' FLOPs aside, if what is lost to crashes leaves them room in the share.

        Returns:
            Training FLOPs of all of them.

        Raises:
            ValueError: It does not.
        """
        gone = sum(
            entry.train_flops
            for entry in read_entries(self._ledger.path)
            if entry.what in self._trials and entry.entry in {"spent", "wasted"}
        )
        cost = sum(trial.train_flops for trial in waiting)
        if gone + cost > self._tuning.reserve_flops:
            raise ValueError(
                f"tuning still needs {format_flops(cost)}, and {format_flops(gone)} of its share of "
                f"{format_flops(self._tuning.reserve_flops)} are gone, crashes included: raise tuning.share"
            )
        for trial in waiting:
            self._ledger.reserve(trial.trial_id, trial.train_flops)
        return cost

    def started(self, trial: str) -> None:
        """Notes when a trial started, and its slot."""
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self._started_at[trial] = slot, time.monotonic()
        self._event("trial-started", trial=trial, slot=slot)

    def lost(self, trial: str, reason: str) -> None:
        """Books what a crash lost; all leave when the study budget has no room to do it again."""
        self._site.fetch(trial)
        self._book_lost(trial)
        self._event("trial-retried", **self._span(trial), reason=reason)
        self._progress.say(f"{self._name(trial)}: {reason}; it goes on from its last checkpoint")
        if self._ledger.over_budget:
            self._over_budget = (
                f"{self._name(trial)}: {reason}; the study budget has no room to do its work again"
            )
            self._stop(self._over_budget)

    def finished(self, trial: str) -> None:
        """Takes a trial's result."""
        self._site.fetch(trial)
        self._take(self._trials[trial], self._span(trial))
        self._write()

    def failed(self, trial: str, reason: str, *, keep: bool) -> None:
        """Notes why a trial has no result."""
        self._site.fetch(trial)
        folder = trial_folder(self._study, trial)
        if keep:
            self._book_lost(trial)
        else:
            self._site.with_storage(partial(book_given_up, self._ledger, trial, folder))
        self._site.with_storage(partial(write_failure, folder, reason))
        self._site.give(trial)
        self._event("trial-failed", **self._span(trial), reason=reason)
        self._failures[trial] = reason
        self._loggers.leave(trial)
        self._progress.failed(self._trials[trial], reason)

    def left(self, trial: str, reason: str) -> None:
        """Notes that a trial was told to leave; a later run goes on with it."""
        self._site.fetch(trial)
        self._book_lost(trial)
        self._event("trial-left", **self._span(trial), reason=reason)

    def tick(self) -> None:
        """Draws the live view anew, and has all leave once the run was told to stop."""
        self._site.watch(self._started_at)
        self._progress.tick(self._study.folder, self._started_at, slots=self._slots)
        self._loggers.follow(self._trials, self._started_at)
        told = self._site.told()
        if told and not self._stopped:
            self._progress.say(f"told to stop by {told}: what runs writes a checkpoint and leaves")
            self._stop(told)

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        self._event("study-stopping", reason=reason)
        self._site.tell_to_stop()

    def _book_lost(self, trial: str) -> None:
        folder = trial_folder(self._study, trial)
        lost = partial(book_lost, self._ledger, self._trials[trial], folder)
        for path in self._site.with_storage(lost):
            self._event("checkpoint-damaged", trial=trial, file=path.name)
            self._progress.say(f"{self._name(trial)}: {path} is damaged and was removed")

    def _name(self, trial: str) -> str:
        return f"tuning {self._trials[trial].cell}, {words(self._tuning.values[trial])}"

    def _write(self) -> None:
        path = self._study.folder / "tuning.parquet"
        self._site.with_storage(partial(write_tried, path, self._tuning, self._rows))

    def _event(self, event: str, **facts: object) -> None:
        self._site.with_storage(partial(add_event, self._study, event, **facts))

    def _span(self, trial: str) -> dict[str, Any]:
        slot, started_at = self._started_at.pop(trial)
        return {"trial": trial, "slot": slot, "wall_s": time.monotonic() - started_at}

    def _book_outcome(self, trial: Trial, folder: Path) -> Outcome | None:
        outcome = read_outcome(folder)
        if outcome is not None:
            drop_scaffolding(folder)
            if not self._ledger.has_spent(trial.trial_id):
                self._ledger.reserve(trial.trial_id, trial.train_flops)
            book_outcome(self._ledger, trial, folder, outcome)
        return outcome

    def _take(self, trial: Trial, span: dict[str, Any] | None = None) -> None:
        """Takes a result if it is there; one that a crash kept out of the ledger is booked now."""
        folder = trial_folder(self._study, trial.trial_id)
        outcome = self._site.with_storage(partial(self._book_outcome, trial, folder))
        if outcome is None:
            return
        self._rows[trial.trial_id] = outcome.row
        self._loggers.finish(outcome.row, folder / "curve.parquet")
        if span is not None:
            timing = {name: value for name, value in outcome.timing.items() if name != "wall_s"}
            self._event("trial-finished", **span, **timing)
            self._progress.count(trial, outcome, spent_flops=self._ledger.spent_flops)
            value = outcome.row.get(self._tuning.metric)
            found = outcome.row["status"] if value is None else f"{self._tuning.metric} {value:.1%}"
            self._progress.tell(
                f"[tuning {len(self._rows)}/{len(self._trials)}] {trial.cell}, "
                f"{words(self._tuning.values[trial.trial_id])}, seed {trial.seed}: {found}"
            )
