"""The command line: the list of commands, and how bad input ends.

Exit codes: 0, done; 1, something that was asked for failed (`run`: a trial; `check`: a check; `data
eval-sets`: a set); 2, bad input, reported in one message; 3, `run` had no room in the study budget for all
trials; 4, `run` was asked to stop before its end; 130, interrupted by the keyboard.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from study.commands import (
    calibrate,
    check,
    completion,
    data,
    evaluate,
    export,
    import_table,
    new,
    plan,
    recommend,
    report,
    run,
    status,
    stop,
)
from study.commands.command import Command, add_commands, help_with

COMMANDS: tuple[Command, ...] = (
    new, plan, check, calibrate, run, stop, status, report, recommend, export, import_table,
    data, evaluate, completion,
)  # fmt: skip
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 128 + 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``python -m study``; those of the process by default.

    Returns:
        The exit code.
    """
    options = make_parser().parse_args(arguments)
    try:
        return {each.NAME: each for each in COMMANDS}[options.command].run(options)
    except BrokenPipeError:  # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("study: stopped; what is finished is kept, the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    called = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(
        prog=called if called == "scaling-study" else "python -m study",
        description="Finds out how to spend a fixed amount of compute on CLIP.",
        **help_with(("new first", "plan first.yaml", "run first.yaml", "report first.yaml")),
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.set_defaults(parser=parser)
    add_commands(parser, COMMANDS, dest="command")
    return parser


class _Version(argparse.Action):
    """Shows the version; looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Prints it and ends."""
        from importlib.metadata import version  # noqa: PLC0415 - few ask

        print(f"clip-scaling-study {version('clip-scaling-study')}")
        parser.exit()
