"""``python -m study recommend``: recommend a configuration from a study's results or from any table."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from budgets.quantity import parse_count, parse_flops
from study.commands.command import add_study_options, amount, finished_study, number, show_all

if TYPE_CHECKING:
    import pandas as pd

    from study.state.study import Study

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
    """Print the recommendation.

    Raises:
        ValueError: A value is too small, the study has no results, or no forecast is possible.
    """
    import pandas as pd

    from analysis.answers.recommendation import recommend
    from analysis.answers.recommendation_text import recommendation_lines
    from analysis.cells.bootstrap import cell_draws
    from analysis.cells.imported_table import import_table
    from analysis.cells.study_frames import as_planned, lost_cells, with_budgets
    from analysis.cells.table import tidy
    from analysis.laws.holdout import holdout
    from analysis.laws.laws import laws
    from budgets.cost.architecture import Architecture, own_architectures
    from runners.results import read_table
    from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map, read_any_table
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
    plan, own = pd.DataFrame(), dict[str, Architecture]()
    if study is None:
        columns = load_column_map(find_column_map(options.prior))
        results = import_table(read_any_table(options.table or PAPER_FIGURES), columns)
        metric, source = columns.metric, f"{columns.title}, as a prior"
    else:
        if isinstance(study, Study):
            study.require_run("results.parquet")
            plan = _planned(study, flops)
            own = own_architectures(study.declaration.catalogue)
        results = read_table(study.folder / "results.parquet")
        metric = study.declaration.metric if isinstance(study, Study) else study.metric
        source = str(study.folder)
    trials = tidy(as_planned(results, plan), metric=metric, own=own)
    draws = cell_draws(trials, question="laws")
    fitted = tuple(laws(draws, along="compute"))
    recommendation = recommend(
        draws, fitted, holdout(draws, fitted), flops=flops, pairs=pairs, limit=limit,
        plan=with_budgets(plan, trials), lost=lost_cells(trials),
        measured=cell_draws(trials, question="frontier"),
    )  # fmt: skip
    show_all(recommendation_lines(recommendation, flops=flops, pairs=pairs, source=source, metric=metric))
    return 0


def _planned(study: "Study", flops: float) -> "pd.DataFrame":
    """Return the planned trials; those that a design left out only where they might be the best here."""
    import pandas as pd

    from analysis.design.course import unsettled
    from runners.results import read_json_lines, read_table
    from study.state.design import not_chosen

    if not (study.folder / "plan.parquet").exists():
        return pd.DataFrame()
    plan = read_table(study.folder / "plan.parquet")
    apart = not_chosen(study.declaration, study.folder, plan)
    left = unsettled(plan[apart], read_json_lines(study.folder / "events.jsonl"), flops)
    return pd.concat([plan[~apart].assign(chosen=True), left.assign(chosen=False)])
