"""``python -m study recommend``: what to train, from a study's results or from anyone's table."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_study_options, finished_study

NAME = "recommend"
HELP = "say what to train for a compute and a data budget, and how sure that is"
EXAMPLES: tuple[str, ...] = (
    "demo --flops 1e12 --pairs 8192",
    "--prior paper-one-epoch --flops 4e19 --pairs 3.4B",
)


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    add_study_options(parser, imported=True)
    parser.add_argument(
        "--flops", required=True, metavar="FLOPS", help="training FLOPs of one trial, as 3e18"
    )
    parser.add_argument(
        "--pairs", required=True, metavar="PAIRS", help="pairs in your pool, unfiltered, as 10M"
    )
    parser.add_argument(
        "--limit", type=float, default=30.0, help="times beyond the measured budgets, at most (30)"
    )
    parser.add_argument(
        "--prior",
        metavar="MAP",
        help="learn from a table by this column map instead of a study, such as paper-one-epoch",
    )
    parser.add_argument(
        "--table", type=Path, metavar="FILE", help="table of the prior (the paper's readings)"
    )


def run(options: Namespace) -> int:
    """Prints the recommendation."""
    from study.show.study_recommendation import recommend_from

    for line in recommend_from(
        finished_study(options),
        flops=options.flops,
        pairs=options.pairs,
        limit=options.limit,
        prior=options.prior,
        table=options.table,
    ):
        print(line)
    return 0
