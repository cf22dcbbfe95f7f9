"""Agenda of a run: the trials that it still has to run, and whether the study budget has room for them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from budgets.names import unknown
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial, shorter_trials
from budgets.planning.price import PendingTrial, forecast
from budgets.planning.tuning_plan import values_words
from budgets.quantity import format_flops, format_seconds_range, format_share, plural
from runners.results import cell_row
from runners.trials.trial_files import Outcome, kept_steps, read_outcome
from study.state.book import SPENT, Book, read_book, trial_folders
from study.state.plan_study import measured_throughput, plan_study, select_trials
from study.state.study import Study
from study.state.trial_states import Stage, TrialState, trial_states
from study.storage.lock import active_run

_MOST_SHOWN = 20


def paid_again(trials: Sequence[Trial]) -> str:
    """Describe trials that would be run again although they were paid for."""
    flops = format_flops(sum(trial.paid_flops for trial in trials))
    return f"{plural(len(trials), 'trial')} to run had finished before, and would cost {flops} again"


@dataclass(frozen=True, kw_only=True)  # no slots: a run asks for each trial what is cached here
class Agenda:
    """The states of a plan's trials, and the trials to run.

    Attributes:
        states: State of each trial of the plan.
        to_run: Trials to run, in the plan's order.
        selected: Ids of the trials that `--only` selects, and of those that they continue from.
    """

    states: dict[str, TrialState]
    to_run: tuple[Trial, ...]
    selected: frozenset[str]

    @cached_property
    def finished(self) -> dict[str, Outcome]:
        """Results of earlier runs by trial id."""
        return {trial: state.outcome for trial, state in self.states.items() if state.outcome is not None}

    @cached_property
    def failed(self) -> dict[str, str]:
        """Trial id → reason, for trials that failed in earlier runs and are not run again."""
        again = {trial.trial_id for trial in self.to_run}
        return {
            trial: state.reason
            for trial, state in self.states.items()
            if state.stage is Stage.FAILED and trial not in again
        }

    @property
    def failed_of_selected(self) -> int:
        """Number of selected trials that failed in earlier runs and are not run again."""
        return len(self.failed.keys() & self.selected)

    @property
    def left_alone(self) -> int:
        """Number of trials without a result that were not selected."""
        return len(self.states) - len(self.finished) - self.failed_of_selected - len(self.to_run)


def agenda(
    study: Study, trials: Sequence[Trial], *, only: Sequence[str] = (), retry_failed: bool = False
) -> Agenda:
    """Return the agenda of the trials of a study's grid or of its tuning; change nothing.

    ``only`` are ids of trials or words of cells, empty for all.

    Raises:
        ValueError: An entry of ``only`` matches no trial, or a result is damaged.
    """
    known = {trial.trial_id: trial for trial in trials}
    chosen = {trial.trial_id for trial in select_trials(trials, only)}
    # A trial needs the milestones of the shorter ones of its trunk.
    chosen |= {shorter.trial_id for trial in chosen for shorter in shorter_trials(known[trial], known)}
    states = trial_states(study.folder, known)

    def starts(trial: Trial) -> bool:
        state = states[trial.trial_id]
        return state.outcome is None and (state.stage is not Stage.FAILED or retry_failed)

    to_run = tuple(trial for trial in trials if trial.trial_id in chosen and starts(trial))
    return Agenda(states=states, to_run=to_run, selected=frozenset(chosen))


class NoRoomError(ValueError):
    """The study budget has no room for further attempts."""

    exit_code = 3  # as if a run had left them out


def with_again(study: Study, plan: Plan, wanted: Sequence[str]) -> tuple[Plan, list[Trial], list[str]]:
    """Return the plan with a further attempt of each wanted trial, the new attempts, and lines about them.

    ``wanted`` are ids, or their beginnings. An attempt without a result is not new: a run continues it.

    Raises:
        ValueError: A trial has no result to repeat, or is not in the grid.
        NoRoomError: The study budget has no room.
    """
    newest, new = {trial.first_id: trial for trial in plan.trials}, []  # further attempts come last
    for prefix in wanted:
        matches = [first for first in newest if first.startswith(prefix.partition("-")[0])]
        if len(matches) != 1:
            raise ValueError(f"--again: {unknown('trial of the grid', prefix, newest)}")
        last = newest[matches[0]]
        state = trial_states(study.folder, [last.trial_id])[last.trial_id]
        if state.outcome is not None:
            new.append(f"{last.first_id}-{last.attempt + 1}")
        elif state.stage is Stage.FAILED or last.attempt == 1:
            runs = "failed: `run --retry-failed`" if state.stage is Stage.FAILED else "has no result: `run`"
            raise ValueError(f"--again {prefix}: nothing to repeat: trial {last.trial_id} {runs} runs it")
    if not new:
        return plan, [], []
    planned = plan_study(study, further=new)
    known = {trial.trial_id: trial for trial in planned.trials}
    attempts = [known[name] for name in dict.fromkeys(new)]
    try:
        require_room(study, planned)
    except ValueError as error:
        needed = format_flops(sum(trial.paid_flops for trial in attempts))
        raise NoRoomError(f"--again would cost {needed}, but {error}") from None
    lines = [f"again: trial {trial.trial_id}, {trial.words()}" for trial in attempts]
    firsts = {trial.first_id for trial in attempts}
    longer = [
        trial.trial_id for trial in plan.trials
        if trial.attempt == 1 and trial.trial_id not in firsts
        and any(shorter.first_id in firsts for shorter in shorter_trials(trial, known))
    ]  # fmt: skip
    if longer:
        them = " --again ".join(longer)
        lines.append(f"note: longer trials grew from earlier attempts; to repeat them, too: --again {them}")
    return planned, attempts, lines


def agenda_lines(study: Study, plan: Plan, todo: Agenda, tuning: Agenda | None = None) -> Iterator[str]:
    """Yield lines on a run that would start now, by the agendas of the grid and of an open tuning."""
    if (holder := active_run(study.folder)) is not None:
        yield f"a run is active: {holder}"
    check: Sequence[Trial] = ()
    if tuning is not None:
        assert plan.tuning is not None, "it has an agenda"
        values = {trial: values_words(tried) for trial, tried in plan.tuning.values.items()}
        yield from _agenda_trials(study, " of the tuning", tuning, values)
        if plan.tuning.waiting and plan.tuning.neighbours:
            check = plan.tuning.neighbours
            yield f"then the check of the tuned rates: {plural(len(check), 'trial')}"
        once = ", once all have a result" if tuning.failed else ""
        yield f"then the grid, with the winning values{once}:"
    yield from _agenda_trials(study, "", todo, {})
    to_run = [*(() if tuning is None else tuning.to_run), *check, *todo.to_run]
    flops = sum(trial.paid_flops for trial in to_run)
    speeds = measured_throughput(study, plan)
    time = forecast([PendingTrial.of(trial, plan.cluster, speeds) for trial in to_run])
    about = "" if time is None else f", about {format_seconds_range(time.low, time.high)} on one slot"
    yield f"{format_flops(flops)} to run{about}"
    book = read_book(study, {trial.trial_id: trial for trial in plan.all_trials})
    if paid := [trial for trial in to_run if book.of(trial.trial_id).spent_flops]:
        yield f"{paid_again(paid)}: `run` asks first, or needs --pay-again"
    if book.note:
        yield f"note: {book.note}" + ("; `run` asks first, or needs --pay-again" if book.unknown else "")
    for _, line in lost_checkpoints(study, plan, book):
        yield line
    charges = book.unpaid(plan)
    for charge in charges:
        yield f"{format_flops(charge.flops)} to be charged: {charge.what}"
    if plan.study_flops is not None:
        left = max(0, plan.study_flops - book.spent_flops - sum(charge.flops for charge in charges))
        after = f" after {plural(len(charges), 'charge')}" if charges else ""
        yield f"{format_flops(left)} of the study budget of {format_flops(plan.study_flops)} are left{after}"
        if flops > left:
            yield "the budget has no room for all of them: those that it has none for will be left out"


def lost_checkpoints(study: Study, plan: Plan, book: Book) -> Iterator[tuple[Path, str]]:
    """Yield the folder of each interrupted trial that the plan lacks whose work a run drops, and a line."""
    if plan.grid_waits:
        return
    known = {trial.trial_id for trial in plan.all_trials}
    for folder in trial_folders(study):
        if folder.name not in known and kept_steps(folder) and not (folder / "result.json").exists():
            lost = format_flops(book.of(folder.name).wasted_flops)
            line = (
                f"trial {folder.name} was interrupted and is not in this declaration: its checkpoint is "
                f"removed and its {lost} are booked as wasted"
            )
            yield folder, line


def _agenda_trials(study: Study, of: str, todo: Agenda, values: Mapping[str, str]) -> Iterator[str]:
    parts = [f"{len(todo.finished):,} finished"] if todo.finished else []
    if todo.failed_of_selected:
        parts.append(f"{todo.failed_of_selected:,} failed in an earlier run (--retry-failed runs them again)")
    if todo.left_alone:
        parts.append(f"{todo.left_alone:,} not selected")
    parts.append(f"{len(todo.to_run):,} to run")
    yield f"{plural(len(todo.states), 'trial')}{of}: {', '.join(parts)}"
    away = sum(todo.states[trial.trial_id].stage in {Stage.FINISHED, Stage.DIVERGED} for trial in todo.to_run)
    if away:
        yield f"{away:,} of them have a row in {study.folder / 'results.parquet'} but no folder in trials/"
    for trial in todo.to_run[:_MOST_SHOWN]:
        steps = todo.states[trial.trial_id].kept_steps
        goes_on = f", continues at {format_share(steps / trial.steps)}" if steps else ""
        words = trial.words(values.get(trial.trial_id, ""))
        yield f"  {words}: {format_flops(trial.paid_flops)}{goes_on}"
    if len(todo.to_run) > _MOST_SHOWN:
        yield f"  and {len(todo.to_run) - _MOST_SHOWN:,} more"


def require_room(study: Study, plan: Plan) -> None:
    """Refuse a plan for which other trials have left no room, as after a change of the declaration.

    Work that crashes of the plan's own trials lost is no reason to refuse it, unless its charges no longer
    fit: a run leaves out the trials without room one by one. Of an adaptive study only the charges and the
    paid trials are counted, because its design chooses further trials within what is left.

    Raises:
        ValueError: There is no room; or what the study spent can't be read.
    """
    cap = plan.study_flops
    if cap is None:
        return
    known, grid = plan, tuple[Trial, ...]()
    if plan.tuning is not None and plan.tuning.waiting:
        # Check and grid get their ids when the tuning has ended. Trials that were begun may be among them.
        grid = (*plan.trials, *plan.tuning.neighbours)
        known = replace(plan, trials=(), tuning=replace(plan.tuning, neighbours=()))
    adaptive = study.declaration.design.adaptive
    planned = {trial.trial_id: trial for trial in known.all_trials}
    book = read_book(study, planned)
    needed = sum(charge.flops for charge in plan.charges)
    for trial_id, trial in planned.items():
        ahead = 0 if adaptive and trial.attempt == 1 else trial.paid_flops
        needed += book.of(trial_id).spent_flops or ahead
    others = book.besides(known)
    rows, ended = [cell_row(trial.cell) | {"seed": trial.seed} for trial in grid], 0
    for trial_id in book.trials.keys() - planned.keys() if grid else ():
        folder, account = study.trial_folder(trial_id), book.of(trial_id)
        if account.spent_flops:
            ended += account.spent_flops if _may_be_of(rows, folder) else 0
        elif kept_steps(folder):  # the grid may continue it
            others -= account.wasted_flops
    if not adaptive:
        needed += max(0, sum(trial.paid_flops for trial in grid) - ended)
    charges = sum(charge.flops for charge in book.unpaid(plan))
    if others + needed > cap or (charges and book.spent_flops + charges > cap):
        besides = f", and {study.folder / SPENT} has {format_flops(others)} of other trials" if others else ""
        lost = "" if others + needed > cap else f"; crashes lost {format_flops(book.wasted_flops)}"
        raise ValueError(
            f"this declaration needs {format_flops(needed)}{besides}{lost}: more than the study budget of "
            f"{format_flops(cap)}. Give a changed study a new name (study:), or raise budget.study"
        )


def _may_be_of(rows: Sequence[Mapping[str, object]], folder: Path) -> bool:
    """Return whether the trial in a folder has one of some cells and seeds; True without a result."""
    outcome = read_outcome(folder)
    return outcome is None or any(
        # A missing level is NaN, which equals nothing.
        all(outcome.row.get(name) == value for name, value in row.items() if value == value)  # noqa: PLR0124
        for row in rows
    )
