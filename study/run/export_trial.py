"""Export of a finished trial's model as a folder that open_clip can load."""

import shutil
from pathlib import Path

from budgets.planning.planned_trial import Trial
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import mixed_words
from runners.models.export import PIXELS, WEIGHTS, write_architecture, write_origin
from runners.models.load_model import weight_names
from runners.store.files import new_folder
from runners.trials.trial_files import WEIGHTS as TRAINED
from runners.trials.trial_files import read_outcome, require_own_weights
from study.declare.load import load_declaration
from study.run.prepare_data import ensure_pools
from study.state.plan_study import plan_study, select_trials
from study.state.study import Study, find_study


def export_trial(study: Study, trial: Trial, target: Path) -> None:
    """Write a trial's model to a new folder; an embedded pool that is not here is built, for its vocabulary.

    Raises:
        ValueError: The trial has no weights, or they are damaged.
    """
    trial_id = trial.trial_id
    source = study.trial_folder(trial_id)
    study.storage.bring_weights(trial_id)
    outcome = read_outcome(source)
    weights = source / TRAINED
    if outcome is None or not weights.is_file():
        raise ValueError(f"trial {trial_id} has no weights yet: {weights} does not exist")
    if outcome.row["status"] != "finished":
        raise ValueError(
            f"trial {trial_id} can't be exported: {outcome.row['status']}, {outcome.row['reason']}"
        )
    require_own_weights(weights)
    biased = "logit_bias" in weight_names(weights)
    ensure_pools(study, lambda _line: None)  # of a study in a bucket, this machine may lack them
    with new_folder(target) as folder:
        pools = [Pool.open(study.pool_folders[part.name], holding=part.pool) for part in trial.components]
        write_architecture(
            folder,
            trial.cell.architecture,
            trial.architecture_config,
            pixels=PIXELS,
            words=mixed_words([pool.vocabulary for pool in pools]),
            sigmoid_bias=biased,
            final=target,
        )
        write_origin(
            folder, trial=trial_id, train_flops=trial.train_flops, precision=outcome.row["precision"]
        )
        shutil.copyfile(weights, folder / WEIGHTS)


def export_from(folder: Path, target: Path) -> None:
    """Write the model of the trial in a folder ``STUDY/trials/ID`` to a new folder.

    Raises:
        ValueError: The folder is not in that of a study, or the study no longer has this trial.
    """
    home = folder.resolve().parents[1]
    declaration = home / "study.yaml"
    if not declaration.is_file():
        raise ValueError(f"{folder} is a trial, but {declaration} is missing: name an exported folder")
    study = find_study(load_declaration(declaration, Path()), results=str(home.parent), pools=None)
    (trial,) = select_trials(plan_study(study).trials, [folder.resolve().name])
    export_trial(study, trial, target)
