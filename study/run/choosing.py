"""Chooses the trials of an adaptive study as its results come in (`analysis.design.adaptive`)."""

from collections.abc import Collection, Mapping, Sequence

from analysis.cells.table import tidy
from analysis.design.adaptive import Decision, decide
from budgets.planning.levels.trunks import before
from budgets.planning.plan import Trial
from runners.results import RESULT_COLUMNS, to_frame
from runners.trials.records.trial_files import Outcome
from study.state.design import asked, choices_of, chosen_trials
from study.state.study import Study


class Chooser:
    """The choices of one run.

    Args:
        study: The study.
        trials: The trials that may be run.
    """

    def __init__(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study = study
        self._trials = {trial.trial_id: trial for trial in trials}
        self._grid = choices_of(tuple(trials))
        self._state: tuple[int, ...] = ()

    def begun(self) -> set[str]:
        """Return the trials that earlier runs chose."""
        return chosen_trials(self._study.folder)

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
            room_flops: FLOPs that are neither spent nor promised; None without a limit.
        """
        state = len(outcomes), len(failures), len(running), -1 if room_flops is None else room_flops
        if state == self._state:
            return None
        rows = [outcome.row for trial, outcome in outcomes.items() if trial in self._trials]
        trials = tidy(to_frame(rows, RESULT_COLUMNS), metric=self._study.declaration.metric)
        lost = {*failures, *outcomes} - set(trials.frame["trial"])
        # A trunk that failed or diverged has no longer trials.
        ended = {
            trial for trial, planned in self._trials.items()
            if trial in lost or any(each.trial_id in lost for each in before(planned, self._trials))
        }  # fmt: skip
        decision = decide(
            trials, self._grid, ask=asked(self._study.declaration), running=running, ended=ended, slots=slots,
            room_flops=room_flops,
        )  # fmt: skip
        if not decision.picks:
            self._state = state
        return decision

    def planned(self, trial_id: str) -> Trial:
        """Return a trial by its id."""
        return self._trials[trial_id]
