"""``python -m study run``: the trials on Ray, or without it; what it would do, by ``--dry-run``."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, open_console, refreshed_study

NAME = "run"
HELP = "run the trials on Ray; what is finished is never run again"
EXAMPLES: tuple[str, ...] = (
    "demo",
    "demo --only 'mini-ViT-XXS-8 clip' --dry-run",
    "my-study.yaml --address HEAD:6379 --retry-failed",
)

EXIT_FAILED_TRIALS = 1
EXIT_OVER_BUDGET = 3
EXIT_STOPPED = 4


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_study_options(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="write notes and failures only, and no live view"
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of a running Ray cluster's head, or local for one on this machine "
        "(RAY_ADDRESS, else local)",
    )
    parser.add_argument(
        "--backend",
        choices=("ray", "local"),
        default="ray",
        help="what runs the trials: Ray, or processes of this machine without it, to debug (ray)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELLS",
        help="run these trials alone: an id, or words of their cells, as 'slip top40'; may be repeated",
    )
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed in an earlier run")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run, and change nothing")


def run(options: Namespace) -> int:
    """Runs what has no result yet.

    Returns:
        0; 1 when trials failed; 3 when the study budget had no room for all trials; 4 when the run was told
        to stop before its end.
    """
    from study.run.run_study import run_study, would_run
    from study.show.progress import Progress, remaining_text
    from study.state.study import plan_study

    study = refreshed_study(options, needed=True)
    plan, only, retry_failed = plan_study(study), options.only, options.retry_failed
    if options.dry_run:
        for line in would_run(study, plan, only=only, retry_failed=retry_failed):
            print(line)
        return 0
    console, local = open_console(), options.backend == "local"
    with Progress(study.declaration.metric, console, quiet=options.quiet) as progress:
        result = run_study(
            study, plan, progress, address=options.address, local=local, only=only, retry_failed=retry_failed
        )
    if not options.quiet:
        console.print(f"results in {study.folder}", highlight=False)
    for line in remaining_text(result.remaining, result.plan):
        console.print(line, highlight=False, markup=False)
    if result.stopped:
        return EXIT_STOPPED
    if result.remaining:
        return EXIT_OVER_BUDGET
    return EXIT_FAILED_TRIALS if result.failures else 0
