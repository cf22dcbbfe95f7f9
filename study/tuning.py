"""Runs a study's tuning before its grid: Ray Tune over the planned values, until every winner is known."""

from dataclasses import dataclass

from budgets.ledger import Ledger, drop_torn_line
from budgets.plan import Plan, TuningPlan
from budgets.winner import words
from runners.data.cache import drop_idle
from runners.files import new_file
from runners.loggers import Loggers
from runners.schedule import Schedule, Task
from study.agenda import tuning_agenda
from study.bookkeeping import (
    forget_failure,
    needs,
    trial_folder,
)
from study.dump import dump_declaration
from study.progress import Progress
from study.site import Site
from study.study import Study, plan_study
from study.tuning_round import Round
from study.tuning_table import write_winners

_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What a tuning came to.

    Attributes:
        plan: The plan with the winners' values.
        failures: Trial id → reason, for the trials that gave no result, without which there is no winner.
        stopped: By what it was told to stop before its end; empty when it was not.
    """

    plan: Plan
    failures: dict[str, str]
    stopped: str


def tune_study(study: Study, plan: Plan, progress: Progress, site: Site, *, retry_failed: bool) -> Tuned:
    """Tunes what the plan waits for; what is finished is never run again.

    Args:
        study: The study, locked for this run.
        plan: Its plan, with a tuning.
        progress: Where progress is shown.
        site: Where trials run.
        retry_failed: Whether to run again what failed in an earlier run.

    Raises:
        ValueError: A trial is too wide for every node, or the share is used up.
    """
    folder, tuning = study.folder, plan.tuning
    assert tuning is not None, "asked where something is tuned"
    failed = _failed_before(study, tuning, progress, site, retry_failed=retry_failed)
    if failed:
        return Tuned(plan=plan, failures=failed, stopped="")
    loggers = Loggers(study.declaration.loggers, folder, progress.say)
    with new_file(folder / "study.yaml") as file:
        file.write_text(dump_declaration(study.declaration), encoding="utf-8")
    ledger = Ledger(folder / "ledger.jsonl", plan.study_flops)
    drop_torn_line(folder / "events.jsonl")
    ledger.charge(plan)
    slots = _slots(study, tuning, site)
    failures: dict[str, str] = {}
    while not failures and not site.told() and plan.tuning is not None and plan.tuning.waiting:
        failures = Round(study, plan.tuning, ledger, progress, loggers=loggers, site=site).execute(slots)
        plan = plan_study(study)
    drop_idle()
    assert plan.tuning is not None, "the declaration is the same"
    write_winners(folder / "tuning.json", plan.tuning)
    for winner in plan.tuning.winners:
        progress.tell(
            f"tuned {winner.architecture} {winner.strategy}: {words(winner.values)} ({winner.score:.1%})"
        )
    return Tuned(plan=plan, failures=failures, stopped=site.told())


def _failed_before(
    study: Study, tuning: TuningPlan, progress: Progress, site: Site, *, retry_failed: bool
) -> dict[str, str]:
    """Gives the trials that failed in an earlier run, and why, unless they are to be run again."""
    todo = tuning_agenda(study, tuning, retry_failed=retry_failed)
    for trial in todo.to_run:
        if forget_failure(trial_folder(study, trial.trial_id)):
            site.give(trial.trial_id)
    for trial in tuning.trials:
        if trial.trial_id in todo.failed:
            progress.failed(trial, todo.failed[trial.trial_id])
    if todo.failed:
        progress.say(
            f"note: {len(todo.failed):,} of the tuning failed before, and the grid waits for it; "
            "--retry-failed runs them again"
        )
    return todo.failed


def _slots(study: Study, tuning: TuningPlan, site: Site) -> int:
    """Counts how many trials run at once, when there is room for one.

    Raises:
        ValueError: No node has room for one, and none has joined in time.
    """
    tasks = (Task(trial=each.trial_id, predicted_s=0, resources=needs(study)) for each in tuning.trials)
    here = site.look_around(Schedule(tasks, retries=0))
    while not here.slots and not site.told():
        here.wait(_LOOK_S)
        here.look()
    return here.slots
