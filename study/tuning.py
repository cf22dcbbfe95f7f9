"""Runs a study's tuning before its grid: Ray Tune over the planned values, until every winner is known."""

import time
from typing import TYPE_CHECKING, Any

from budgets.declaration import require_runnable
from budgets.ledger import Ledger, drop_torn_line
from budgets.plan import Plan, Trial, TuningPlan
from budgets.quantity import format_flops
from budgets.winner import words
from runners.data.cache import drop_idle
from runners.files import new_file
from runners.loggers import Loggers
from runners.nodes import slots
from runners.ray_address import cluster_address
from runners.ray_backend import RayBackend
from runners.results import PLAN_COLUMNS, plan_row, to_frame, write_table
from runners.throughput import predict_s
from runners.trial import drop_scaffolding, read_outcome
from runners.tune import tune_trials
from study.bookkeeping import (
    add_event,
    book_given_up,
    book_lost,
    book_outcome,
    needs,
    trial_folder,
    trial_job,
)
from study.dump import dump_declaration
from study.lock import only_run, told_to_stop
from study.progress import Progress
from study.study import Study, ensure_pool, plan_study
from study.tuning_table import write_tried, write_winners

if TYPE_CHECKING:
    from collections.abc import Mapping


def tune_study(
    study: Study, plan: Plan, progress: Progress, *, address: str | None = None
) -> tuple[Plan, dict[str, str]]:
    """Tunes what the plan waits for; what is finished is never run again.

    Args:
        study: The study.
        plan: Its plan, with a tuning.
        progress: Where progress is shown.
        address: What was asked for with ``--address``, or None.

    Returns:
        The plan with the winners' values, and trial id → reason for the trials that gave no result, without
        which there is no winner.

    Raises:
        ValueError: The study can't be run, another run of it is under way, or the share is used up.
    """
    require_runnable(study.declaration)
    folder = study.folder
    loggers = Loggers(study.declaration.loggers, folder, progress.say)
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    with only_run(folder):
        ensure_pool(study, progress.tell)
        with new_file(folder / "study.yaml") as file:
            file.write_text(dump_declaration(study.declaration), encoding="utf-8")
        ledger = Ledger(folder / "ledger.jsonl", plan.study_flops)
        drop_torn_line(folder / "events.jsonl")
        ledger.charge(plan)
        failures: dict[str, str] = {}
        with RayBackend(cluster_address(address)) as backend:
            while plan.tuning is not None and plan.tuning.waiting and not failures:
                failures = _Round(study, plan.tuning, ledger, progress, loggers).execute(
                    slots(backend.nodes(), needs(study))
                )
                plan = plan_study(study)
        drop_idle()
        assert plan.tuning is not None, "the declaration is the same"
        write_winners(folder / "tuning.json", plan.tuning)
    for winner in plan.tuning.winners:
        progress.tell(
            f"tuned {winner.architecture} {winner.strategy}: {words(winner.values)} ({winner.score:.1%})"
        )
    return plan, failures


class _Round:
    """The trials of a tuning that are known at one time.

    Args:
        study: The study.
        tuning: The trials.
        ledger: The study's book.
        progress: Where progress is shown.
        loggers: Other tools that are written to.
    """

    def __init__(
        self, study: Study, tuning: TuningPlan, ledger: Ledger, progress: Progress, loggers: Loggers
    ) -> None:
        self._study, self._tuning, self._ledger, self._progress = study, tuning, ledger, progress
        self._loggers = loggers
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
            book_lost(self._ledger, trial, trial_folder(self._study, trial.trial_id))
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
            cpus=resources.cpus,
            gpus=resources.gpus,
            retries=resources.retries,
        )
        add_event(self._study, "tuning-ended")

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

    def lost(self, trial: str) -> None:
        """Books what a dead worker lost.

        Raises:
            ValueError: The study budget has no room to do it again.
        """
        book_lost(self._ledger, self._trials[trial], trial_folder(self._study, trial))
        reason = "the worker process died"
        add_event(self._study, "trial-retried", **self._span(trial), reason=reason)
        if self._ledger.over_budget:
            raise ValueError(f"tuning, {trial}: {reason}; the study budget has no room to do its work again")
        self._progress.say(f"tuning, {trial}: {reason}; it goes on from its last checkpoint")

    def ended(self, trial: str, reason: str) -> None:
        """Takes a trial's result, or notes why there is none."""
        span = self._span(trial)
        if not reason:
            self._take(self._trials[trial], span)
            self._write()
            return
        book_given_up(self._ledger, trial, trial_folder(self._study, trial))
        add_event(self._study, "trial-failed", **span, reason=reason)
        self._failures[trial] = reason
        self._progress.failed(self._trials[trial], reason)

    def left(self, trial: str, reason: str) -> None:
        """Notes that a trial was told to leave; a later run goes on with it."""
        book_lost(self._ledger, self._trials[trial], trial_folder(self._study, trial))
        add_event(self._study, "trial-left", **self._span(trial), reason=reason)
        self._failures[trial] = reason
        self._progress.say(f"tuning, {trial}: {reason}; a later run goes on with it")

    def tick(self) -> None:
        """Draws the live view anew.

        Raises:
            KeyboardInterrupt: `study stop` asks for it; a later run goes on from the last checkpoints.
        """
        if told_to_stop(self._study.folder):
            raise KeyboardInterrupt
        self._progress.tick(self._study.folder, self._started_at)

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
