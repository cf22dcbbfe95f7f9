"""Recommendation of a configuration from a run or imported study, or from any table as a prior."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from analysis.answers.recommendation import recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.cells.bootstrap import cell_draws
from analysis.cells.imported_table import import_table
from analysis.cells.study_frames import as_planned, lost_cells, with_budgets
from analysis.cells.table import tidy
from analysis.design.course import unsettled
from analysis.laws.holdout import holdout
from analysis.laws.laws import laws
from budgets.cost.architecture import Architecture, own_architectures
from runners.results import read_json_lines, read_table
from study.declare.column_maps import PAPER_FIGURES, find_column_map, load_column_map, read_any_table
from study.state.design import not_chosen
from study.state.study import Imported, Study


def recommend_from(  # noqa: PLR0913 - the options of a command
    study: Study | Imported | None,
    *,
    flops: int,
    pairs: int,
    limit: float,
    prior: str | None,
    table: Path | None,
) -> Iterator[str]:
    """Yield the lines of a recommendation.

    Args:
        study: The study to learn from, or None with a prior.
        flops: Compute budget of one trial.
        pairs: Pairs in the pool before filtering.
        limit: Largest factor of extrapolation.
        prior: Column map of a table to use instead of a study.
        table: The table for the prior (default: the paper's digitised figures).

    Raises:
        ValueError: A value is too small, the study has no results, or no forecast is possible.
    """
    if (study is None) == (prior is None):
        raise ValueError("give either a study or --prior MAP, not both or neither")
    if prior is None and table is not None:
        raise ValueError("--table needs --prior MAP")
    for name, value in (("--flops", flops), ("--pairs", pairs), ("--limit", limit)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; found {value:g}")
    plan, own = pd.DataFrame(), dict[str, Architecture]()
    if study is not None:
        if isinstance(study, Study):
            study.require_run("results.parquet")
            plan = _planned(study, float(flops))
            own = own_architectures(study.declaration.catalogue)
        results = read_table(study.folder / "results.parquet")
        metric = study.metric if isinstance(study, Imported) else study.declaration.metric
        source = str(study.folder)
    else:
        how = load_column_map(find_column_map(str(prior)))
        results = import_table(read_any_table(table or PAPER_FIGURES), how)
        metric, source = how.metric, f"{how.title}, as a prior"
    trials = tidy(as_planned(results, plan), metric=metric, own=own)
    draws = cell_draws(trials, question="laws")
    fitted = tuple(laws(draws, along="compute"))
    planned = with_budgets(plan, trials)
    found = recommend(
        draws, fitted, holdout(draws, fitted), flops=float(flops), pairs=float(pairs), limit=limit,
        plan=planned, lost=lost_cells(trials), measured=cell_draws(trials, question="frontier"),
    )  # fmt: skip
    yield from recommendation_lines(
        found, flops=float(flops), pairs=float(pairs), source=source, metric=metric
    )


def _planned(study: Study, flops: float) -> pd.DataFrame:
    """Return the planned trials; those that a design left out only where they might be the best here."""
    if not (study.folder / "plan.parquet").exists():
        return pd.DataFrame()
    plan = read_table(study.folder / "plan.parquet")
    apart = not_chosen(study.declaration, study.folder, plan)
    left = unsettled(plan[apart], read_json_lines(study.folder / "events.jsonl"), flops)
    return pd.concat([plan[~apart].assign(chosen=True), left.assign(chosen=False)])
