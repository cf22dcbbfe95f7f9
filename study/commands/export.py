"""``python -m study export``: write a trial's model as a folder that open_clip can load."""

import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_study_options, refreshed_study, show

NAME = "export"
HELP = "write a trial's model as a folder that open_clip can load"
EXAMPLES: tuple[str, ...] = ("demo 3f2a91c05b7e exported", "demo 'mini-ViT-XS-8 clip top40' exported")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument("trial", help="the trial's id, or words of its cell such as 'slip top40'")
    parser.add_argument("folder", type=Path, help="the folder to make")


def run(options: Namespace) -> int:
    """Export a finished trial's model, and print how to load it."""
    import torch

    from runners.data.build.in_place import open_pool
    from runners.data.pool.tokenizer import mixed_words
    from runners.host.files import new_folder
    from runners.models.export import PIXELS, WEIGHTS, write_architecture, write_origin
    from runners.trials.records.trial_files import read_outcome
    from study.state.bookkeeping import trial_folder
    from study.state.planning.plan_study import plan_study
    from study.state.selection import select_trials

    study, target = refreshed_study(options), options.folder
    found = select_trials(plan_study(study), [options.trial])
    if len(found) > 1:
        listed = "\n".join(f"  {each.trial_id}: {each.cell}, seed {each.seed}" for each in found)
        raise ValueError(f"'{options.trial}' matches {len(found)} trials; name one by its id:\n{listed}")
    (trial,) = found
    trial_id = trial.trial_id
    source = trial_folder(study, trial_id)
    study.storage.bring_weights(trial_id)
    outcome = read_outcome(source)
    weights = source / "weights.pt"
    if outcome is None or not weights.is_file():
        raise ValueError(f"trial {trial_id} has no weights yet: {weights} does not exist")
    if outcome.row["status"] != "finished":
        raise ValueError(
            f"trial {trial_id} can't be exported: {outcome.row['status']}, {outcome.row['reason']}"
        )
    keys = torch.load(weights, map_location="cpu", mmap=True, weights_only=True).keys()
    with new_folder(target) as folder:
        write_architecture(
            folder,
            trial.cell.architecture,
            trial.architecture_config,
            pixels=PIXELS,
            words=mixed_words(
                [
                    open_pool(study.pool_folders[each.name], holding=each.pool).vocabulary
                    for each in trial.components
                ]
            ),
            sigmoid_bias="logit_bias" in keys,
            final=target,
        )
        write_origin(folder, trial=trial_id, precision=outcome.row["precision"])
        shutil.copyfile(weights, folder / WEIGHTS)
    show(f"{target}: {trial.cell}, seed {trial.seed}; open_clip.create_model('local-dir:{target}') loads it")
    return 0
