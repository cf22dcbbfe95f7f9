"""A trial's job: the paths and the resources with which a node runs it."""

from collections.abc import Mapping
from types import MappingProxyType

from budgets.planning.levels.trunks import before
from budgets.planning.planned_trial import Trial
from runners.scheduling.nodes import Amounts
from runners.trials.trial_job import TrialJob
from study.state.study import Study


def needs(study: Study, trial: Trial) -> Amounts:
    """Return the resources that a trial needs on each of its nodes."""
    resources = trial.resources
    shares = {"cpus": resources.cpus, "gpus": resources.gpus} | study.declaration.resources.custom
    return {name: amount / resources.nodes for name, amount in shares.items()}


def trial_job(study: Study, trial: Trial, trials: Mapping[str, Trial] = MappingProxyType({})) -> TrialJob:
    """Return a trial's job: the paths of its data and its resources on one node.

    ``trials`` are those whose milestones it may continue from, by id.
    """
    resources, declared = trial.resources, study.declaration.resources
    return TrialJob(
        trial=trial,
        pools=tuple(study.pool_folders[each.name].resolve() for each in trial.components),
        evaluation={name: path.resolve() for name, path in study.evaluation.items()},
        probes=study.declaration.probes,
        evaluate_at=study.declaration.evaluate_at,
        folder=study.trial_folder(trial.trial_id).resolve(),
        cpus=resources.cpus // resources.nodes,
        gpus=resources.gpus // resources.nodes,
        ranks=resources.ranks_per_node,
        checkpoint_s=declared.checkpoint_s,
        checkpoint_steps=declared.checkpoint_steps,
        loader_bytes=declared.loader_memory,
        damage_tolerance=study.declaration.limits.damage,
        trunk=tuple(study.trial_folder(each.trial_id).resolve() for each in before(trial, trials)),
    )
