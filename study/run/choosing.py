"""Choice of the trials of an adaptive study as its results come in (`analysis.design.adaptive`)."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from analysis.cells.table import tidy
from analysis.design.adaptive import Decision, decide
from budgets.book.ledger import unpaid
from budgets.planning.levels.trunks import before
from budgets.planning.plan import Plan
from runners.results import RESULT_COLUMNS, to_frame
from runners.trials.records.trial_files import Outcome
from study.state.agenda import Agenda
from study.state.design import ALL_SLOTS, choices_of, chosen_trials, questions
from study.state.study import Study


class Chooser:
    """The choices of one run among the trials of an agenda.

    Attributes:
        trials: Trials of the agenda by id, those that have ended included.
        begun: Trials that earlier runs chose and that have no result yet.
        first_slots: Number of trials to choose before the slots are known: the first round, or one.
    """

    def __init__(self, study: Study, plan: Plan, todo: Agenda) -> None:
        self._study = study
        known = {*todo.finished, *todo.failed, *(trial.trial_id for trial in todo.to_run)}
        self.trials = {trial.trial_id: trial for trial in plan.trials if trial.trial_id in known}
        self._grid = choices_of(tuple(self.trials.values()))
        self._state: tuple[int, ...] = ()
        chosen = chosen_trials(study.folder)
        self.begun = [trial for trial in todo.to_run if trial.trial_id in chosen]
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

        Args:
            outcomes: Results so far.
            failures: Failed trials.
            running: Trials that were chosen and have no result yet.
            slots: Number of trials that could start.
            room_flops: FLOPs neither spent nor set aside for chosen trials; None without a limit.
        """
        # A decision depends only on results and room: without a change it would find no trial again.
        state = len(outcomes), len(failures), len(running), -1 if room_flops is None else room_flops
        if state == self._state:
            return None
        rows = [outcome.row for trial, outcome in outcomes.items() if trial in self.trials]
        trials = tidy(to_frame(rows, RESULT_COLUMNS), metric=self._study.declaration.metric)
        lost = {*failures, *outcomes} - set(trials.frame["trial"])
        # If a trial of a trunk failed or diverged, the trunk's longer trials can't run either.
        ended = {
            trial for trial, planned in self.trials.items()
            if trial in lost or any(each.trial_id in lost for each in before(planned, self.trials))
        }  # fmt: skip
        decision = decide(
            trials, self._grid, ask=questions(self._study.declaration), running=running, ended=ended,
            slots=slots, room_flops=room_flops,
        )  # fmt: skip
        if not decision.picks:
            self._state = state
        return decision


def next_of_design(study: Study, plan: Plan, todo: Agenda) -> tuple[Agenda, str]:
    """Return the agenda of the trials that a design would run first, and a sentence on what follows."""
    chooser = Chooser(study, plan, todo)
    first, follows = chooser.begun, "the design chooses further trials by the results of these"
    if not first:
        book = study.book()
        charges = sum(charge.train_flops for charge in unpaid(book, plan))
        held = book.spent_flops + book.reserved_flops + charges
        decision = chooser.choose(
            todo.finished, todo.failed, (), slots=chooser.first_slots,
            room_flops=None if plan.study_flops is None else plan.study_flops - held,
        )  # fmt: skip
        assert decision is not None, "the first decision of a chooser"
        first = [chooser.trials[pick.trial] for pick in decision.picks]
        if decision.stop:
            follows = f"no further trial is chosen: {decision.stop}"
    return replace(todo, to_run=tuple(first)), follows
