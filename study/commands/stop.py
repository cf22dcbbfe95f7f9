"""``python -m study stop``: tells the run of a study to stop, on whatever machine it is."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_study_options, declared_study

NAME = "stop"
HELP = "tell a run to stop: its trials write checkpoints and leave; `run` goes on later"
EXAMPLES: tuple[str, ...] = ("demo", "demo --wait 600")


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_study_options(parser)
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for its end, at most (60)"
    )


def run(options: Namespace) -> int:
    """Tells it, and waits for its end."""
    for line in declared_study(options).storage.stop(wait_s=options.wait):
        print(line, flush=True)
    return 0
