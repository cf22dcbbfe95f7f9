"""``python -m study data eval-sets``: faults of evaluation sets, and gaps of the paper's suite."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "eval-sets"
HELP = "check evaluation sets; say what the paper's suite lacks"
EXAMPLES: tuple[str, ...] = ("/data/wds",)

EXIT_UNUSABLE = 1


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("folder", type=Path, help="a folder of sets in CLIP_benchmark's webdataset layout")


def run(options: Namespace) -> int:
    """Prints a line for each set; 1 when one can't be used."""
    from runners.data.evaluation.evaluation_suite import check_sets, found_sets

    checked = list(check_sets(found_sets(options.folder)))
    for each in checked:
        print(each.line)
    return 0 if all(each.good for each in checked) else EXIT_UNUSABLE
