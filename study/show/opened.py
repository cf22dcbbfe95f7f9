"""A finished or running study in Python, with its results and answers as frames and figures."""

from functools import cached_property
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.cells.study_frames import StudyFrames
from analysis.charts.figure_data import FigureData, Missing
from analysis.drawing.draw import draw
from analysis.report.analyse import Analysis, analyse
from analysis.report.answer_frames import answer_frame
from analysis.report.figures import report_figures
from analysis.report.report_tables import report_tables
from budgets.names import unknown
from study.declare.load import find_declaration, load_declaration
from study.show.study_report import study_frames
from study.state.study import Imported, Study, find_imported, find_study, imported_names


class OpenedStudy:
    """A study with its results and answers; ``from study import Study`` names this class.

    The answers are computed once, when they are first needed. docs/results.md lists the columns of every
    frame with unit and meaning.

    Attributes:
        results: One row per trial that ended, as in ``results.parquet``.
        curves: Training curves, as in ``curves.parquet``.
        plan: Planned trials, as in ``plan.parquet``.
    """

    def __init__(self, frames: StudyFrames) -> None:
        """Wrap the frames of a study."""
        self._frames = frames
        self.name, self.metric = frames.name, frames.metric
        self.results, self.curves, self.plan = frames.results, frames.curves, frames.plan

    @classmethod
    def open(cls, name: str, *, results: str | Path | None = None) -> "OpenedStudy":
        """Open a study by its name in the folder ``results``, or by the file of its declaration.

        By default the folder is ``results`` below the working directory; for a file it is the folder that the
        commands use, which is below its ``storage:`` if it declares one.

        Raises:
            ValueError: There is no such study, or it has not been run.
        """
        place = None if results is None else str(results)
        try:
            study = _find(name, place)
            if isinstance(study, Study):
                study.require_run("plan.parquet")
        except ValueError as error:
            raise ValueError(f"Study.open({name!r}, results={place!r}): {error}") from None
        return cls(study_frames(study))

    def __repr__(self) -> str:
        """Return the study's name and size."""
        return f"Study({self.name!r}, {len(self.results)} results)"

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis that the report shows."""
        return analyse(self._frames)

    @property
    def trials(self) -> pd.DataFrame:
        """Finished trials with their error."""
        return answer_frame("trials", self.analysis)

    @property
    def best(self) -> pd.DataFrame:
        """Best configuration at each budget."""
        return answer_frame("best", self.analysis)

    @property
    def contrasts(self) -> pd.DataFrame:
        """Comparisons of one choice at a time."""
        return answer_frame("contrasts", self.analysis)

    @property
    def comparisons(self) -> pd.DataFrame:
        """Two options over compute or data: difference, worth and crossing."""
        return answer_frame("comparisons", self.analysis)

    @property
    def laws(self) -> pd.DataFrame:
        """Parameters of the joint law with their intervals."""
        return answer_frame("laws", self.analysis)

    @property
    def bands(self) -> pd.DataFrame:
        """Curves over compute and over data, with their intervals."""
        return answer_frame("bands", self.analysis)

    @property
    def pareto(self) -> pd.DataFrame:
        """Pareto frontier over compute."""
        return answer_frame("pareto", self.analysis)

    @property
    def exponents(self) -> pd.DataFrame:
        """Growth of model size and samples with compute."""
        return answer_frame("exponents", self.analysis)

    @property
    def cost(self) -> pd.DataFrame:
        """FLOPs and device hours by budget level."""
        return answer_frame("cost", self.analysis)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The report's tables by name; their cells are texts."""
        return {table.name: table.frame for table in report_tables(self.analysis, self._frames)}

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
        return report_figures(self.analysis, self._frames)

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


def _find(name: str, results: str | None) -> Study | Imported:
    """Return a study by the file of its declaration, or by its name in a folder of studies."""
    if name.endswith((".yaml", ".yml")):
        source = find_declaration(name)
        return find_study(load_declaration(source), results=results, pools=None, source=source)
    folder = Path(results or "results")
    if (imported := find_imported(name, folder)) is not None:
        return imported
    resolved = folder / name / "study.yaml"
    path = resolved if resolved.is_file() else find_declaration(name, imported=imported_names(folder))
    return find_study(load_declaration(path), results=str(folder), pools=None)
