"""``python -m study run``: run a study's trials, on Ray or without it; ``--dry-run`` only lists them."""

import sys
from argparse import ArgumentParser, Namespace
from functools import partial

from study.commands.command import (
    add_backend_options,
    add_study_options,
    declared_study,
    show_all,
    without_ray,
)

NAME = "run"
HELP = "run the trials on Ray; finished trials are kept, and repeated only by --again"
EXAMPLES: tuple[str, ...] = (
    "demo",
    "demo --only 'mini-ViT-XXS-8 clip' --dry-run",
    "my-study.yaml --address HEAD:6379 --retry-failed",
)

EXIT_FAILED_TRIALS = 1
EXIT_OVER_BUDGET = 3
EXIT_STOPPED = 4


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="print only notes and failures, without a live view"
    )
    add_backend_options(parser)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELLS",
        help="run only these trials: an id, or words of their cells such as 'slip top40'; repeatable",
    )
    parser.add_argument(
        "--again",
        action="append",
        default=[],
        metavar="ID",
        help="repeat a trial beside its first attempt; the newest one with a result is used; repeatable",
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="run trials again that failed in an earlier run"
    )
    parser.add_argument(
        "--pay-again",
        action="store_true",
        help="run trials again that were paid for, but whose results are gone (default: ask)",
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and change nothing")


def run(options: Namespace) -> int:
    """Run the trials that have no result yet.

    Returns:
        0; 1 if trials failed; 3 if the study budget had no room for all trials; 4 if the run was stopped
        before all trials had ended.
    """
    from study.run.books import PaidBeforeError
    from study.run.run_study import run_study, would_run
    from study.show.progress import Progress, remaining_text
    from study.show.terminal import PlainConsole
    from study.state.plan_study import plan_study

    local = without_ray(options)
    if options.dry_run and options.pay_again:
        raise ValueError("--dry-run changes nothing: it can't be combined with --pay-again")
    study = declared_study(options)
    study.storage.refresh(partial(print, file=sys.stderr))  # required, so that no trial is paid twice
    plan, only, retry_failed = plan_study(study), options.only, options.retry_failed
    if options.dry_run:
        show_all(would_run(study, plan, only=only, again=options.again, retry_failed=retry_failed))
        return 0
    console = PlainConsole()
    view = partial(Progress, study.declaration.metric, console, quiet=options.quiet)
    execute = partial(
        run_study, study, plan, address=options.address, local=local, only=only, again=options.again,
        retry_failed=retry_failed, notice=options.notice,
    )  # fmt: skip
    try:
        result = execute(view(), pay_again=options.pay_again)
    except PaidBeforeError as error:
        if not sys.stdin.isatty() or not _agrees(f"study: {error}\nPay them again? [y/N] "):
            raise
        result = execute(view(), pay_again=True)
    if not options.quiet:
        console.print(f"results in {study.folder}")
    for line in remaining_text(result.remaining, result.plan):
        console.print(line)
    if result.stopped:
        return EXIT_STOPPED
    if result.remaining:
        return EXIT_OVER_BUDGET
    return EXIT_FAILED_TRIALS if result.failures else 0


def _agrees(question: str) -> bool:
    try:
        return input(question).lower() == "y"
    except EOFError:  # Ctrl-D
        return False
