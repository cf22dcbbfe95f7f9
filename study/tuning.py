"""Runs a study's tuning before its grid: Ray Tune over the planned values, until every winner is known."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from budgets.ledger import Ledger, drop_torn_line
from budgets.plan import Plan, Trial, TuningPlan
from budgets.quantity import format_flops
from budgets.winner import words
from runners.data.cache import drop_idle
from runners.files import new_file
from runners.loggers import Loggers
from runners.results import PLAN_COLUMNS, plan_row, to_frame, write_table
from runners.schedule import Schedule, Task
from runners.throughput import predict_s
from runners.trial import drop_scaffolding, read_outcome
from runners.tune import tune_trials
from study.agenda import tuning_agenda
from study.bookkeeping import (
    add_event,
    book_given_up,
    book_lost,
    book_outcome,
    forget_failure,
    needs,
    trial_folder,
    trial_job,
    write_failure,
)
from study.dump import dump_declaration
from study.lock import stop_mark
from study.progress import Progress
from study.site import Site
from study.study import Study, plan_study
from study.tuning_table import write_tried, write_winners

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What a tuning came to.

    Attributes:
        plan: The plan with the winners' values.
        failures: Trial id → reason, for the trials that gave no result, without which there is no winner.
        stopped: By what it was told to stop before its end; empty when it was not.
    """

    plan: Plan
    failures: dict[str, str]
    stopped: str


def tune_study(study: Study, plan: Plan, progress: Progress, site: Site, *, retry_failed: bool) -> Tuned:
    """Tunes what the plan waits for; what is finished is never run again.

    Args:
        study: The study, locked for this run.
        plan: Its plan, with a tuning.
        progress: Where progress is shown.
        site: Where trials run.
        retry_failed: Whether to run again what failed in an earlier run.

    Raises:
        ValueError: A trial is too wide for every node, or the share is used up.
    """
    folder, tuning = study.folder, plan.tuning
    assert tuning is not None, "asked where something is tuned"
    failed = _failed_before(study, tuning, progress, retry_failed=retry_failed)
    if failed:
        return Tuned(plan=plan, failures=failed, stopped="")
    loggers = Loggers(study.declaration.loggers, folder, progress.say)
    with new_file(folder / "study.yaml") as file:
        file.write_text(dump_declaration(study.declaration), encoding="utf-8")
    ledger = Ledger(folder / "ledger.jsonl", plan.study_flops)
    drop_torn_line(folder / "events.jsonl")
    ledger.charge(plan)
    slots = _slots(study, tuning, site)
    failures: dict[str, str] = {}
    while not failures and not site.told() and plan.tuning is not None and plan.tuning.waiting:
        failures = _Round(study, plan.tuning, ledger, progress, loggers=loggers, site=site).execute(slots)
        plan = plan_study(study)
    drop_idle()
    assert plan.tuning is not None, "the declaration is the same"
    write_winners(folder / "tuning.json", plan.tuning)
    for winner in plan.tuning.winners:
        progress.tell(
            f"tuned {winner.architecture} {winner.strategy}: {words(winner.values)} ({winner.score:.1%})"
        )
    return Tuned(plan=plan, failures=failures, stopped=site.told())


def _failed_before(
    study: Study, tuning: TuningPlan, progress: Progress, *, retry_failed: bool
) -> dict[str, str]:
    """Gives the trials that failed in an earlier run, and why, unless they are to be run again."""
    todo = tuning_agenda(study, tuning, retry_failed=retry_failed)
    for trial in todo.to_run:
        forget_failure(trial_folder(study, trial.trial_id))
    for trial in tuning.trials:
        if trial.trial_id in todo.failed:
            progress.failed(trial, todo.failed[trial.trial_id])
    if todo.failed:
        progress.say(
            f"note: {len(todo.failed):,} of the tuning failed before, and the grid waits for it; "
            "--retry-failed runs them again"
        )
    return todo.failed


def _slots(study: Study, tuning: TuningPlan, site: Site) -> int:
    """Counts how many trials run at once, when there is room for one.

    Raises:
        ValueError: No node has room for one, and none has joined in time.
    """
    tasks = (Task(trial=each.trial_id, predicted_s=0, resources=needs(study)) for each in tuning.trials)
    here = site.look_around(Schedule(tasks, retries=0))
    while not here.slots and not site.told():
        time.sleep(_LOOK_S)
        here.look()
    return here.slots


class _Round:
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
        waiting = [trial for trial in self._tuning.trials if trial.trial_id not in self._rows]
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
        add_event(self._study, "tuning-started", slots=slots, trials=len(waiting))
        tune_trials(
            [trial_job(self._study, trial) for trial in waiting],
            self,
            resources=needs(self._study),
            retries=resources.retries,
            pause_s=resources.backoff_s,
            leave=stop_mark(self._study.folder).resolve(),
        )
        add_event(self._study, "tuning-ended")
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
            for entry in self._ledger.entries
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
        add_event(self._study, "trial-started", trial=trial, slot=slot)

    def lost(self, trial: str, reason: str) -> None:
        """Books what a crash lost; all leave when the study budget has no room to do it again."""
        self._book_lost(trial)
        add_event(self._study, "trial-retried", **self._span(trial), reason=reason)
        self._progress.say(f"{self._name(trial)}: {reason}; it goes on from its last checkpoint")
        if self._ledger.over_budget:
            self._over_budget = (
                f"{self._name(trial)}: {reason}; the study budget has no room to do its work again"
            )
            self._stop(self._over_budget)

    def finished(self, trial: str) -> None:
        """Takes a trial's result."""
        self._take(self._trials[trial], self._span(trial))
        self._write()

    def failed(self, trial: str, reason: str, *, keep: bool) -> None:
        """Notes why a trial has no result."""
        folder = trial_folder(self._study, trial)
        if keep:
            self._book_lost(trial)
        else:
            book_given_up(self._ledger, trial, folder)
        write_failure(folder, reason)
        add_event(self._study, "trial-failed", **self._span(trial), reason=reason)
        self._failures[trial] = reason
        self._progress.failed(self._trials[trial], reason)

    def left(self, trial: str, reason: str) -> None:
        """Notes that a trial was told to leave; a later run goes on with it."""
        self._book_lost(trial)
        add_event(self._study, "trial-left", **self._span(trial), reason=reason)

    def tick(self) -> None:
        """Draws the live view anew, and has all leave once the run was told to stop."""
        self._progress.tick(self._study.folder, self._started_at)
        told = self._site.told()
        if told and not self._stopped:
            self._progress.say(f"told to stop by {told}: what runs writes a checkpoint and leaves")
            self._stop(told)

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        add_event(self._study, "study-stopping", reason=reason)
        stop_mark(self._study.folder).touch()

    def _book_lost(self, trial: str) -> None:
        for path in book_lost(self._ledger, self._trials[trial], trial_folder(self._study, trial)):
            add_event(self._study, "checkpoint-damaged", trial=trial, file=path.name)
            self._progress.say(f"{self._name(trial)}: {path} is damaged and was removed")

    def _name(self, trial: str) -> str:
        return f"tuning {self._trials[trial].cell}, {words(self._tuning.values[trial])}"

    def _write(self) -> None:
        write_tried(self._study.folder / "tuning.parquet", self._tuning, self._rows)

    def _span(self, trial: str) -> dict[str, Any]:
        slot, started_at = self._started_at.pop(trial)
        return {"trial": trial, "slot": slot, "wall_s": time.monotonic() - started_at}

    def _take(self, trial: Trial, span: dict[str, Any] | None = None) -> None:
        """Takes a result if it is there; one that a crash kept out of the ledger is booked now."""
        folder = trial_folder(self._study, trial.trial_id)
        outcome = read_outcome(folder)
        if outcome is None:
            return
        drop_scaffolding(folder)
        self._rows[trial.trial_id] = outcome.row
        if not self._ledger.has_spent(trial.trial_id):
            self._ledger.reserve(trial.trial_id, trial.train_flops)
        book_outcome(self._ledger, trial, folder, outcome)
        self._loggers.add(outcome.row, folder / "curve.parquet")
        if span is not None:
            timing = {name: value for name, value in outcome.timing.items() if name != "wall_s"}
            add_event(self._study, "trial-finished", **span, **timing)
            value = outcome.row.get(self._tuning.metric)
            found = outcome.row["status"] if value is None else f"{self._tuning.metric} {value:.1%}"
            self._progress.tell(
                f"[tuning {len(self._rows)}/{len(self._trials)}] {trial.cell}, "
                f"{words(self._tuning.values[trial.trial_id])}, seed {trial.seed}: {found}"
            )
