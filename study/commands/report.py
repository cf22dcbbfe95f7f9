"""``python -m study report``: write the report of a study, run or imported, and the paper's figures."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from budgets.quantity import parse_flops
from study.commands.command import (
    add_study_options,
    add_why_option,
    amount,
    named_study,
    show,
    show_all,
    writing,
)

NAME = "report"
HELP = "fit the laws, find the best configurations, write figures, tables and report.html"
EXAMPLES: tuple[str, ...] = ("demo", "demo --watch", "demo small", "--paper")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser, imported=True)
    parser.add_argument(
        "others", metavar="OTHER", nargs="*", help="other studies, to compare with the first one side by side"
    )
    parser.add_argument(
        "--name", help="with other studies: name of the folder below comparisons/ (default: A-vs-B)"
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="also draw the paper's digitised figures, beside those of the study if one is given",
    )
    parser.add_argument(
        "--target",
        metavar="FLOPS",
        help="compute of one trial to which the scaling panels extrapolate, such as 3e18 "
        "(default: that of the declared forecast, or ten times the largest)",
    )
    add_why_option(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="write the page again as results come, until the run has ended; the page reloads itself",
    )


def run(options: Namespace) -> int:
    """Write the pages and print the findings."""
    from study.show.study_report import report_paper, report_study, watch_study
    from study.show.view import WorkProgress
    from study.state.study import Imported

    target = None if options.target is None else amount(options, "target", parse_flops)
    if options.others:
        return _compare(options)
    study = None if options.study is None else named_study(options, options.study)
    if options.name:
        raise ValueError("--name needs two studies or more")
    if study is None and (options.target or not options.paper):
        raise ValueError(
            "no study given: name a declaration, or use --paper alone for the paper's own figures"
        )
    if options.watch:
        if study is None or isinstance(study, Imported) or options.paper or options.target:
            raise ValueError("--watch takes a study that runs here, without --paper and --target")
        watch_study(study, show)
        return 0
    if study is not None:
        with WorkProgress() as progress, writing(study.folder / "report"):
            lines = list(report_study(study, target_flops=target, why=options.why, progress=progress))
        show_all(lines)
    if options.paper:
        show_all(report_paper(Path(options.results or "results"), study))
    return 0


def _compare(options: Namespace) -> int:
    from study.show.study_report import report_comparison

    if options.watch or options.paper or options.target:
        raise ValueError("--watch, --paper and --target take one study")
    studies = [named_study(options, name) for name in (options.study, *options.others)]
    results = Path(options.results or "results")
    with writing(results / "comparisons"):
        lines = list(report_comparison(studies, results, name=options.name))
    show_all(lines)
    return 0
