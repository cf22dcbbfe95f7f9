"""``python -m study data``: build, inspect and score pools; check evaluation sets."""

from argparse import ArgumentParser, Namespace

from study.commands.command import Command, add_commands
from study.commands.pools import eval_sets, pool_build, pool_info, pool_materialise, pool_score

NAME = "data"
HELP = "build, inspect and score a pool of image-text pairs; check evaluation sets"
EXAMPLES: tuple[str, ...] = ("build pools/emoji --from embedded:256", "info pools/emoji")
COMMANDS: tuple[Command, ...] = (pool_build, pool_info, pool_score, pool_materialise, eval_sets)


def add_options(parser: ArgumentParser) -> None:
    """Add the commands of ``data``."""
    add_commands(parser, COMMANDS, dest="data_command")


def run(options: Namespace) -> int:
    """Run the chosen command of ``data``."""
    return {command.NAME: command for command in COMMANDS}[options.data_command].run(options)
