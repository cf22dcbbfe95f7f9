"""``python -m study data info``: show the contents of a pool."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_pool_options, continuing, show, show_all

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
    from study.run.pool_site import PoolSite

    if options.sheet and options.sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet {options.sheet} is drawn as a PNG: name a file that ends in .png")
    folders = [options.pool, *([options.sheet.parent] if options.sheet else [])]
    with continuing(options.sheet or options.pool), PoolSite(options.address, options.workers, show) as site:
        task = partial(summarise, options.pool, options.sheet)
        for _, lines in site.one(*folders).map(task, range(1), lambda _item: options.pool):
            show_all(lines)
    return 0
