"""Shows a run as it goes: a live view in a terminal, one plain line a trial when piped."""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from budgets.planning.plan import Plan, Trial
from budgets.planning.price import Range
from budgets.planning.winner import words
from budgets.quantity import format_count, format_flops
from runners.host.progress_file import read_progress
from runners.trials.throughput import Kind, kind, predict_s
from runners.trials.trial import Outcome
from study.show.view import level_table, range_words, running_lines
from study.state.forecast import Ahead, time_left
from study.state.running import Level, Running, running_trial

_TICK_S = 0.5
_FAILURES_SHOWN = 3


class Progress:
    """The view of one run.

    Args:
        metric: The metric that is shown for finished trials.
        console: Where to write.
        quiet: Whether only failures and notes are written.
    """

    def __init__(self, metric: str, console: Console, *, quiet: bool = False) -> None:
        self._metric, self._console, self._quiet = metric, console, quiet
        live = console.is_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False) if live else None
        self._ticked_at = 0.0
        self._spent, self._planned = 0, 1
        self._slots = 1
        self._budget = ""
        self._phase = ""
        self._trials: dict[str, Trial] = {}
        self._done: set[str] = set()
        self._failed: dict[str, str] = {}
        self._speeds: dict[Kind, list[float]] = defaultdict(list)

    def begin(self, plan: Plan, *, finished: Collection[str], spent_flops: int) -> None:
        """Starts the view of a plan of which some trials are finished already."""
        self.show(plan.trials, finished=finished, planned_flops=plan.train_flops, spent_flops=spent_flops)
        done = f", {len(finished)} of them finished before" if finished else ""
        if plan.study_flops is not None:
            self._budget = f" (study budget {format_flops(plan.study_flops)})"
        for warning in plan.warnings:
            self.say(f"note: {warning}")
        self.tell(f"{len(self._trials)} trials, {format_flops(self._planned)}{self._budget}{done}")

    def show(
        self,
        trials: Sequence[Trial],
        *,
        finished: Collection[str],
        planned_flops: int,
        spent_flops: int,
        phase: str = "",
    ) -> None:
        """Has the live view show these trials, by their levels or, where they have one name, under that."""
        self._trials, self._phase = {trial.trial_id: trial for trial in trials}, phase
        self._planned, self._spent = planned_flops, spent_flops
        self._done = set(finished)

    def count(self, trial: Trial, outcome: Outcome, *, spent_flops: int) -> None:
        """Counts a finished trial in the live view."""
        self._done.add(trial.trial_id)
        self._failed.pop(trial.trial_id, None)
        self._spent = spent_flops
        self._speeds[kind(trial)].append(outcome.timing["samples_per_s"])

    def finished(self, trial: Trial, outcome: Outcome, *, spent_flops: int) -> None:
        """Shows a finished trial."""
        self.count(trial, outcome, spent_flops=spent_flops)
        row, timing = outcome.row, outcome.timing
        value = f"{self._metric} {row[self._metric]:.1%}" if self._metric in row else row["status"]
        total = len(self._trials)
        self.tell(
            f"[{len(self._done):>{len(str(total))}}/{total}] {trial.cell}, seed {trial.seed}: {value}, "
            f"{timing['wall_s']:.0f} s, {format_count(timing['samples_per_s'])} samples/s; "
            f"{format_flops(self._spent)} of {format_flops(self._planned)} spent"
        )

    def failed(self, trial: Trial, reason: str) -> None:
        """Shows a trial that gave no result."""
        text = f"FAILED {trial.cell}, seed {trial.seed}: {reason}"
        self._failed[trial.trial_id] = text
        self.say(text)

    def say(self, text: str) -> None:
        """Writes a line that stays, and that a quiet view has, too."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tell(self, text: str) -> None:
        """Writes a line that stays, unless the view is quiet."""
        if not self._quiet:
            self.say(text)

    def tick(self, folder: Path, running_ids: Iterable[str], *, slots: int) -> None:
        """Draws the live view anew, now and then.

        Args:
            folder: The study's folder.
            running_ids: The trials that run.
            slots: How many can.
        """
        if self._live is None or time.monotonic() - self._ticked_at < _TICK_S:
            return
        self._ticked_at = time.monotonic()
        ids = list(running_ids)
        self._slots = max(slots, len(ids))
        running = [self._running(trial, found) for trial, found in read_progress(folder, ids).items()]
        self._live.update(self._view(ids, running), refresh=True)

    def _running(self, trial_id: str, progress: dict[str, Any]) -> Running:
        trial = self._trials.get(trial_id)
        what = "" if trial is None else f"{trial.cell}, seed {trial.seed}"
        per_sample = 0.0 if trial is None else trial.train_flops / trial.samples_seen
        return running_trial(trial_id, what, per_sample, progress)

    def _view(self, running_ids: Collection[str], running: Collection[Running]) -> RenderableType:
        spent = self._spent + sum(each.train_flops for each in running)
        left = self._left(running)
        ahead = "" if left is None else f", about {range_words(left)} to go"
        summary = (
            f"{format_flops(spent)} of {format_flops(self._planned)} spent{self._budget}, "
            f"{len(self._done)} of {len(self._trials)} trials{ahead}"
        )
        failures = list(self._failed.values())[-_FAILURES_SHOWN:]
        lines = [*running_lines(tuple(running)), *failures, summary]
        levels = self._levels(running_ids)
        table = [level_table(levels, bars=True)] if levels else []
        return Group(*table, *(Text(line, overflow="ellipsis", no_wrap=True) for line in lines))

    def _levels(self, running_ids: Collection[str]) -> list[Level]:
        counts: dict[str, Counter[str]] = {}
        for trial_id, trial in self._trials.items():
            cell = trial.cell
            level = cell.regime if cell.level_flops is None else format_flops(cell.level_flops)
            counts.setdefault(self._phase or level, Counter())[self._state(trial_id, running_ids)] += 1
        return [Level(name=name, **of_state) for name, of_state in counts.items()]

    def _state(self, trial_id: str, running_ids: Collection[str]) -> str:
        if trial_id in self._done:
            return "done"
        if trial_id in running_ids:
            return "running"
        return "failed" if trial_id in self._failed else "waiting"

    def _left(self, running: Collection[Running]) -> Range | None:
        seen = {each.trial: each.samples_seen for each in running}
        speeds = {which: list(found) for which, found in self._speeds.items()}
        for each in running:
            if each.samples_per_s is not None and each.trial in self._trials:
                speeds.setdefault(kind(self._trials[each.trial]), []).append(each.samples_per_s)
        ahead = []
        for trial_id, trial in self._trials.items():
            if trial_id not in self._done and trial_id not in self._failed:
                samples = trial.samples_seen - seen.get(trial_id, 0)
                planned = predict_s(trial, {}) * samples / trial.samples_seen
                ahead.append(Ahead(kind=kind(trial), samples=samples, predicted_s=planned))
        return time_left(ahead, speeds, self._slots)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, what: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self._view((), ()) if self._trials else "", refresh=True)
            self._live.__exit__(what, error, trace)


def remaining_text(remaining: Sequence[Trial], plan: Plan) -> list[str]:
    """Words which trials a run left out since the budget had no room for them; nothing without any."""
    if not remaining:
        return []
    values = {} if plan.tuning is None else plan.tuning.values
    seeds: dict[str, list[str]] = {}
    for trial in remaining:
        tried = f", {words(values[trial.trial_id])}" if trial.trial_id in values else ""
        seeds.setdefault(f"{trial.cell}{tried}", []).append(str(trial.seed))
    needs = format_flops(sum(trial.train_flops for trial in remaining))
    if plan.tuning is not None and remaining[0].trial_id in values:
        first = (
            f"{len(remaining)} of {len(plan.tuning.trials)} trials of the tuning remain, which need {needs}: "
            f"its share of {format_flops(plan.tuning.reserve_flops)} has no room for them, with what crashes "
            "lost, and the grid waits for them. Raise tuning.share or budget.study and run again:"
        )
    else:
        first = (
            f"{len(remaining)} of {len(plan.trials)} trials remain, which need {needs}: the study budget has "
            "no room for them. Raise budget.study and run again:"
        )
    return [first, *(f"  {which}, seed {', '.join(numbers)}" for which, numbers in seeds.items())]
