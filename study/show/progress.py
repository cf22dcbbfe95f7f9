"""Progress of a run: a live view in a terminal, one plain line per trial in a pipe."""

import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from budgets.names import printable
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.price import PendingTrial, Speed, forecast, start_s
from budgets.planning.tuning_plan import values_words
from budgets.quantity import format_count, format_flops, format_number, format_seconds_range, format_share
from runners.trials.trial_files import Outcome
from study.show.plan_view import trials_words
from study.show.terminal import can_update, say
from study.show.view import study_view
from study.state.plan_study import planned_row
from study.state.running import Level, count_levels, left_of, running_trials, speed_of
from study.state.trial_states import Stage, TrialState, trial_states

_TICK_S, _LINE_S = 0.5, 60.0
_BAR = 24
_FAILURES_SHOWN = 3


class Progress:
    """Context manager that shows the progress of one run; with ``quiet``, only failures and notes."""

    def __init__(self, metric: str, console: Console, *, quiet: bool = False) -> None:
        self._metric, self._console, self._quiet = metric, console, quiet
        live = can_update(console) and not quiet
        self._live = Live(console=console, auto_refresh=False) if live else None
        self._ticked_at, self._step_at = 0.0, -_LINE_S
        self._spent, self._planned, self._slots, self._done = 0, 1, 1, 0
        self._budget = self._phase = ""
        self._folder = Path()
        self._trials: dict[str, Trial] = {}
        self._rows: dict[str, dict[str, object]] = {}
        self._states: dict[str, TrialState] = {}
        self._running: tuple[str, ...] = ()
        self._failed: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._speeds: list[Speed] = []
        self._row = partial(planned_row, cluster=None)
        self._later: list[PendingTrial] = []  # what waits for the tuning

    def begin(
        self, folder: Path, plan: Plan, *, spent_flops: int, chosen: Sequence[Trial] | None = None
    ) -> None:
        """Start to show a plan's trials, and print its size and warnings.

        ``chosen`` are the trials that an adaptive design has chosen so far; None shows all trials of the
        plan.
        """
        trials = plan.trials if chosen is None else chosen
        self.show_trials(folder, plan, trials, planned_flops=plan.most_flops, spent_flops=spent_flops)
        done = f", {self._done} of them already finished" if self._done else ""
        if plan.study_flops is not None:
            self._budget = f" (study budget {format_flops(plan.study_flops)})"
        for warning in plan.warnings:
            self.say(f"note: {warning}")
        self.detail(f"{trials_words(plan)}, {format_flops(plan.train_flops)}{self._budget}{done}")

    def show_trials(  # noqa: PLR0913 - the parts of the view
        self,
        folder: Path,
        plan: Plan,
        trials: Sequence[Trial],
        *,
        planned_flops: int,
        spent_flops: int,
        phase: str = "",
    ) -> None:
        """Show these trials in the live view: one row per level, or one row named ``phase`` if given."""
        self._folder, self._phase, self._running = folder, phase, ()
        self._row = partial(planned_row, cluster=plan.cluster)
        self._later = [PendingTrial.of(trial, plan.cluster) for trial in plan.after_tuning] if phase else []
        self._trials, self._rows, self._states, self._done = {}, {}, {}, 0
        self._planned, self._spent = planned_flops, spent_flops
        self.add_trials(trials)

    def add_trials(self, trials: Sequence[Trial]) -> None:
        """Show further trials: an adaptive design has chosen them."""
        self._trials |= {trial.trial_id: trial for trial in trials}
        self._rows |= {trial.trial_id: self._row(trial) for trial in trials}
        self._states |= {trial.trial_id: TrialState(stage=Stage.WAITING) for trial in trials}
        self._look([trial.trial_id for trial in trials])

    def count(self, trial: Trial, outcome: Outcome, *, spent_flops: int) -> None:
        """Count a finished trial in the live view."""
        self._look([trial.trial_id])
        self._failed.pop(trial.trial_id, None)
        self._spent = spent_flops
        self._speeds.append(speed_of(self._row(trial), outcome.timing["samples_per_s"]))

    def finished(self, trial: Trial, outcome: Outcome, *, spent_flops: int) -> None:
        """Show a finished trial."""
        self.count(trial, outcome, spent_flops=spent_flops)
        row, timing = outcome.row, outcome.timing
        value = (
            f"{self._metric} {format_share(row[self._metric], 1)}" if self._metric in row else row["status"]
        )
        total = len(self._trials)
        self.detail(
            f"[{self._done:>{len(str(total))}}/{total}] {trial.words()}: {value}, "
            f"{format_number(timing['wall_s'], '.0f')} s, {format_count(timing['samples_per_s'])} samples/s; "
            f"{self._sums(self._spent)}"
        )

    def failed(self, trial: Trial, reason: str) -> None:
        """Show a trial that failed."""
        text = f"FAILED {trial.words()}: {reason}"
        self._failed[trial.trial_id] = text
        self._look([trial.trial_id])
        self.say(text)

    def left_out(self, trial: Trial, reason: str) -> None:
        """Count a trial as left out."""
        self._left_out[trial.trial_id] = reason
        self._look([trial.trial_id])

    def step(self, text: str, share: float) -> None:
        """Show a step before the trials, and its share that is done, as a bar; elsewhere a line a minute."""
        if self._live is not None:
            with self._tolerantly():
                self._live.update(Group(Text(text), ProgressBar(1.0, share, width=_BAR)), refresh=True)
        elif time.monotonic() - self._step_at > _LINE_S:
            self._step_at = time.monotonic()
            self.detail(text)

    def say(self, text: str) -> None:
        """Print a line above the live view, even if the view is quiet."""
        with self._tolerantly():
            say(self._console, text)

    def detail(self, text: str) -> None:
        """Print a line above the live view, unless the view is quiet."""
        if not self._quiet:
            self.say(text)

    def tick(self, running_ids: Iterable[str], *, slots: int) -> None:
        """Redraw the live view, at most twice a second; ``slots`` trials can run at once."""
        if self._live is None or time.monotonic() - self._ticked_at < _TICK_S:
            return
        self._ticked_at = time.monotonic()
        before, self._running = self._running, tuple(running_ids)
        self._slots = max(slots, len(self._running))
        self._look({*before, *self._running})
        with self._tolerantly():
            self._live.update(self._view(), refresh=True)

    @contextmanager
    def _tolerantly(self) -> Iterator[None]:
        """Context manager that goes on in silence if the terminal or the reader of the output is gone."""
        try:
            yield
        except OSError:
            self._console.quiet = True
            # What is still buffered must not fail at exit.
            with suppress(OSError), Path(os.devnull).open("w") as nowhere:
                os.dup2(nowhere.fileno(), self._console.file.fileno())

    def _look(self, trials: Collection[str]) -> None:
        """Update the states of these trials; unreachable storage leaves the view as it is."""
        with suppress(OSError, ValueError):
            new = trial_states(self._folder, trials, running=self._running, left_out=self._left_out)
            for trial_id, state in new.items():
                self._done += (state.column == "done") - (self._states[trial_id].column == "done")
            self._states |= new

    def _view(self) -> RenderableType:
        running = running_trials(self._rows, {trial: self._states[trial] for trial in self._running})
        spent = self._spent + sum(trial.train_flops for trial in running)
        at_work = ((self._rows[trial.trial], trial.samples_per_s) for trial in running)
        measured = (*self._speeds, *(speed_of(row, speed) for row, speed in at_work if speed is not None))
        start = max(
            (start_s(trial.resources.gpus, trial.recipe) for trial in self._trials.values()), default=0
        )
        ahead_of = left_of(self._rows, self._states, running, start_s=start) + self._later
        left = forecast(ahead_of, measured, slots=self._slots)
        ahead = "" if left is None else f", about {format_seconds_range(left.low, left.high)} to go"
        summary = f"{self._sums(spent)}{self._budget}, {self._done} of {len(self._trials)} trials{ahead}"
        failures = list(self._failed.values())[-_FAILURES_SHOWN:]
        return study_view(self._levels(), running, (*failures, summary), self._console, live=True)

    def _sums(self, spent: int) -> str:
        # Not `x of y`: lost work and trials of earlier declarations also count as spent.
        return f"{format_flops(spent)} spent, {format_flops(self._planned)} planned"

    def _levels(self) -> list[Level]:
        return count_levels(
            (self._phase or trial.cell.level, self._states[trial_id].column)
            for trial_id, trial in self._trials.items()
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            with self._tolerantly():
                self._live.__enter__()
        return self

    def __exit__(
        self, what: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._running = ()
            with self._tolerantly():
                self._live.update(self._view() if self._trials else "", refresh=True)
            with suppress(IndexError), self._tolerantly():  # rich's, if there was no terminal at its start
                self._live.__exit__(what, error, trace)


def remaining_text(remaining: Sequence[Trial], plan: Plan) -> list[str]:
    """Return lines about the trials that the budget had no room for."""
    if not remaining:
        return []
    values = {} if plan.tuning is None else plan.tuning.values
    seeds: dict[str, list[str]] = {}
    for trial in remaining:
        tried = f", {values_words(values[trial.trial_id])}" if trial.trial_id in values else ""
        tried += ", trunk" if trial.of_trunk else ""
        seeds.setdefault(f"{trial.cell}{tried}", []).append(str(trial.seed))
    needs = format_flops(sum(trial.paid_flops for trial in remaining))
    if plan.tuning is not None and remaining[0].trial_id in values:
        first = (
            f"{len(remaining)} of {len(plan.tuning.trials)} trials of the tuning remain and need {needs}: "
            f"the share of {format_flops(plan.tuning.reserve_flops)} has no room for them after crashes, "
            "and the grid can't start without them. Raise tuning.share or budget.study and run again:"
        )
    else:
        first = (
            f"{len(remaining)} of {len(plan.trials)} trials remain and need {needs}: the study budget has "
            "no room for them. Raise budget.study and run again:"
        )
    return [first, *(f"  {which}, seed {', '.join(numbers)}" for which, numbers in seeds.items())]


class Guarded:
    """Passes a run's calls to its view; an error of the view is said once and logged, and the run goes on.

    All calls go through here, also those of code that was given only ``say``. After an error the view is
    called again, because its next call may work: a number that cannot be drawn now may be gone by then.
    """

    def __init__(self, view: Progress, log: Path) -> None:
        self._view, self._log = view, log
        self._said: set[tuple[str, type[Exception]]] = set()

    def __getattr__(self, method: str) -> Callable[..., None]:
        return partial(self._call, method)

    def __enter__(self) -> Self:
        self._call("__enter__")
        return self

    def __exit__(self, *error: object) -> None:
        self._call("__exit__", *error)

    def _call(self, method: str, *args: object, **kwargs: object) -> None:
        try:
            getattr(self._view, method)(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not worth the trials of a run
            if (method, type(error)) in self._said:
                return
            self._said.add((method, type(error)))
            # Without the view, and without an error of its own: a full disk or a closed stderr.
            with suppress(OSError), self._log.open("a", encoding="utf-8") as log:
                log.write(f"{datetime.now(tz=UTC).isoformat(timespec='seconds')} {traceback.format_exc()}\n")
            with suppress(OSError):
                what = f"{type(error).__name__}: {error}".partition("\n")[0]
                sys.stderr.write(printable(f"the view failed, the run goes on: {what} ({self._log})") + "\n")
