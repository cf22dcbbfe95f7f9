"""``python -m study data info``: show the contents of a pool."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_pool_options, show, show_all

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
    from functools import partial

    from runners.data.build.info import summarise
    from runners.data.places.copies import is_url
    from study.run.pools.pool_site import PoolSite

    folders = [] if is_url(options.pool) else [Path(options.pool)]
    folders += [options.sheet.parent] if options.sheet else []
    with PoolSite(options, show) as site:
        task = partial(summarise, options.pool, options.sheet)
        for _, lines in site.one(*folders).map(task, range(1), lambda _item: options.pool):
            show_all(lines)
    return 0
