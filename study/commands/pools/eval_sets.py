"""``python -m study data eval-sets``: check evaluation sets; list what the paper's suite lacks."""

from argparse import ArgumentParser, Namespace

from study.commands.command import add_worker_options, show

NAME = "eval-sets"
HELP = "check evaluation sets; list those of the paper's suite that are missing"
EXAMPLES: tuple[str, ...] = ("/data/wds",)

EXIT_UNUSABLE = 1


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", help="a folder, or its URL, of sets in CLIP_benchmark's webdataset layout")
    add_worker_options(parser)


def run(options: Namespace) -> int:
    """Print one line per set; return 1 if any set can't be used."""
    from runners.data.evaluation.evaluation_suite import check_sets, found_sets
    from study.run.pool_site import PoolSite

    sets, good = found_sets(options.folder), True
    with PoolSite(options.address, options.workers, show) as site:
        for line, usable in check_sets(sets, site.workers(options.folder)):
            show(line)
            good = good and usable
    return 0 if good else EXIT_UNUSABLE
