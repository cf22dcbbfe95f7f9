"""``python -m study data info``: what a pool holds."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_pool_options

NAME = "info"
HELP = "show counts, sizes, scores and what was left out"
EXAMPLES: tuple[str, ...] = ("pools/icons", "pools/icons --sheet icons.png")


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_pool_options(parser)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw samples of each tenth")


def run(options: Namespace) -> int:
    """Prints what there is, and draws the sheet."""
    from runners.data.build.info import contact_sheet, info_lines
    from runners.data.pool.pool import Pool

    pool = Pool.open(options.pool)
    for line in info_lines(pool):
        print(line)
    if options.sheet:
        contact_sheet(pool, options.sheet)
        print(options.sheet)
    return 0
