"""Writing of a study's report folder: report.html, figures/ and tables/."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from analysis.cells.study_frames import StudyFrames
from analysis.charts.figure_data import FigureData
from analysis.drawing.save import helpers, save_all
from analysis.report import page
from analysis.report.analyse import OnProgress, analyse, no_progress
from analysis.report.figures import report_figures
from analysis.report.report_tables import report_tables
from analysis.report.summary import summary_lines
from analysis.report.table_files import replacing
from analysis.report.table_files import save as save_table


def write_report(  # noqa: PLR0913 (a study, where it goes, and what the page says of itself)
    folder: Path,
    study: StudyFrames,
    *,
    declaration_text: str,
    provenance: Mapping[str, str],
    processes: int = 1,
    reload_s: int | None = None,
    why: bool = False,
    progress: OnProgress = no_progress,
) -> tuple[str, ...]:
    """Analyse a study, finished or not, and write its report.

    The files of ``folder`` are replaced when all of the new report are complete, except those that stay the
    same. ``provenance`` (versions, hardware, FLOP convention) and ``declaration_text`` are shown as they are;
    ``reload_s`` is the number of seconds after which the page reloads itself.

    Returns:
        The answers as the command line prints them: finished trials, then the best at each budget; with
        ``why``, also the reasons.

    Raises:
        ValueError: A frame does not match its schema; see ``table.tidy``.
    """
    with helpers(processes) as pool:
        analysis = analyse(study, progress)
        figures, shown = report_figures(analysis), report_tables(analysis)
        with replacing(folder) as new:
            (new / "figures").mkdir()
            (new / "tables").mkdir()
            drawn = [data for data in figures if isinstance(data, FigureData)]
            svgs = save_all(drawn, new / "figures", pool, partial(progress, "figures"))
            for table in shown:
                save_table(table, new / "tables")
            text = page.render(
                analysis, declaration_text=declaration_text, figures=figures, svgs=svgs,
                tables={table.name: table for table in shown}, provenance=provenance, reload_s=reload_s,
            )  # fmt: skip
            (new / "report.html").write_text(text, encoding="utf-8")
    return summary_lines(analysis, why=why)
