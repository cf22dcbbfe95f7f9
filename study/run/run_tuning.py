"""Runs a study's tuning in rounds until the best values are known, then the check of its rates."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache

from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.planning.price import work_s
from budgets.planning.tuning_plan import TuningPlan, values_words
from budgets.quantity import format_flops, format_share, plural
from runners.scheduling.backend import Backend
from runners.store.files import write_sealed
from runners.trials.trial_files import Outcome
from study.run.agenda import Agenda, agenda
from study.run.books import RunSummary
from study.run.execution import Execution
from study.run.run_context import RunContext
from study.show.progress import Progress
from study.state.plan_study import plan_study, planned_frame
from study.state.study import Study
from study.state.tuning_table import tried_table, tuning_facts, with_values


def tune_study(
    study: Study, plan: Plan, progress: Progress, site: RunContext, *, retry_failed: bool
) -> RunSummary:
    """Run the trials of tuning and check that have no result yet.

    Returns:
        The trials left without a result, and the plan with the winners' values. The grid does not depend on
        the check: trials of the check that the budget has no room for are reported here, not returned.

    Raises:
        ValueError: A trial does not fit on any node.
    """
    study.write_declaration()
    tuning = plan.tuning
    summary = RunSummary(plan=plan, failures={}, remaining=(), stopped="")
    with ExitStack() as until_tuned:
        backend = cache(lambda: until_tuned.enter_context(site.tuning_backend()))
        # Each round runs what the results so far ask for: the declared values, values beyond an edge, then
        # the check. Planning again from the results gives the next round.
        while tuning is not None and tuning.unfinished and not summary.incomplete:
            write_tuning(study, summary.plan)
            todo = agenda(study, tuning.ready, retry_failed=retry_failed)
            if todo.failed:
                _say_failed(tuning, todo, progress)
                if not todo.to_run:
                    summary = replace(summary, failures=todo.failed)
                    break
            summary = Round(study, summary.plan, progress, site).execute(todo, backend)
            summary = replace(summary, plan=plan_study(study))
            tuning = summary.plan.tuning
    assert tuning is not None, "planned again from the same declaration"
    write_tuning(study, summary.plan)
    for winner in tuning.winners:
        progress.detail(
            f"tuned {winner.architecture} {winner.strategy}: {values_words(winner.values)} "
            f"({format_share(winner.score, 1)})"
        )
    if tuning.waiting or not summary.remaining:
        return summary
    where = ", ".join(dict.fromkeys(str(trial.cell) for trial in summary.remaining))
    progress.say(
        f"note: {len(summary.remaining):,} trials of the check of the tuned rates are left out, since "
        f"crashes used up its share of {format_flops(tuning.check_flops)}: {where}"
    )
    return replace(summary, remaining=())


def write_tuning(study: Study, plan: Plan) -> None:
    """Write the planned trials of a tuning, its winners so far, and the work that waits for it.

    `status` needs them, to distinguish trials of the check from those of the tuning, and for its forecast.
    """
    tuning = plan.tuning
    assert tuning is not None, "called only if something is tuned"
    kinds = [(*t.cell.combination, float(f"{work_s(t, plan.cluster).middle:.4g}")) for t in plan.after_tuning]
    later = [[*kind, number] for kind, number in Counter(kinds).items()]
    write_sealed(study.folder / "tuning.json", tuning_facts(tuning) | {"later": later})
    planned = planned_frame(tuning.ready, plan.cluster)
    study.write_table("tuning-plan.parquet", with_values(planned, tuning.values))


def _say_failed(tuning: TuningPlan, todo: Agenda, progress: Progress) -> None:
    for trial in tuning.ready:
        if trial.trial_id in todo.failed:
            progress.failed(trial, todo.failed[trial.trial_id])
    waits = ", and the grid can't start before they have a result" if tuning.waiting else ""
    progress.say(
        f"note: {len(todo.failed):,} of the tuning failed in an earlier run{waits}; "
        "--retry-failed runs them again"
    )


class Round(Execution):
    """One round of a tuning: the trials that the results so far ask for."""

    name = "tuning"

    def __init__(self, study: Study, plan: Plan, progress: Progress, site: RunContext) -> None:
        assert plan.tuning is not None, "created only for plans with a tuning"
        super().__init__(study, plan, plan.tuning.ready, progress, site)
        self._tuning = plan.tuning
        self._what = "tuning" if plan.tuning.waiting else "check of the tuned rates"

    def execute(self, todo: Agenda, open_backend: Callable[[], Backend]) -> RunSummary:
        """Run the trials of an agenda that have no result, and return those left without one.

        The backend is opened only if there are trials to run.

        Raises:
            ValueError: A trial does not fit on the nodes.
        """
        self.resume(todo)
        trials = self._tuning.ready
        planned, spent = sum(trial.paid_flops for trial in trials), self.book.spent_flops
        self.progress.show_trials(
            self.study.folder, self.plan, trials, planned_flops=planned, spent_flops=spent, phase="tuning"
        )
        if todo.to_run:
            cost = format_flops(sum(trial.paid_flops for trial in todo.to_run))
            size = f"{plural(len(todo.to_run), 'trial')}, {cost}"
            self.progress.detail(f"{self._what}: {size}; {self._tuning.metric} selects")
            self.run(todo.to_run, open_backend())
        self.site.with_storage(self.write_tables)
        self.write_book()
        return self.result

    @property
    def room_flops(self) -> int:
        """Training FLOPs left of the share of tuning or check, or of the study budget if that is less."""
        tuning = self._tuning
        share, trials = tuning.reserve_flops, tuning.trials
        if not tuning.waiting:
            share, trials = tuning.check_flops, tuning.neighbours
        share -= sum(self.book.of(trial.trial_id).taken_flops for trial in trials)
        room = self.book.room_flops(self.plan.study_flops)
        return share if room is None else min(share, room)

    def title(self, trial: Trial) -> str:
        """Return the trial's cell and its tuned values."""
        return f"{self._what}, {trial.cell}, {values_words(self._tuning.values[trial.trial_id])}"

    def show_result(self, trial: Trial, outcome: Outcome) -> None:
        """Show a trial that has just ended with a result."""
        self.progress.count(trial, outcome, spent_flops=self.book.spent_flops)
        value = outcome.row.get(self._tuning.metric)
        result = outcome.row["status"] if value is None else f"{self._tuning.metric} {format_share(value, 1)}"
        done = f"{len(self.outcomes)}/{len(self.trials)}"
        words = trial.words(values_words(self._tuning.values[trial.trial_id]))
        self.progress.detail(f"[{self._what} {done}] {words}: {result}")

    def write_tables(self) -> None:
        """Write the trials that have a result; the next round is planned from them."""
        rows = {trial_id: outcome.row for trial_id, outcome in self.outcomes.items()}
        self.study.write_table("tuning.parquet", tried_table(self._tuning, rows))
