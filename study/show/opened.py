"""A finished or running study in Python, with its results and answers as frames and figures."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import escape
from matplotlib.figure import Figure

from analysis.answers.options import smallest_pool
from analysis.answers.recommendation import recommend
from analysis.answers.recommendation_text import recommendation_lines
from analysis.cells.pareto import same_cost
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing
from analysis.drawing.draw import draw
from analysis.report.analyse import Analysis, analyse
from analysis.report.answer_frames import FRAMES, answer_frame, curve_points, recommendation_object
from analysis.report.figures import report_figures
from analysis.report.report_tables import best_table, report_tables
from analysis.report.summary import answer_lines, summary_lines
from analysis.report.tables import Table, TextColumn, column, errors, probability_text
from budgets.cost.serving import Deployment
from budgets.declaration.sections import FARTHEST
from budgets.names import unknown
from budgets.quantity import parse_count, parse_flops, parse_quantity
from study.show.study_report import study_frames
from study.state.study import Study, open_study

Amount = float | str
"""A number, or its text with a unit: ``5.4e12`` or ``"5.4 TFLOP"``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyAnswer:
    """An answer of a study; printed it is sentences, and a notebook shows its table as well.

    Attributes:
        lines: What the commands say.
        why: What they say with ``--why``.
        frame: The answer in numbers; docs/results.md lists its columns.
        table: The answer in texts, as in the report.
        json: Of a recommendation what ``--json`` prints; docs/results.md lists its keys.
    """

    lines: tuple[str, ...]
    why: tuple[str, ...]
    frame: pd.DataFrame
    table: Table
    json: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the sentences."""
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the first sentences and the table."""
        return _html(self.lines[:4], self.table)


def _answer(name: str, rows: Callable[[Analysis], pd.DataFrame]) -> property:
    """Return the property of an opened study that is one of `answer_frames.FRAMES`."""
    return property(lambda study: answer_frame(name, rows(study.analysis)), doc=FRAMES[name].content)


class OpenedStudy:
    """A study with its results and answers, opened by its name or by the file of its declaration.

    ``from study import Study`` names this class. A name or file opens the study that the commands find by it,
    see `open_study`. The answers are computed once, when they are first needed. docs/results.md lists the
    columns of every frame with unit and meaning.

    Attributes:
        name: Its name.
        metric: Metric that it compares.
        results: One row per trial that ended, as in ``results.parquet`` without the rows of trunks.
        trunks: The rows of trunks, evaluated at constant rate, of which there may be none.
        curves: Training curves, as in ``curves.parquet``.
        plan: Planned trials, as in ``plan.parquet`` without those of trunks.

    Raises:
        ValueError: There is no such study, or it has not been run.
        OSError: Its storage can't be reached, and this machine has no copy of it.
    """

    def __init__(self, name: str, *, results: str | Path | None = None) -> None:
        """Read the frames of a study from a folder of studies."""
        place = None if results is None else str(results)
        try:
            study = open_study(name, results=place)
            if isinstance(study, Study):
                study.refresh(note=partial(warnings.warn, stacklevel=3))
                study.require_run("plan.parquet")
        except ValueError as error:
            raise ValueError(f"Study({name!r}, results={place!r}): {error}") from None
        self._frames = study_frames(study)
        self.name, self.metric = self._frames.name, self._frames.metric
        self.results, self.curves, self.plan = self._frames.results, self._frames.curves, self._frames.plan
        self.trunks = self._frames.trunks.get("results", self.results.head(0))

    def __repr__(self) -> str:
        """Return the study's name and size."""
        return f"Study({self.name!r}, {len(self.results)} results)"

    def _repr_html_(self) -> str:
        """Return what is finished, and the best at each budget."""
        return _html([f"{self.name}: {summary_lines(self.analysis)[0]}"], self.best().table)

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis that the report shows."""
        return analyse(self._frames)

    def best(self, level: Amount | None = None) -> StudyAnswer:
        """Return the best configuration at each budget, or at that of a level, such as ``"5.4 TFLOP"``.

        Raises:
            ValueError: No budget has that level.
        """
        analysis, rows = self.analysis, self.analysis.best
        if level is not None:
            rows = rows[[_same(level, row) for row in records(rows)]]
            if rows.empty:
                raise ValueError(unknown("budget", str(level), analysis.best["at"]))
        lines, why = (tuple(answer_lines(rows, analysis, why=asked)) for asked in (False, True))
        return StudyAnswer(
            lines=lines, why=why, frame=answer_frame("best", rows), table=best_table(analysis, rows)
        )

    def recommend(  # noqa: PLR0913 - what is asked
        self, *, pairs: Amount, flops: Amount | None = None, error: Amount | None = None,
        limit: float = FARTHEST, images: Amount = 0, texts: Amount = 0, at_most: Iterable[str] = (),
    ) -> StudyAnswer:  # fmt: skip
        """Recommend what to train with the pairs of a pool, unfiltered, and the training FLOPs of one trial.

        For an ``error``, such as ``"30%"``, in place of FLOPs it is with the least that reach it. Measured
        budgets may end up to ``limit`` times below. A model that will embed ``images`` and ``texts`` spends
        its FLOPs on training and serving together; ``at_most`` has limits of an image's forward FLOPs, such
        as ``"5 GFLOP"``, or of the parameters, such as ``"100M"``.

        Raises:
            ValueError: An amount can't be read or is below 1, no configuration can be read there or reaches
                the error, or not just one of FLOPs and error is given.
        """
        draws = self.analysis.draws
        deployment = Deployment.of(
            images=_number("images", images, parse_count), texts=_number("texts", texts, parse_count),
            at_most=at_most,
        )  # fmt: skip
        recommendation = recommend(
            draws, pairs=_number("pairs", pairs, parse_count), limit=limit,
            serving=deployment.served(draws.architectures, self._frames.architectures),
            flops=None if flops is None else _number("flops", flops, parse_flops),
            error=None if error is None else _number("error", error, parse_quantity),
        )  # fmt: skip
        rows = recommendation.candidates
        columns = [
            column("Configuration", "name"), *errors(draws.error_unit),
            column("P(best)", "probability", probability_text),
            TextColumn("Run there", lambda row: "yes" if row["measured"] else "no"),
        ]  # fmt: skip
        table = Table.of("recommendation", "What to train", "", rows, columns)
        lines, why = (
            recommendation_lines(recommendation, source=self.name, apart=self.analysis.outliers, why=asked)
            for asked in (False, True)
        )
        frame, content = answer_frame("recommend", rows), recommendation_object(recommendation)
        return StudyAnswer(lines=lines, why=why, table=table, frame=frame, json=content)

    def forecast(self, *, flops: Amount) -> StudyAnswer:
        """Return what to expect of the best configuration at a compute, with the data of the largest pool.

        Raises:
            ValueError: As `recommend`.
        """
        cells = self.analysis.draws.cells
        return self.recommend(
            flops=flops,
            pairs=max(map(smallest_pool, cells["subset_size"], cells["quality"]), default=1),
        )

    trials = _answer("trials", lambda analysis: analysis.trials.frame)
    contrasts = _answer("contrasts", lambda analysis: analysis.contrasts)
    comparisons = _answer("comparisons", lambda analysis: analysis.comparisons)
    laws = _answer("laws", lambda analysis: analysis.parameters)
    bands = _answer("bands", curve_points)
    pareto = _answer("pareto", lambda analysis: analysis.pareto)
    exponents = _answer("exponents", lambda analysis: analysis.exponents)
    cost = _answer("cost", lambda analysis: analysis.levels)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The report's tables by name; their cells are texts."""
        return {table.name: table.frame for table in report_tables(self.analysis)}

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that the data support."""
        return tuple(self._drawn)

    def figure(self, name: str) -> Figure:
        """Draw the report's figure of a given name, to restyle and save.

        Raises:
            ValueError: There is no such figure, or the data do not support it.
        """
        return draw(self._data(name))

    def figure_data(self, name: str) -> pd.DataFrame:
        """Return everything that a figure draws, one row per mark, as in its CSV.

        Raises:
            ValueError: There is no such figure, or the data do not support it.
        """
        return self._data(name).frame

    @cached_property
    def _all_figures(self) -> tuple[FigureData | Missing, ...]:
        return report_figures(self.analysis)

    @cached_property
    def _drawn(self) -> dict[str, FigureData]:
        return {figure.name: figure for figure in self._all_figures if isinstance(figure, FigureData)}

    def _data(self, name: str) -> FigureData:
        if name in self._drawn:
            return self._drawn[name]
        missing = "; ".join(
            f"{figure.title}: {figure.reason}" for figure in self._all_figures if isinstance(figure, Missing)
        )
        raise ValueError(
            unknown("figure", name, self.figures) + (f". Not drawn: {missing}" if missing else "")
        )


def _number(name: str, value: Amount, parse: Callable[[str], float]) -> float:
    try:
        return float(parse(value)) if isinstance(value, str) else float(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _same(level: Amount, row: Mapping[str, Any]) -> bool:
    """Return whether a row's budget or compute is that of a level, up to the rounding to whole batches."""
    if isinstance(level, str):
        if row["at"].replace(" ", "") == level.replace(" ", ""):
            return True
        with suppress(ValueError):
            return _same(parse_flops(level), row)
        return False
    return bool(same_cost(np.array([row["budget"], row["train_flops"]]), level).any())


def _html(lines: Iterable[str], table: Table) -> str:
    """Return sentences and a table for a notebook."""
    sentences = "".join(f"<div>{escape(line.strip())}</div>" for line in lines)
    note = f"<small>{escape(table.note)}</small>" if table.note else ""
    return f"{sentences}{table.shown.to_html(index=False, border=0, max_rows=12)}{note}"
