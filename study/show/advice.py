"""A recommendation from the results of a study or of any table, as the command and Python give it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.answers.outliers import outlier_lines, outliers
from analysis.answers.recommendation import Recommendation, recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.belief.cell_draws import CellDraws, study_draws
from analysis.cells.imported_table import import_table
from analysis.cells.study_frames import StudyFrames
from analysis.error_unit import ErrorUnit
from budgets.declaration.sections import FARTHEST
from runners.data.build.table_file import read_any_table
from study.declare.column_maps import find_column_map, load_column_map, shipped_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Advice:
    """What to train with a compute and a data budget.

    Attributes:
        recommendation: The configurations that fit, the best first, and the verdict on them.
        outliers: Runs of the leaders' architecture, strategy and quality that stand out, see
            `outliers.outliers`.
        flops: Training FLOPs of one trial.
        pairs: Pairs of the pool before filtering.
        source: Where the results are from.
        metric: Metric that the study compares.
    """

    recommendation: Recommendation
    outliers: pd.DataFrame
    flops: float
    pairs: float
    source: str
    metric: str

    def lines(self, *, why: bool = False) -> tuple[str, ...]:
        """Return the advice as the command line prints it; with ``why``, also what it rests on."""
        said = recommendation_lines(
            self.recommendation, flops=self.flops, pairs=self.pairs, source=self.source, metric=self.metric,
            why=why,
        )  # fmt: skip
        apart = outlier_lines(self.outliers, ErrorUnit.of(self.metric))
        return (*said, *(f"  {line}" for line in apart))


def advise(  # noqa: PLR0913 - a study, what is asked of it, and what is known of both
    study: StudyFrames,
    draws: CellDraws | None = None,
    *,
    flops: float,
    pairs: float,
    limit: float = FARTHEST,
    source: str = "",
) -> Advice:
    """Recommend a configuration from a study's frames, see `recommendation.recommend`.

    ``draws`` are those of `study_draws`, if they are known already; ``source`` says where the results are
    from, by default the study's name.

    Raises:
        ValueError: A number is below 1, or no configuration can be read at the budget.
    """
    for name, value in (("flops", flops), ("pairs", pairs), ("limit", limit)):
        if not value >= 1:
            raise ValueError(f"{name} must be at least 1; found {value:g}")
    draws = study_draws(study) if draws is None else draws
    found = recommend(draws, flops=flops, pairs=pairs, limit=limit)
    leaders = found.candidates.iloc[[*found.verdict.members]][["architecture", "strategy", "quality"]]
    return Advice(
        recommendation=found, flops=flops, pairs=pairs, source=source or study.name, metric=study.metric,
        outliers=outliers(draws.families, study.trials).merge(leaders.drop_duplicates()),
    )  # fmt: skip


def prior_frames(name: str, table: Path | None = None) -> StudyFrames:
    """Return the frames of any table by the name of its column map; by default of the table beside the map.

    Raises:
        ValueError: There is no such map, or the table does not fit it.
    """
    path = find_column_map(name)
    columns = load_column_map(path)
    results = import_table(read_any_table(table or shipped_table(path)), columns)
    return StudyFrames(name=columns.title, metric=columns.metric, results=results, imported=columns.title)
