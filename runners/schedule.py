"""Which trial starts next: a pure state machine, events in, trials to start out. No Ray, no clock, no disk.

Trials start longest first, so that the last ones to end are short and no slot idles for long. A trial whose
worker died goes back with its old priority until its retries are used up; one that failed by itself
(bad data, out of memory) would fail again and is given up at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """Where a trial stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What the schedule must know of a trial.

    Attributes:
        trial: The trial's id.
        predicted_s: How long it will probably run, in seconds.
    """

    trial: str
    predicted_s: float


@dataclass(kw_only=True, slots=True)
class _Story:
    task: Task
    state: State = State.WAITING
    crashes: int = 0
    events: list[str] = field(default_factory=list)


class Schedule:
    """The state of a study's trials.

    Args:
        tasks: The trials to run.
        retries: How often a trial is started again after its worker died.
    """

    def __init__(self, tasks: Iterable[Task], *, retries: int) -> None:
        self._stories = {task.trial: _Story(task=task) for task in tasks}
        self._retries = retries

    def start_next(self, free_slots: int) -> list[str]:
        """Marks the next trials as running, longest first.

        Args:
            free_slots: How many trials can start now.

        Returns:
            Their ids, to be started.
        """
        waiting = [story for story in self._stories.values() if story.state is State.WAITING]
        waiting.sort(key=lambda story: (-story.task.predicted_s, story.task.trial))
        chosen = waiting[: max(0, free_slots)]
        for story in chosen:
            self._move(story, State.RUNNING, "started")
        return [story.task.trial for story in chosen]

    def finish(self, trial: str) -> None:
        """A running trial gave its result."""
        self._move(self._running(trial), State.DONE, "finished")

    def crash(self, trial: str) -> bool:
        """A running trial's worker died.

        Returns:
            Whether the trial will be started again.
        """
        story = self._running(trial)
        story.crashes += 1
        again = story.crashes <= self._retries
        self._move(story, State.WAITING if again else State.GIVEN_UP, "crashed")
        return again

    def fail(self, trial: str) -> None:
        """A running trial raised an error of its own: it is given up."""
        self._move(self._running(trial), State.GIVEN_UP, "failed")

    def drop(self, trial: str) -> None:
        """A running trial may not start after all, since the study budget has no room for it."""
        self._move(self._running(trial), State.GIVEN_UP, "dropped")

    def count(self, state: State) -> int:
        """Counts the trials in a state."""
        return sum(story.state is state for story in self._stories.values())

    @property
    def over(self) -> bool:
        """Whether nothing runs or waits any more."""
        return all(story.state in {State.DONE, State.GIVEN_UP} for story in self._stories.values())

    def _running(self, trial: str) -> _Story:
        if trial not in self._stories:
            raise ValueError(f"no trial {trial} in this schedule")
        story = self._stories[trial]
        if story.state is not State.RUNNING:
            told = ", ".join(story.events) or "nothing yet"
            raise ValueError(f"trial {trial} is {story.state}, not running; so far: {told}")
        return story

    @staticmethod
    def _move(story: _Story, state: State, event: str) -> None:
        story.events.append(event)
        story.state = state
