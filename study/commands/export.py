"""``python -m study export``: write a trial's model as a folder that open_clip can load."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_study_options, declared_study, show

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
    from study.run.export_trial import export_trial
    from study.state.plan_study import plan_study, select_trials

    study, target = declared_study(options, refresh=True), options.folder
    matches = select_trials(plan_study(study).trials, [options.trial])
    if len(matches) > 1:
        listed = "\n".join(f"  {trial.trial_id}: {trial.words()}" for trial in matches)
        raise ValueError(f"'{options.trial}' matches {len(matches)} trials; name one by its id:\n{listed}")
    (trial,) = matches
    export_trial(study, trial, target)
    show(f"{target}: {trial.words()}; open_clip.create_model('local-dir:{target}') loads it")
    return 0
