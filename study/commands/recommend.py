"""``python -m study recommend``: recommend a configuration from a study's results or from any table."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from budgets.quantity import parse_count, parse_flops
from study.commands.command import add_study_options, amount, finished_study, number, show_all

NAME = "recommend"
HELP = "recommend a configuration for a compute and a data budget, with its uncertainty"
EXAMPLES: tuple[str, ...] = (
    "demo --flops 1e12 --pairs 8192",
    "--prior paper-one-epoch --flops 4e19 --pairs 3.4B",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser, imported=True)
    parser.add_argument(
        "--flops", required=True, metavar="FLOPS", help="training FLOPs of one trial, such as 3e18"
    )
    parser.add_argument(
        "--pairs", required=True, metavar="PAIRS", help="pairs in your pool before filtering, such as 10M"
    )
    parser.add_argument(
        "--limit",
        type=number(1, 10**9),
        default=30.0,
        help="largest factor of extrapolation beyond the measured budgets (default: 30)",
    )
    parser.add_argument(
        "--prior",
        metavar="MAP",
        help="use a table with this column map instead of a study, such as paper-one-epoch",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="table for --prior (default: the paper's digitised figures)",
    )


def run(options: Namespace) -> int:
    """Print the recommendation."""
    from study.show.study_recommendation import recommend_from

    show_all(
        recommend_from(
            finished_study(options),
            flops=amount(options, "flops", parse_flops),
            pairs=amount(options, "pairs", parse_count),
            limit=options.limit,
            prior=options.prior,
            table=options.table,
        )
    )
    return 0
