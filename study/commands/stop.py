"""``python -m study stop``: stop the run of a study, on whichever machine it runs."""

import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path

from budgets.quantity import parse_seconds
from study.commands.command import add_study_options, declared_study, number, show_all

NAME = "stop"
HELP = "stop a run: its trials write checkpoints and exit; a later `run` continues them"
EXAMPLES: tuple[str, ...] = ("demo", "demo --within 60s", "demo --within 90s --node gpu-7")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument(
        "--within",
        type=number(1, 604_800, parse_seconds),
        metavar="TIME",
        help="end trials that have not left in time, such as 60s; with --node, only wait for so long "
        "(default: wait a minute and end none)",
    )
    parser.add_argument(
        "--node",
        nargs="?",
        default="",
        const=socket.gethostname(),
        metavar="NAME",
        help="stop only the trials on a node, by its name or address (default: of this machine)",
    )


def run(options: Namespace) -> int:
    """Ask the run to stop, and wait until it has ended."""
    if Path(options.node).name != options.node:
        raise ValueError(f"--node: '{options.node}' is no node's name")
    show_all(declared_study(options).storage.stop(within_s=options.within, node=options.node))
    return 0
