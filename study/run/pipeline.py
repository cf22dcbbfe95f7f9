"""Runs the grid of a study within its budget; keeps every result and never repeats a finished trial."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.cells.table import records
from analysis.design.adaptive import Decision, decide
from analysis.design.course import CHOSEN, COURSE
from analysis.error_unit import ErrorUnit
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial, share_trunks
from budgets.quantity import format_flops
from runners.results import (
    CURVE_COLUMNS,
    EVALUATION_VERSION,
    MIDWAY_COLUMNS,
    RESULT_COLUMNS,
    plan_row,
    read_table,
    to_frame,
)
from runners.store.files import write_sealed
from runners.trials.trial_files import MIDWAY, Outcome, drop_milestone, drop_scaffolding, milestone
from study.run.agenda import Agenda, agenda, lost_checkpoints, require_room
from study.run.books import RunSummary
from study.run.execution import Execution
from study.state.book import read_book
from study.state.design import ALL_SLOTS, choices_of, question_lines, questions, trials_of
from study.state.environment import environment
from study.state.events import trials_of_event
from study.state.kept_trunks import with_kept_trunks
from study.state.plan_study import plan_tables, results_by_version
from study.state.study import Study
from study.state.study_facts import keep_rankings

_JOINED_AT_ONCE = 256  # tables; a few hundred joins of one more table each copy the rows a few hundred times


class Chooser:
    """The choices of one run among the trials of an agenda.

    Attributes:
        trials: Trials of the agenda by id, those that have ended included.
        begun: Trials that earlier runs chose, and further attempts, that have no result yet.
        first_slots: Number of trials to choose before the slots are known: the first round, or one.
    """

    def __init__(self, study: Study, plan: Plan, todo: Agenda) -> None:
        self._study = study
        known = {*todo.finished, *todo.failed, *(trial.trial_id for trial in todo.to_run)}
        grid = {trial.trial_id: trial for trial in plan.trials if trial.trial_id in known}
        self.trials = {trial_id: trial for trial_id, trial in grid.items() if trial.attempt == 1}
        self._state: tuple[int, ...] = ()
        chosen = {*trials_of_event(study.folder, CHOSEN)}
        self.begun = [trial for trial in todo.to_run if trial.trial_id in chosen or trial.attempt > 1]
        self.first_slots = 1 if todo.finished else ALL_SLOTS

    def choose(
        self,
        outcomes: Mapping[str, Outcome],
        failures: Collection[str],
        running: Collection[str],
        *,
        slots: int,
        room_flops: int | None,
    ) -> Decision | None:
        """Return the next decision; None if nothing has changed since the last one found no trial.

        ``running`` were chosen and have no result yet; ``slots`` trials could start; ``room_flops`` are
        neither spent nor set aside for chosen trials, None without a limit.
        """
        # A decision depends only on results and room: without a change it would find no trial again.
        state = len(outcomes), len(failures), len(running), -1 if room_flops is None else room_flops
        if state == self._state:
            return None
        declaration, choices = self._study.declaration, choices_of(tuple(self.trials.values()))
        rows = [outcome.row for what, outcome in outcomes.items() if what.partition("-")[0] in self.trials]
        trials = trials_of(declaration, to_frame(rows, RESULT_COLUMNS), choices)
        lost = {*failures, *outcomes} - set(trials.every["trial"])
        decision = decide(
            trials, choices, ask=questions(declaration), running=running, ended=lost, slots=slots,
            room_flops=room_flops,
        )  # fmt: skip
        if not decision.picks:
            self._state = state
        return decision


def next_of_design(study: Study, plan: Plan, todo: Agenda) -> tuple[Agenda, str]:
    """Return the agenda of the trials that a design would run first, and a sentence on what follows."""
    chooser = Chooser(study, plan, todo)
    first, follows = chooser.begun, "the design chooses further trials by the results of these"
    if not first:
        book = read_book(study, {trial.trial_id: trial for trial in plan.all_trials})
        charges = sum(charge.flops for charge in book.unpaid(plan))
        room = book.room_flops(plan.study_flops)
        decision = chooser.choose(
            todo.finished, todo.failed, (), slots=chooser.first_slots,
            room_flops=None if room is None else room - charges,
        )  # fmt: skip
        assert decision is not None, "the first decision of a chooser"
        first = [chooser.trials[pick.trial] for pick in decision.picks]
        if decision.stop:
            follows = f"no further trial is chosen: {decision.stop}"
    return replace(todo, to_run=tuple(first)), follows


class TrialTables:
    """The tables of one name in trials' folders, as one table; each is read once, soon after its trial ended.

    So to write the table of a study with many trials takes no longer than its rows do.
    """

    def __init__(self, study: Study, name: str, columns: Mapping[str, str]) -> None:
        self._study, self._name = study, name
        self._joined, self._new = to_frame([], columns), dict[str, pd.DataFrame]()
        self._known = set[str]()

    def add(self, trial: str, *, needed: bool = False) -> None:
        """Read a trial's table, if there is one and it was not read; ValueError if it is ``needed``."""
        path = self._study.trial_folder(trial) / self._name
        if trial not in self._known and (needed or path.exists()):
            self._new[trial] = read_table(path)
            self._known.add(trial)
        if len(self._new) >= _JOINED_AT_ONCE:
            self._join()

    def of(self, trials: Sequence[str]) -> pd.DataFrame:
        """Return the rows of trials that were added, in the order given."""
        self._join()
        order = self._joined["trial"].map({trial: number for number, trial in enumerate(trials)})
        return self._joined.iloc[order.argsort(kind="stable")]

    def _join(self) -> None:
        if self._new:
            known = [self._joined] if len(self._joined) else []
            self._joined, self._new = pd.concat([*known, *self._new.values()], ignore_index=True), {}


class Run(Execution):
    """One run of a study's grid, whose tuning is done."""

    name = "study"
    _chooser: Chooser | None = None  # of an adaptive design

    def execute(self, *, only: Sequence[str], retry_failed: bool) -> RunSummary:
        """Run the selected trials that have no result yet, and return those left without one.

        ``only`` has ids of trials or words of their cells, empty for all; with ``retry_failed``, trials that
        failed in an earlier run are run again.

        Raises:
            ValueError: The plan does not fit in the rest of the budget, or a trial does not fit on the nodes.
        """
        todo = agenda(self.study, self.plan.trials, only=only, retry_failed=retry_failed)
        require_room(self.study, self.plan)
        self._write_inputs()
        self.resume(todo)
        chosen: Sequence[Trial] | None = None
        if self.study.declaration.design.adaptive:
            self._chooser = Chooser(self.study, self.plan, todo)
            known = todo.finished.keys() | todo.failed
            ended = [trial for trial in self.plan.trials if trial.trial_id in known]
            chosen = [*ended, *self._chooser.begun]
        spent = self.book.spent_flops
        self.progress.begin(self.study.folder, self.plan, spent_flops=spent, chosen=chosen)
        if todo.failed_of_selected:
            self.progress.say(
                f"note: {todo.failed_of_selected:,} failed in an earlier run; --retry-failed runs them again"
            )
        to_run: Sequence[Trial] = todo.to_run
        if to_run and self._chooser is not None:
            first = self._chooser.first_slots
            to_run = self._chooser.begun or self.further(first, (), self.room_flops)
        if to_run:
            self.run(to_run, self.site.backend)
        self.site.with_storage(self.write_tables)
        self.write_book()
        if elsewhere := self.book.besides(self.plan):
            self.progress.say(
                f"note: {format_flops(elsewhere)} were spent on trials that are not in this declaration; "
                "they count against the study budget"
            )
        # The exit code tells of the selected trials, the tables of all.
        failures = {trial: why for trial, why in self.failures.items() if trial in todo.selected}
        return replace(self.result, failures=failures)

    def resume(self, todo: Agenda) -> None:
        """Take over the results of earlier runs, also of trials that are no longer in the plan."""
        for folder, line in lost_checkpoints(self.study, self.plan, self.book):
            self.progress.say(f"note: {line}")
            self.site.with_storage(drop_scaffolding, folder)
            self.publish(folder.name)
        super().resume(todo)
        known = {trial.trial_id for trial in self.plan.all_trials}
        # Values that lost the tuning are not trained any further: their milestones are not needed.
        for trial_id in known - self.trials.keys():
            if milestone(self.study.trial_folder(trial_id)) is not None:
                drop_milestone(self.study.trial_folder(trial_id))
                self.publish(trial_id)

    def link(self) -> None:
        """Link the trunks by what has ended so far, in the plan and its table."""
        if not self.study.declaration.shares_trunks:
            return
        shared = replace(self.plan, trials=share_trunks(self.plan.trials))
        self.plan = replace(self.plan, trials=with_kept_trunks(self.study, shared).trials)
        for trial in self.plan.trials:  # settings stay as this run has chosen them
            old = self.trials.get(trial.trial_id, trial)
            self.trials[trial.trial_id] = replace(trial, recipe=old.recipe, resources=old.resources)
        self.study.write_table("plan.parquet", plan_tables(self.plan)[0])
        if self._chooser is not None:
            chosen_from = self._chooser.trials
            chosen_from |= {trial: self.trials[trial] for trial in chosen_from}

    def further(self, slots: int, waiting: Sequence[str], room_flops: int | None) -> Sequence[Trial]:
        """Choose further trials of an adaptive study, and record the reasons as events."""
        if self._chooser is None:
            return ()
        decision = self._chooser.choose(
            self.outcomes, self.failures, waiting, slots=slots, room_flops=room_flops
        )
        if decision is None:
            return ()
        for pick in decision.picks:
            self.event(CHOSEN, trial=pick.trial, cost_flops=pick.cost_flops, reason=pick.reason)
        answers = [asdict(answer) for answer in decision.answers]
        if answers:
            spent, grid = self.book.spent_flops, self.plan.train_flops
            self.event(COURSE, spent_flops=spent, grid_flops=grid, answers=answers, stop=decision.stop)
        if decision.stop:
            unit = ErrorUnit.of(self.study.declaration.metric)
            for line in (f"no further trial is chosen: {decision.stop}", *question_lines(answers, unit)):
                self.progress.say(line)
        trials = [self._chooser.trials[pick.trial] for pick in decision.picks]
        self.progress.add_trials(trials)
        return trials

    @property
    def room_flops(self) -> int | None:
        """Training FLOPs of the study budget neither spent nor reserved; None without a study budget."""
        return self.book.room_flops(self.plan.study_flops)

    def title(self, trial: Trial) -> str:
        """Return the trial's cell."""
        return str(trial.cell)

    def show_result(self, trial: Trial, outcome: Outcome) -> None:
        """Show a trial that has just ended with a result."""
        self.progress.finished(trial, outcome, spent_flops=self.book.spent_flops)

    def write_tables(self) -> None:
        """Rewrite results and curves in the plan's order, so that the same trials give the same bytes.

        The rows of former versions of the plan's strategies follow, as they were.
        """
        rows = list[Mapping[str, Any]]()
        for trial_id, trial in self.trials.items():
            if trial_id in self.outcomes:
                rows.append(self.outcomes[trial_id].row)
            elif trial_id in self.failures:
                rows.append(_failed_row(trial, self.failures[trial_id]))
        rows += self._of_former_versions
        self.study.write_table("results.parquet", to_frame(rows, RESULT_COLUMNS))
        order = [row["trial"] for row in rows]
        self.study.write_table("curves.parquet", self._curves.of(order))
        if len(midway := self._midway.of(order)):
            self.study.write_table(MIDWAY, midway)

    def book_outcome(self, trial: Trial, outcome: Outcome) -> None:
        """Book a trial's result, and read its curve for the table."""
        super().book_outcome(trial, outcome)
        self.site.with_storage(self._curves.add, trial.trial_id, needed=True)
        self.site.with_storage(self._midway.add, trial.trial_id)

    @cached_property
    def _curves(self) -> TrialTables:
        return TrialTables(self.study, "curve.parquet", CURVE_COLUMNS)

    @cached_property
    def _midway(self) -> TrialTables:
        return TrialTables(self.study, MIDWAY, MIDWAY_COLUMNS)

    @cached_property
    def _of_former_versions(self) -> list[dict[str, Any]]:
        """The rows of trials whose strategy is in the plan in another version, the newest version first."""
        rows = records(results_by_version(self.study, self.plan)[1])
        for row in rows:
            self._curves.add(row["trial"])
        return rows

    def _write_inputs(self) -> None:
        folder = self.study.folder
        self.study.write_declaration()
        planned, left_out, scores = plan_tables(self.plan)
        self.study.write_table("plan.parquet", planned)
        self.study.write_table("left-out.parquet", left_out)
        self.study.write_table("scores.parquet", scores)
        keep_rankings(self.study, self.plan)
        pools = dict.fromkeys(part.pool for trial in self.plan.all_trials for part in trial.components)
        write_sealed(folder / "environment.json", environment() | {"pool fingerprint": ", ".join(pools)})


def _failed_row(trial: Trial, reason: str) -> dict[str, Any]:
    return {
        **plan_row(trial),
        **dict.fromkeys(("samples_seen", "steps"), 0),
        **dict.fromkeys(("epochs", "train_flops", "paid_flops", "evaluation_flops"), 0.0),
        "precision": trial.recipe.precision,
        "evaluation_version": EVALUATION_VERSION,
        "status": "failed",
        "reason": reason,
        "train_loss": float("nan"),
    }
