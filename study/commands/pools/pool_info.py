"""``python -m study data info``: show the contents of a pool."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_pool_options, continuing, show, show_all

NAME = "info"
HELP = "show counts, sizes, scores and the pairs left out"
EXAMPLES: tuple[str, ...] = ("pools/icons", "pools/icons --sheet icons.png")

_PNG = b"\x89PNG\r\n\x1a\n"


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_pool_options(parser)
    parser.add_argument(
        "--sheet", type=Path, metavar="PNG", help="also draw sample pairs of each tenth of the pool"
    )


def run(options: Namespace) -> int:
    """Print the pool's contents; draw the sheet if requested.

    Raises:
        ValueError: The sheet would replace what is not a PNG.
    """
    from functools import partial

    from runners.data.build.info import summarise
    from study.run.pool_site import PoolSite

    if options.sheet:
        _check_replaceable(options.sheet)
    folders = [options.pool, *([options.sheet.parent] if options.sheet else [])]
    with continuing(options.sheet or options.pool), PoolSite(options, show) as site:
        task = partial(summarise, options.pool, options.sheet)
        for _, lines in site.one(*folders).map(task, range(1), lambda _item: options.pool):
            show_all(lines)
    return 0


def _check_replaceable(sheet: Path) -> None:
    if not sheet.exists():
        return
    if sheet.is_file():
        with sheet.open("rb") as file:
            if file.read(len(_PNG)) == _PNG:
                return
    raise ValueError(f"--sheet {sheet} exists and is not a PNG: name a new file")
