"""``python -m study data eval-sets``: check evaluation sets; list what the paper's suite lacks."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import show

NAME = "eval-sets"
HELP = "check evaluation sets; list those of the paper's suite that are missing"
EXAMPLES: tuple[str, ...] = ("/data/wds",)

EXIT_UNUSABLE = 1


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("folder", type=Path, help="a folder of sets in CLIP_benchmark's webdataset layout")


def run(options: Namespace) -> int:
    """Print one line per set; return 1 if any set can't be used."""
    from runners.data.evaluation.evaluation_suite import check_sets, found_sets

    checked = list(check_sets(found_sets(options.folder)))
    for each in checked:
        show(each.line)
    return 0 if all(each.good for each in checked) else EXIT_UNUSABLE
