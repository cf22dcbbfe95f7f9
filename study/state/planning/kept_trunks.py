"""Trunks of a study that has begun to run: which trials can still continue from a shorter one."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from budgets.planning.levels.trunks import before, continued
from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops, plural
from runners.trials.records.trial_files import kept_steps, milestone, read_outcome
from study.state.study import Study


def with_kept_trunks(study: Study, plan: Plan) -> Plan:
    """Return the plan with the steps that trials share in fact, which the declaration alone does not show.

    A milestone is removed when the next longer trial of its trunk has reached its own. So a trial that is
    declared later, between two that have ended, trains all of its steps. A trial that has been paid keeps the
    cost in the ledger: it may have continued from a shorter trial than the plan now has before it, or from
    one that is no longer declared.
    """
    if not any(trial.milestone_step for trial in plan.trials):
        return plan
    try:
        book = study.book()
    except ValueError:  # a damaged ledger: `run` refuses or repairs it
        return plan
    trials = {trial.trial_id: trial for trial in plan.trials}
    paid = {what: held.reserved for what, held in book.open.items() if kept_steps(study.trial_folder(what))}
    paid |= book.finished
    shorter = {
        each.trial_id for what in book.finished.keys() & trials for each in before(trials[what], trials)
    }
    between = shorter - paid.keys()
    linked, alone = [], []
    for trial in plan.trials:
        found = trial
        flops = paid.get(trial.trial_id, trial.paid_flops)
        if flops != trial.paid_flops:
            found = _as_paid(study, trial, before(trial, trials), flops)
        elif trial.trial_id in between and trial.previous:
            found = _from_milestone(study, trial, before(trial, trials), paid)
            if found is not trial:
                alone.append(found)
        linked.append(found)
    if not alone:
        return replace(plan, trials=tuple(linked))
    cost = format_flops(sum(trial.paid_flops for trial in alone))
    note = (
        f"{plural(len(alone), 'trial')} of trunks, such as {alone[0].cell}, come between trials that have "
        f"ended, whose milestones are gone: steps are trained again, which costs {cost} in all"
    )
    return replace(plan, trials=tuple(linked), warnings=(*plan.warnings, note))


def _as_paid(study: Study, trial: Trial, shorter: Iterable[Trial], flops: int) -> Trial:
    """Return a trial with the shorter trial that it continued from, found by the FLOPs that were paid."""
    declared = (each for each in _choices(trial, shorter) if each.paid_flops == flops)
    return next(declared, None) or _from_undeclared(study, trial, flops)


def _from_undeclared(study: Study, trial: Trial, flops: int) -> Trial:
    """Return a trial that continued from one that is no longer declared, if the paid FLOPs show that.

    Its result or checkpoint must lie beyond the shared steps. A trial that ended early, or whose reservation
    was rebuilt from its meter, was paid less for another reason.
    """
    folder = study.trial_folder(trial.trial_id)
    outcome = read_outcome(folder)
    done = kept_steps(folder)
    if outcome is not None:
        done = int(outcome.row["steps"]) if outcome.row["status"] == "finished" else 0
    shared = (trial.train_flops - flops) // trial.train_flops_per_sample
    found = replace(trial, previous="", shared_samples=shared)
    whole = shared > 0 and shared % trial.batch_size == 0 and found.paid_flops == flops
    return found if whole and done * trial.batch_size > shared else trial


def _from_milestone(study: Study, trial: Trial, shorter: Iterable[Trial], paid: Mapping[str, int]) -> Trial:
    """Return a trial that continues from the longest one that has its milestone, or has not ended."""
    for each in _choices(trial, shorter):
        last = each.previous
        if not last or last not in paid or milestone(study.trial_folder(last)) is not None:
            return trial if last == trial.previous else each
    raise AssertionError("the last choice continues from no trial")


def _choices(trial: Trial, shorter: Iterable[Trial]) -> Iterable[Trial]:
    """Yield a trial as it continues from each shorter one, and from none."""
    for each in (*shorter, None):
        yield continued(trial, each)
