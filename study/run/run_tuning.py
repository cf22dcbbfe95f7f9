"""Runs a study's tuning in rounds until the best values are known, then the check of its rates."""

from contextlib import ExitStack
from dataclasses import replace
from functools import cache

from budgets.planning.plan import Plan, TuningPlan
from budgets.planning.tuned.wording import words
from budgets.quantity import format_flops
from runners.host.files import new_file
from study.declare.dump import dump_declaration
from study.run.execution import RunSummary
from study.run.site import Site
from study.run.tuning_round import Round
from study.show.progress import Progress
from study.state.agenda import Agenda, tuning_agenda
from study.state.planning.plan_study import plan_study
from study.state.planning.tuning_table import write_winners
from study.state.study import Study


def tune_study(study: Study, plan: Plan, progress: Progress, site: Site, *, retry_failed: bool) -> RunSummary:
    """Run the trials of tuning and check that have no result yet.

    Returns:
        The trials left without a result, and the plan with the winners' values. The grid does not depend on
        the check: trials of the check that the budget has no room for are reported here, not returned.

    Raises:
        ValueError: A trial does not fit on any node.
    """
    with new_file(study.folder / "study.yaml") as file:
        file.write_text(dump_declaration(study.declaration), encoding="utf-8")
    tuning = plan.tuning
    found = RunSummary(plan=plan, failures={}, remaining=(), stopped="")
    with ExitStack() as until_tuned:
        backend = cache(lambda: until_tuned.enter_context(site.tuning_backend()))
        # Each round runs what the results so far ask for: the declared values, values beyond an edge, then
        # the check. Planning again from the results gives the next round.
        while tuning is not None and tuning.unfinished and not found.incomplete:
            # `status` needs the file to distinguish trials of the check from those of the tuning.
            write_winners(study.folder / "tuning.json", tuning)
            todo = tuning_agenda(study, tuning, retry_failed=retry_failed)
            if todo.failed and (tuning.waiting or not todo.to_run):
                _say_failed(tuning, todo, progress)
                found = replace(found, failures=todo.failed)
                break
            found = Round(study, found.plan, progress, site, backend=backend).execute(todo)
            found = replace(found, plan=plan_study(study))
            tuning = found.plan.tuning
    assert tuning is not None, "planned again from the same declaration"
    write_winners(study.folder / "tuning.json", tuning)
    for winner in tuning.winners:
        progress.detail(
            f"tuned {winner.architecture} {winner.strategy}: {words(winner.values)} ({winner.score:.1%})"
        )
    if tuning.waiting or not found.remaining:
        return found
    where = ", ".join(dict.fromkeys(str(trial.cell) for trial in found.remaining))
    progress.say(
        f"note: {len(found.remaining):,} trials of the check of the tuned rates are left out, since crashes "
        f"used up its share of {format_flops(tuning.check_flops)}: {where}"
    )
    return replace(found, remaining=())


def _say_failed(tuning: TuningPlan, todo: Agenda, progress: Progress) -> None:
    for trial in tuning.ready:
        if trial.trial_id in todo.failed:
            progress.failed(trial, todo.failed[trial.trial_id])
    waits = ", and the grid can't start before they have a result" if tuning.waiting else ""
    progress.say(
        f"note: {len(todo.failed):,} of the tuning failed in an earlier run{waits}; "
        "--retry-failed runs them again"
    )
