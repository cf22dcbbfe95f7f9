"""Chooses the trials of an adaptive study as its results come in (`analysis.design.adaptive`)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from analysis.cells.table import tidy
from analysis.design.adaptive import Ask, Decision, decide
from budgets.declaration import Declaration
from budgets.planning.plan import Plan, Trial
from runners.results import RESULT_COLUMNS, plan_row, read_json_lines, to_frame
from runners.trials.trial_files import Outcome
from study.state.study import Study

CHOSEN, COURSE = "trial-chosen", "design"
"""Events: a chosen trial with its reason; the answers so far, and why the design stopped, if it did."""
ALL_SLOTS = 10**9


def asked(declaration: Declaration) -> Ask:
    """Return the questions of an adaptive study."""
    design = declaration.design
    return Ask(
        best=design.best, indifference=design.indifference, forecast=design.forecast, width=design.width,
        confidence=design.confidence,
    )  # fmt: skip


def first_round(declaration: Declaration, plan: Plan) -> Decision:
    """Return the trials that an adaptive study starts with."""
    nothing = tidy(to_frame([], RESULT_COLUMNS), metric=declaration.metric)
    return decide(nothing, _grid(plan.trials), ask=asked(declaration), slots=ALL_SLOTS)


class Chooser:
    """The choices of one run.

    Args:
        study: The study.
        trials: The trials that may be run.
    """

    def __init__(self, study: Study, trials: Sequence[Trial]) -> None:
        self._study = study
        self._trials = {trial.trial_id: trial for trial in trials}
        self._grid = _grid(trials)
        self._state: tuple[int, ...] = ()
        self.stopped = ""

    def begun(self) -> set[str]:
        """Return the trials that earlier runs chose."""
        events = read_json_lines(self._study.folder / "events.jsonl")
        return set() if events.empty else set(events.loc[events["event"] == CHOSEN, "trial"].astype(str))

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
        decision = decide(
            trials, self._grid, ask=asked(self._study.declaration), running=running,
            ended={*failures, *outcomes} - set(trials.frame["trial"]), slots=slots, room_flops=room_flops,
        )  # fmt: skip
        if not decision.picks:
            self._state = state
            self.stopped = decision.stop
        return decision

    def trials(self, decision: Decision) -> list[Trial]:
        """Return the trials of a decision."""
        return [self._trials[pick.trial] for pick in decision.picks]


def course(decision: Decision, spent_flops: int) -> dict[str, object]:
    """Return a decision as the facts of an event."""
    return {
        "spent_flops": spent_flops,
        "answers": [asdict(answer) for answer in decision.answers],
        "stop": decision.stop,
    }


def _grid(trials: Sequence[Trial]) -> pd.DataFrame:
    return pd.DataFrame([plan_row(trial) for trial in trials]).astype({"level_flops": np.float64})
