"""``python -m study recommend``: recommend a configuration from a study's results or from any table."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from budgets.quantity import parse_count, parse_flops, parse_quantity, parse_share
from study.commands.command import add_study_options, add_why_option, amount, named_study, number, show_all

if TYPE_CHECKING:
    from study.state.study import Imported, Study

NAME = "recommend"
HELP = "recommend a configuration for a data budget and a compute budget or an error, with its uncertainty"
EXAMPLES: tuple[str, ...] = (
    "demo --flops 1e12 --pairs 8192 --why",
    "demo --flops 1e12 --pairs 50%% --json",
    "demo --error 60%% --pairs 8192",
    "--prior open-clip-scaling --error 30%% --pairs 1B --images 1e12 --at-most '20 GFLOP'",
    "--prior open-clip-scaling --flops 1e20 --pairs 1B",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser, imported=True)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--flops", metavar="FLOPS", help="training FLOPs of one trial, such as 3e18")
    asked.add_argument(
        "--error",
        metavar="ERROR",
        help="error to reach with the least training compute, such as 30%%, or the value of a loss",
    )
    parser.add_argument(
        "--pairs",
        required=True,
        metavar="PAIRS",
        help="pairs in your pool before filtering, such as 10M; 20%% for that share of the study's pool",
    )
    for name in ("images", "texts"):
        parser.add_argument(
            f"--{name}",
            default="0",
            metavar="NUMBER",
            help=f"{name} that the model will embed when it serves: FLOPs are then those of its life",
        )
    parser.add_argument(
        "--at-most",
        action="append",
        default=[],
        metavar="LIMIT",
        help="most forward FLOPs of an image, such as '5 GFLOP', or parameters, such as 100M; repeatable",
    )
    add_why_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")
    parser.add_argument(
        "--limit",
        type=number(1, 10**9),
        default=30.0,
        help="largest factor of extrapolation beyond the measured budgets (default: 30)",
    )
    parser.add_argument(
        "--prior",
        metavar="MAP",
        help="use a table with this column map instead of a study, such as open-clip-scaling",
    )
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="table for --prior (default: the one that comes with the map)",
    )


def run(options: Namespace) -> int:
    """Print the recommendation.

    Raises:
        ValueError: A value is too small, the study has no results, or no forecast is possible.
    """
    from analysis.answers.outliers import outliers
    from analysis.answers.recommendation import recommend
    from analysis.answers.recommendation_text import recommendation_lines
    from analysis.belief.cell_draws import study_draws
    from analysis.report.answer_frames import recommendation_object
    from budgets.cost.serving import Deployment
    from study.show.study_report import prior_frames, study_frames
    from study.state.study import Study

    study = None if options.study is None else named_study(options, options.study)
    if (study is None) == (options.prior is None):
        raise ValueError("give either a study or --prior MAP, not both or neither")
    if options.prior is None and options.table is not None:
        raise ValueError("--table needs --prior MAP")
    flops = None if options.flops is None else amount(options, "flops", parse_flops)
    error = None if options.error is None else amount(options, "error", parse_quantity)
    pairs = _pairs(options, study)
    if isinstance(study, Study):
        study.require_run("results.parquet")
    frames = prior_frames(options.prior, options.table) if study is None else study_frames(study)
    source = f"{frames.name}, as a prior" if study is None else str(study.folder)
    draws = study_draws(frames)
    deployment = Deployment.of(
        images=amount(options, "images", parse_count), texts=amount(options, "texts", parse_count),
        at_most=options.at_most,
    )  # fmt: skip
    recommendation = recommend(
        draws, pairs=pairs, flops=flops, error=error, limit=options.limit,
        serving=deployment.served(draws.architectures, frames.architectures),
    )  # fmt: skip
    if options.json:
        content = recommendation_object(recommendation)
        print(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return 0
    apart = outliers(draws.families, frames.trials)
    show_all(recommendation_lines(recommendation, source=source, apart=apart, why=options.why))
    return 0


def _pairs(options: Namespace, study: "Study | Imported | None") -> float:
    """Return the pairs of a pool, given as a number or as a share of the study's own pool."""
    from budgets.planning.facts import PoolFacts
    from study.state.study import Study
    from study.state.study_facts import study_facts

    if not options.pairs.endswith("%"):
        return amount(options, "pairs", parse_count)
    share = amount(options, "pairs", parse_share)
    if not isinstance(study, Study):
        raise ValueError(  # noqa: TRY004 - a mistake of the user
            f"--pairs {options.pairs}: a table has no pool to take a share of; give a number, such as 10M"
        )
    facts, _ = study_facts(study)
    pools = [facts] if isinstance(facts, PoolFacts) else facts.pools.values()
    return max(1.0, share * sum(pool.pairs for pool in pools))
