"""``python -m study data info``: show the contents of a pool."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_pool_options, show

NAME = "info"
HELP = "show counts, sizes, scores and the pairs left out"
EXAMPLES: tuple[str, ...] = ("pools/icons", "pools/icons --sheet icons.png")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_pool_options(parser)
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="also draw sample pairs of each tenth of the pool"
    )


def run(options: Namespace) -> int:
    """Print the pool's contents; draw the sheet if requested."""
    from runners.data.build.info import contact_sheet, info_lines
    from runners.data.pool.pool import Pool

    pool = Pool.open(options.pool)
    for line in info_lines(pool):
        show(line)
    if options.sheet:
        contact_sheet(pool, options.sheet)
        show(options.sheet)
    return 0
