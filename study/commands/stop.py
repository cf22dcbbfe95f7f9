"""``python -m study stop``: stop the run of a study, on whichever machine it runs."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, declared_study, number, show_all

NAME = "stop"
HELP = "stop a run: its trials write checkpoints and exit; a later `run` continues them"
EXAMPLES: tuple[str, ...] = ("demo", "demo --wait 600")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument(
        "--wait",
        type=number(0, 604_800),
        default=60.0,
        metavar="SECONDS",
        help="seconds to wait for the run's end (default: 60)",
    )


def run(options: Namespace) -> int:
    """Ask the run to stop, and wait until it has ended."""
    show_all(declared_study(options).storage.stop(wait_s=options.wait))
    return 0
