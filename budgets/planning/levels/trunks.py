"""Trunks: trials that differ only in how long they train share their steps at the constant learning rate.

With ``schedule: trunk`` the learning rate, the order of samples and all random draws of a step are the same
for every level of a curve, up to the step at which the level's cooldown begins: its milestone. The trial of a
level stores its state there; the next longer trial of the same seed continues from it, as if it had trained
alone. So each trial of a trunk pays for the steps from the milestone before its own to its end.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from budgets.planning.identity import trunk_id
from budgets.planning.planned_trial import Trial


def share_trunks(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials in the given order, each with the next shorter one of its trunk as ``previous``."""
    trunks: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.milestone_step:
            trunks[trunk_id(trial)].append(trial)
    if not trunks:
        return tuple(trials)
    linked: dict[str, Trial] = {}
    for trunk in trunks.values():
        shorter: Trial | None = None
        for trial in sorted(trunk, key=lambda each: (each.samples_seen, each.trial_id)):
            linked[trial.trial_id] = continued(trial, shorter)
            shorter = trial
    return tuple(linked.get(trial.trial_id, trial) for trial in trials)


def continued(trial: Trial, shorter: Trial | None) -> Trial:
    """Return a trial as it continues from the milestone of a shorter one of its trunk, or from none."""
    if shorter is None:
        return replace(trial, previous="", shared_samples=0)
    shared = shorter.milestone_step * shorter.batch_size
    return replace(trial, previous=shorter.trial_id, shared_samples=shared)


def before(trial: Trial, trials: Mapping[str, Trial]) -> Iterator[Trial]:
    """Yield the shorter trials of a trial's trunk, the longest first."""
    while trial.previous in trials:
        trial = trials[trial.previous]
        yield trial
