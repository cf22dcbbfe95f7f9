"""``python -m study report``: write the report of a study, run or imported, and the paper's figures."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import add_study_options, finished_study

NAME = "report"
HELP = "fit the laws, find the best configurations, write figures, tables and report.html"
EXAMPLES: tuple[str, ...] = ("demo", "demo --watch", "--paper")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser, imported=True)
    parser.add_argument(
        "--paper",
        action="store_true",
        help="also draw the paper's digitised figures, beside those of the study if one is given",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="write the page again as results come, until the run has ended; the page reloads itself",
    )


def run(options: Namespace) -> int:
    """Write the pages and print the findings."""
    from study.show.study_report import report_imported, report_paper, report_study, watch_study
    from study.state.imported import Imported

    study = finished_study(options)
    if study is None and not options.paper:
        raise ValueError("no study given: name a declaration, or use --paper for the paper's own figures")
    if options.watch:
        if study is None or isinstance(study, Imported) or options.paper:
            raise ValueError("--watch takes a study that runs here, without --paper")
        watch_study(study, print)
        return 0
    if study is not None:
        for line in report_imported(study) if isinstance(study, Imported) else report_study(study):
            print(line)
    if options.paper:
        for line in report_paper(Path(options.results or "results"), study):
            print(line)
    return 0
