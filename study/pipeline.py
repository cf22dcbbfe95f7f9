"""Runs the grid of a study: trials within the budget, every result kept, nothing finished done again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgets.ledger import Ledger, drop_torn_line, read_entries, reserved
from budgets.plan import Plan, Trial
from budgets.quantity import format_flops
from budgets.reconcile import reconcile
from runners.backend import Backend, Ended, Job
from runners.checkpoint import kept_steps
from runners.data.cache import drop_idle
from runners.files import new_file, write_json
from runners.loggers import Loggers
from runners.results import CURVE_COLUMNS, RESULT_COLUMNS, plan_row, read_table, to_frame, write_table
from runners.schedule import Done, GiveUp, Preempt, Retry, Schedule, Start, Task
from runners.throughput import predict_s
from runners.trial import Outcome, drop_scaffolding, run_trial, take_part
from study.agenda import Agenda, agenda
from study.bookkeeping import (
    add_event,
    book_given_up,
    book_left_behind,
    book_lost,
    book_outcome,
    forget_failure,
    needs,
    trial_folder,
    trial_job,
    write_failure,
)
from study.dump import dump_declaration
from study.environment import environment
from study.progress import Progress
from study.site import Site
from study.study import Study, measured_throughput, plan_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAIT_S = 0.5
_BACKOFF = 4
_WRITE_TABLES_S = 5.0
_TABLES_PAUSE = 20  # times as long as it took to write them: thousands of trials take seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a run did not bring to an end.

    Attributes:
        failures: Trial id → reason, for the trials that gave no result.
        remaining: Trials that the study budget had no room for.
        stopped: By what it was told to stop before its end; empty when it was not.
    """

    failures: dict[str, str]
    remaining: tuple[Trial, ...]
    stopped: str


class Run:
    """One run of a study's grid.

    Args:
        study: The study, locked for this run.
        plan: Its plan, with nothing left to tune.
        progress: Where progress is shown.
        site: Where trials run.
        only: The trials to run, by id or by words of their cells; none for all.
        retry_failed: Whether to run again what failed in an earlier run.
    """

    def __init__(  # noqa: PLR0913 - the options of a command
        self,
        study: Study,
        plan: Plan,
        progress: Progress,
        site: Site,
        *,
        only: Sequence[str] = (),
        retry_failed: bool = False,
    ) -> None:
        self._study, self._plan, self._progress, self._site = study, plan, progress, site
        self._only, self._retry_failed = only, retry_failed
        self._loggers = Loggers(study.declaration.loggers, study.folder, progress.say)
        self._stopped = ""
        self._trials = {trial.trial_id: trial for trial in plan.trials}
        self._outcomes: dict[str, Outcome] = {}
        self._failures: dict[str, str] = {}
        self._remaining: list[Trial] = []
        self._retry_at: dict[str, float] = {}
        self._kept: dict[str, int] = {}  # steps in the checkpoint that a trial's last crash left
        self._last: dict[str, tuple[dict[str, Any], str]] = {}  # how each trial's last attempt ended
        self._started_at: dict[str, tuple[int, float]] = {}
        self._tables_due = 0.0

    def execute(self) -> Result:
        """Runs every trial of the plan that has no result yet.

        Returns:
            What it did not bring to an end.

        Raises:
            ValueError: What is booked, or the nodes that there are, have no room for it.
        """
        folder = self._study.folder
        todo = agenda(self._study, self._plan, only=self._only, retry_failed=self._retry_failed)
        self._ledger = Ledger(folder / "ledger.jsonl", self._plan.study_flops)
        self._check_book()
        self._write_inputs()
        drop_torn_line(folder / "events.jsonl")
        self._ledger.charge(self._plan)
        self._take_up(todo)
        self._progress.begin(self._plan, finished=self._outcomes, spent_flops=self._ledger.spent_flops)
        if todo.failed:
            self._progress.say(f"note: {len(todo.failed):,} failed before; --retry-failed runs them again")
        if todo.to_run:
            self._run(todo.to_run)
        self._write_tables()
        self._say_differences()
        return Result(failures=self._failures, remaining=tuple(self._remaining), stopped=self._stopped)

    def _take_up(self, todo: Agenda) -> None:
        """Takes what earlier runs left; what a crash of a driver kept out of the ledger is booked now."""
        known = {trial.trial_id for trial in self._plan.all_trials}
        for trial_id in sorted(reserved(read_entries(self._ledger.path)).keys() - known):
            book_left_behind(self._ledger, trial_id, self._folder(trial_id))
            self._site.give(trial_id)
        for trial in self._plan.trials:
            outcome = todo.finished.get(trial.trial_id)
            if outcome is None:
                if self._ledger.has_reserved(trial.trial_id):
                    self._book_lost(trial)
                continue
            drop_scaffolding(self._folder(trial.trial_id))
            if not self._ledger.has_spent(trial.trial_id):
                self._ledger.reserve(trial.trial_id, trial.train_flops)
            self._take(trial, outcome)
        self._failures.update(todo.failed)
        for trial in todo.to_run:
            if forget_failure(self._folder(trial.trial_id)):
                self._site.give(trial.trial_id)

    def _say_differences(self) -> None:
        found = reconcile(self._plan, read_entries(self._ledger.path))
        if found.left_behind:
            self._progress.say(
                f"note: {format_flops(found.left_behind)} in the ledger went to trials that this declaration "
                "does not have; they count against the study budget"
            )
        for difference in found.differences:
            self._progress.say(f"note: the ledger and the plan differ: {difference}")

    def _check_book(self) -> None:
        """Refuses a plan that what is already booked under this name leaves no room for.

        Raises:
            ValueError: It does not fit; the message says what is booked.
        """
        cap, ids = self._plan.study_flops, {trial.trial_id for trial in self._plan.all_trials}
        others = {
            e.what: e.train_flops
            for e in read_entries(self._ledger.path)
            if e.entry == "spent" and e.what not in ids
        }
        ahead = sum(t.train_flops for t in self._plan.trials if not self._ledger.has_spent(t.trial_id))
        if cap is not None and others and self._ledger.spent_flops + ahead > cap:
            raise ValueError(
                f"{self._ledger.path} holds {format_flops(sum(others.values()))} of {len(others)} trials "
                f"that this declaration does not have, and {format_flops(ahead)} are still to run: more than "
                f"the study budget of {format_flops(cap)}. Name the changed study anew, or raise budget.study"
            )

    def _run(self, waiting: Sequence[Trial]) -> None:
        resources = self._study.declaration.resources
        measured = measured_throughput(self._study, self._plan)
        self._schedule = Schedule(
            (
                Task(
                    trial=trial.trial_id,
                    predicted_s=predict_s(trial, measured),
                    resources=needs(self._study),
                    nodes=resources.nodes,
                    train_flops=0 if self._ledger.has_reserved(trial.trial_id) else trial.train_flops,
                )
                for trial in waiting
            ),
            retries=resources.retries,
        )
        here, backend = self._site.look_around(self._schedule), self._site.backend
        slots = here.slots
        self._event("study-started", slots=slots)
        while self._obey(backend):
            here.look()
            if here.slots != slots:
                slots = here.slots
                self._event("slots-changed", slots=slots)
            self._heed(backend)
            for ended in here.wait(_WAIT_S):
                self._end(ended)
            for trial_id in [each for each, due in self._retry_at.items() if due <= time.monotonic()]:
                del self._retry_at[trial_id]
                self._schedule.retry(trial_id)
            self._site.watch(self._started_at)
            self._progress.tick(self._study.folder, self._started_at, slots=slots)
            self._loggers.follow(self._trials, self._started_at)
            if time.monotonic() > self._tables_due:
                self._site.with_storage(self._write_tables)
        self._event("study-ended")
        self._loggers.close()
        drop_idle()

    def _heed(self, backend: Backend) -> None:
        """Has all that runs leave, once the run was told to stop."""
        told = self._site.told()
        if self._stopped or not told:
            return
        self._stopped = told
        self._schedule.drain()
        self._event("study-stopping", reason=told)
        self._progress.say(f"told to stop by {told}: what runs writes a checkpoint and leaves")
        for trial_id in self._started_at:
            backend.ask_to_leave(trial_id)

    def _obey(self, backend: Backend) -> bool:
        """Does what the schedule says.

        Returns:
            Whether there is more to come.
        """
        for each in self._schedule.instructions(self._ledger.room_flops):
            match each:
                case Start(trial=trial_id, nodes=nodes):
                    self._start(trial_id, nodes, backend)
                case Retry(trial=trial_id, attempt=attempt):
                    self._retry(self._trials[trial_id], attempt)
                case Preempt(trial=trial_id):
                    backend.ask_to_leave(trial_id)
                case GiveUp(trial=trial_id, cause="budget"):
                    self._leave_out(self._trials[trial_id])
                case GiveUp(trial=trial_id, cause=cause):
                    self._give_up(self._trials[trial_id], keep=cause == "crashed")
                case Done():
                    return False
        return True

    def _start(self, trial_id: str, nodes: tuple[str, ...], backend: Backend) -> None:
        trial = self._trials[trial_id]
        self._site.with_storage(partial(self._ledger.reserve, trial_id, trial.train_flops))
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self._started_at[trial_id] = (slot, time.monotonic())
        self._event("trial-started", trial=trial_id, slot=slot, nodes=nodes)
        backend.start(
            Job(
                trial=trial_id,
                run=partial(run_trial if len(nodes) == 1 else take_part, trial_job(self._study, trial)),
                nodes=nodes,
                resources=self._schedule.task(trial_id).resources,
                ranks=self._study.declaration.resources.ranks_per_node,
            )
        )

    def _end(self, ended: Ended) -> None:
        trial = self._trials[ended.trial]
        slot, started_at = self._started_at.pop(ended.trial)
        span = {"trial": ended.trial, "slot": slot, "wall_s": time.monotonic() - started_at}
        self._last[ended.trial] = span, ended.reason
        self._site.fetch(ended.trial)
        if ended.how == "finished":
            assert isinstance(ended.value, Outcome)
            self._schedule.finish(ended.trial)
            self._event(
                "trial-finished", **span, **{k: v for k, v in ended.value.timing.items() if k != "wall_s"}
            )
            self._take(trial, ended.value)
            self._progress.finished(trial, ended.value, spent_flops=self._ledger.spent_flops)
            return
        self._book_lost(trial)
        if ended.how == "failed":
            self._schedule.fail(ended.trial)
        elif ended.how == "crashed":
            kept = kept_steps(self._folder(ended.trial))
            progressed = kept > self._kept.get(ended.trial, 0)
            self._kept[ended.trial] = kept
            self._schedule.crash(ended.trial, progressed=progressed, dead_nodes=ended.dead_nodes)
        else:
            self._event("trial-left", **span, reason=ended.reason)
            if not self._stopped:
                self._progress.say(f"{trial.cell}: {ended.reason}; it goes on from there")
            self._schedule.left(ended.trial, dead_nodes=ended.dead_nodes)

    def _take(self, trial: Trial, outcome: Outcome) -> None:
        self._outcomes[trial.trial_id] = outcome
        folder = self._folder(trial.trial_id)
        self._site.with_storage(partial(book_outcome, self._ledger, trial, folder, outcome))
        self._loggers.finish(outcome.row, folder / "curve.parquet")

    def _book_lost(self, trial: Trial) -> None:
        folder = self._folder(trial.trial_id)
        for path in self._site.with_storage(partial(book_lost, self._ledger, trial, folder)):
            self._event("checkpoint-damaged", trial=trial.trial_id, file=path.name)
            self._progress.say(f"{trial.cell}: {path} is damaged and was removed; the one before is taken")

    def _retry(self, trial: Trial, attempt: int) -> None:
        span, reason = self._last[trial.trial_id]
        self._event("trial-retried", **span, reason=reason)
        self._progress.say(f"{trial.cell}: {reason}; it goes on from its last checkpoint")
        wait_s = self._study.declaration.resources.backoff_s * _BACKOFF ** (attempt - 1)
        self._retry_at[trial.trial_id] = time.monotonic() + wait_s

    def _give_up(self, trial: Trial, *, keep: bool) -> None:
        """Books a trial that gave no result; it keeps its checkpoint where that may be gone on from."""
        span, reason = self._last[trial.trial_id]
        folder = self._folder(trial.trial_id)
        if not keep:
            self._site.with_storage(partial(book_given_up, self._ledger, trial.trial_id, folder))
        self._site.with_storage(partial(write_failure, folder, reason))
        self._site.give(trial.trial_id)
        self._event("trial-failed", **span, reason=reason)
        self._failures[trial.trial_id] = reason
        self._loggers.leave(trial.trial_id)
        self._progress.failed(trial, reason)

    def _leave_out(self, trial: Trial) -> None:
        """Books a trial that the study budget has no room for; a later run with more of it starts it anew."""
        self._retry_at.pop(trial.trial_id, None)
        _, reason = self._last.get(trial.trial_id, ({}, "not started"))
        folder = self._folder(trial.trial_id)
        self._site.with_storage(partial(book_given_up, self._ledger, trial.trial_id, folder))
        self._site.give(trial.trial_id)
        self._event(
            "trial-left-out", trial=trial.trial_id, reason=f"{reason}; the study budget has no room for it"
        )
        self._remaining.append(trial)

    def _write_inputs(self) -> None:
        folder = self._study.folder
        with new_file(folder / "study.yaml") as file:
            file.write_text(dump_declaration(self._study.declaration), encoding="utf-8")
        planned, left_out = plan_tables(self._plan)
        write_table(folder / "plan.parquet", planned)
        write_table(folder / "left-out.parquet", left_out)
        write_json(folder / "environment.json", environment())

    def _write_tables(self) -> None:
        """Writes results and curves anew in the plan's order: the same trials give the same bytes."""
        began = time.monotonic()
        rows: list[Mapping[str, Any]] = []
        curves: list[pd.DataFrame] = []
        for trial in self._plan.trials:
            if trial.trial_id in self._outcomes:
                rows.append(self._outcomes[trial.trial_id].row)
                curves.append(read_table(self._folder(trial.trial_id) / "curve.parquet"))
            elif trial.trial_id in self._failures:
                rows.append(_failed_row(trial, self._failures[trial.trial_id]))
        write_table(self._study.folder / "results.parquet", to_frame(rows, RESULT_COLUMNS))
        joined = pd.concat(curves, ignore_index=True) if curves else to_frame([], CURVE_COLUMNS)
        write_table(self._study.folder / "curves.parquet", joined)
        took_s = time.monotonic() - began
        self._tables_due = time.monotonic() + max(_WRITE_TABLES_S, _TABLES_PAUSE * took_s)

    def _event(self, event: str, **facts: object) -> None:
        self._site.with_storage(partial(add_event, self._study, event, **facts))

    def _folder(self, trial_id: str) -> Path:
        return trial_folder(self._study, trial_id)


def _failed_row(trial: Trial, reason: str) -> dict[str, Any]:
    return {
        **plan_row(trial),
        "samples_seen": 0,
        "steps": 0,
        "epochs": 0.0,
        "train_flops": 0.0,
        "evaluation_flops": 0.0,
        "precision": trial.recipe.precision,
        "status": "failed",
        "reason": reason,
        "train_loss": float("nan"),
    }
