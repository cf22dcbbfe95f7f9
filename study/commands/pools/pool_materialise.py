"""``python -m study data materialise``: make the copies of subsets that a study's trials read."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, add_worker_options, declared_study

NAME = "materialise"
HELP = "copy the subsets that a study's trials read, before its run would do so"
EXAMPLES: tuple[str, ...] = ("my-study.yaml", "my-study.yaml --address HEAD:6379")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    add_worker_options(parser)


def run(options: Namespace) -> int:
    """Make the copies that do not exist yet, or continue an interrupted one.

    Raises:
        ValueError: The study declares no copies, or a pool can't be copied.
    """
    from budgets.declaration.declaration import require_runnable
    from study.run.pool_site import PoolSite
    from study.run.prepare_data import ensure_pools, materialise
    from study.show.progress import Progress
    from study.show.terminal import PlainConsole
    from study.state.plan_study import plan_study

    study = declared_study(options)
    study.storage.refresh()
    declared = study.declaration
    require_runnable(declared)
    if declared.materialise_from is None and declared.training.recipe.resized_images is None:
        raise ValueError(
            f"{declared.name} declares no copies: materialise_from and training.resized_images are off"
        )
    plan = plan_study(study)
    with (
        Progress(declared.metric, PlainConsole()) as progress,
        PoolSite(options.address, options.workers, progress.say) as site,
    ):
        ensure_pools(study, progress.say)
        study.folder.mkdir(parents=True, exist_ok=True)
        if not materialise(study, plan, site, progress):
            progress.say("nothing to copy: every subset that has to be copied has its copy")
    return 0
