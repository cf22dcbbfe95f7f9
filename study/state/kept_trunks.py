"""The steps that trials of a trunk share in fact, after some have ended early or lost their milestone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from budgets.planning.plan import Plan
from budgets.planning.planned_trial import Trial, continued_from, shorter_trials
from budgets.quantity import format_flops, plural
from runners.store.files import matching
from runners.trials.trial_files import kept_steps, milestone, read_failure, read_outcome, read_progress
from study.state.book import read_book
from study.state.study import Study
from study.state.trial_states import passed_milestone


def with_kept_trunks(study: Study, plan: Plan) -> Plan:
    """Return the plan with the steps that trials share in fact, which the declaration alone does not show.

    A trial continues from the longest shorter one that did not end before its milestone. A milestone is
    removed when the next longer trial of its trunk has reached its own. So a trial that is declared later,
    between two that have ended, trains all of its steps, as does a further attempt that finds none. A trial
    that has been paid keeps its cost: it may have continued from a shorter trial than the plan now has before
    it, or from one that is no longer declared.
    """
    if not any(trial.milestone_step for trial in plan.trials):
        return plan
    book = read_book(study, {}, running=())
    trials = {trial.trial_id: trial for trial in plan.trials}
    # As in tables, where FLOPs are floats: sums of other numbers of samples differ by more than these round.
    paid = {what: float(spent) for what, account in book.trials.items() if (spent := account.spent_flops)}
    finished = paid.keys() & trials
    for what, progress in read_progress(study.folder, trials.keys() - paid.keys()).items():
        if kept_steps(study.trial_folder(what)):
            shared = trials[what].train_flops_after(progress["shared_samples"])
            paid[what] = float(trials[what].train_flops - shared)
    between = {
        shorter.trial_id for what in finished for shorter in shorter_trials(trials[what], trials)
    } - paid.keys()
    begun = {folder.name for folder in matching(study.folder / "trials", "*")} | paid.keys()
    linked, alone = [], []
    for trial in plan.trials:
        link, flops = trial, paid.get(trial.trial_id)
        if flops != float(trial.paid_flops) and trial.previous in begun:
            gone = paid if trial.trial_id in between else finished if trial.attempt > 1 else ()
            link = _from_milestone(study, trial, trials, gone)
        if flops not in {None, float(link.paid_flops)}:
            # The shorter trial that it continued from is found by the FLOPs that were paid.
            same = (candidate for candidate in _links(trial, trials) if float(candidate.paid_flops) == flops)
            link = next(same, None) or _from_undeclared(study, link, flops)
        elif link is not trial:
            alone.append(link)
        linked.append(link)
    if not alone:
        return replace(plan, trials=tuple(linked))
    cost = format_flops(sum(trial.paid_flops for trial in alone))
    note = (
        f"{plural(len(alone), 'trial')} of trunks, such as {alone[0].cell}, follow a shorter one that "
        "ended before its milestone, or whose milestone is gone: steps are trained again, which costs "
        f"{cost} in all"
    )
    return replace(plan, trials=tuple(linked), warnings=(*plan.warnings, note))


def _from_undeclared(study: Study, trial: Trial, flops: float) -> Trial:
    """Return a trial that continued from one that is no longer declared, if the paid FLOPs show that.

    Its result or checkpoint must lie beyond the shared steps. A trial that ended early was paid less for
    another reason.
    """
    folder = study.trial_folder(trial.trial_id)
    outcome = read_outcome(folder)
    done = kept_steps(folder)
    if outcome is not None:
        done = int(outcome.row["steps"]) if outcome.row["status"] == "finished" else 0
    steps = round((trial.train_flops - flops) / (trial.train_flops_per_sample * trial.batch_size))
    link = replace(trial, previous="", shared_samples=steps * trial.batch_size)
    return link if done > steps > 0 and float(link.paid_flops) == flops else trial


def _from_milestone(study: Study, trial: Trial, trials: Mapping[str, Trial], gone: Collection[str]) -> Trial:
    """Return a trial that continues from the longest one that has its milestone, or may get one.

    Those that are ``gone`` have lost theirs. One that is lost in another way is computed again, as waste.
    """
    for link in _links(trial, trials):
        last = link.previous
        available = not last or milestone(study.trial_folder(last)) is not None
        if available or not (last in gone or _ended_early(study, trials[last])):
            return trial if last == trial.previous else link
    raise AssertionError("the last choice continues from no trial")


def _ended_early(study: Study, trial: Trial) -> bool:
    """Return whether a trial has failed, or ended before its milestone."""
    folder = study.trial_folder(trial.trial_id)
    outcome = read_outcome(folder)
    return read_failure(folder) is not None if outcome is None else not passed_milestone(trial, outcome)


def _links(trial: Trial, trials: Mapping[str, Trial]) -> Iterator[Trial]:
    """Yield a trial as it continues from each shorter one of its trunk, and from none."""
    return (continued_from(trial, previous) for previous in (*shorter_trials(trial, trials), None))
