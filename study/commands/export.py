"""``python -m study export``: a trial's model as a folder that open_clip loads by itself."""

import shutil
from pathlib import Path

import torch

from budgets.names import unknown
from runners.data.build.in_place import open_pool
from runners.host.files import new_folder
from runners.models.export import PIXELS, WEIGHTS, write_architecture
from runners.trials.trial_files import read_outcome
from study.state.bookkeeping import trial_folder
from study.state.study import Study, plan_study


def export_trial(study: Study, trial_id: str, target: Path) -> str:
    """Exports a finished trial's model.

    Args:
        study: The study.
        trial_id: The trial's id.
        target: The folder to make; see `runners.models.export` for what is in it.

    Returns:
        How to load it, in a sentence.

    Raises:
        ValueError: There is no such trial, it has not finished, or something is at ``target``.
    """
    trials = {trial.trial_id: trial for trial in plan_study(study).trials}
    if trial_id not in trials:
        raise ValueError(unknown("trial", trial_id, trials))
    trial, source = trials[trial_id], trial_folder(study, trial_id)
    study.storage.bring_weights(trial_id)
    outcome = read_outcome(source)
    weights = source / "weights.pt"
    if outcome is None or not weights.is_file():
        raise ValueError(f"trial {trial_id} has no weights yet: there is no {weights}")
    if outcome.row["status"] != "finished":
        raise ValueError(f"trial {trial_id} is of no use: {outcome.row['status']}, {outcome.row['reason']}")
    keys = torch.load(weights, mmap=True, weights_only=True).keys()
    with new_folder(target) as folder:
        write_architecture(
            folder,
            trial.cell.architecture,
            trial.architecture_config,
            pixels=PIXELS,
            words=open_pool(study.pool).vocabulary,
            sigmoid_bias="logit_bias" in keys,
            final=target,
        )
        shutil.copyfile(weights, folder / WEIGHTS)
    return f"{target}: {trial.cell}, seed {trial.seed}; open_clip.create_model('local-dir:{target}') loads it"
