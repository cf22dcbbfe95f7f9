"""``python -m study recommend``: recommend a configuration from a study's results or from any table."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from budgets.quantity import parse_count, parse_flops
from study.commands.command import add_study_options, amount, finished_study, number, show_all

NAME = "recommend"
HELP = "recommend a configuration for a compute and a data budget, with its uncertainty"
EXAMPLES: tuple[str, ...] = (
    "demo --flops 1e12 --pairs 8192",
    "--prior open-clip-scaling --flops 1e20 --pairs 1B",
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
    import pandas as pd

    from analysis.answers.outliers import outlier_lines, outliers
    from analysis.answers.recommendation import recommend
    from analysis.answers.recommendation_text import recommendation_lines
    from analysis.belief.cell_draws import cell_draws
    from analysis.cells.imported_table import import_table
    from analysis.cells.study_frames import as_planned
    from analysis.cells.table import tidy
    from analysis.error_unit import ErrorUnit
    from analysis.labels import call_strategies
    from budgets.cost.architecture import Architecture, own_architectures
    from runners.data.build.table_file import read_any_table
    from study.declare.column_maps import find_column_map, load_column_map, shipped_table
    from study.state.design import declared_confidence
    from study.state.study import Study

    study, limit = finished_study(options), options.limit
    flops = float(amount(options, "flops", parse_flops))
    pairs = float(amount(options, "pairs", parse_count))
    if (study is None) == (options.prior is None):
        raise ValueError("give either a study or --prior MAP, not both or neither")
    if options.prior is None and options.table is not None:
        raise ValueError("--table needs --prior MAP")
    for name, value in (("--flops", flops), ("--pairs", pairs), ("--limit", limit)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; found {value:g}")
    plan, own, confidence = pd.DataFrame(), dict[str, Architecture](), None
    if study is None:
        path = find_column_map(options.prior)
        columns = load_column_map(path)
        results = import_table(read_any_table(options.table or shipped_table(path)), columns)
        metric, source = columns.metric, f"{columns.title}, as a prior"
    else:
        if isinstance(study, Study):
            study.require_run("results.parquet")
            own = own_architectures(study.declaration.catalogue)
            confidence = declared_confidence(study.declaration)
        if (study.folder / "plan.parquet").exists():
            plan = study.read_table("plan.parquet")
            call_strategies(plan)
        results = study.read_table("results.parquet")
        metric = study.declaration.metric if isinstance(study, Study) else study.metric
        source = str(study.folder)
    trials = tidy(as_planned(results, plan), metric=metric, own=own)
    draws = cell_draws(trials, plan, confidence=confidence)
    found = recommend(draws, flops=flops, pairs=pairs, limit=limit)
    show_all(recommendation_lines(found, flops=flops, pairs=pairs, source=source, metric=metric))
    leaders = found.candidates.iloc[[*found.verdict.members]][["architecture", "strategy", "quality"]]
    far = outliers(draws.families, trials).merge(leaders.drop_duplicates())
    show_all(f"  {line}" for line in outlier_lines(far, ErrorUnit.of(metric)))
    return 0
