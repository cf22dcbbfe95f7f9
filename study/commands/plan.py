"""``python -m study plan``: show the plan, explain one cell, or export the plan."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from study.commands.command import add_study_options, declared_study, output_file, show, show_all, writing

if TYPE_CHECKING:
    from budgets.planning.plan import Plan
    from budgets.planning.price import Speeds
    from study.state.study import Study

NAME = "plan"
HELP = "show the trials of a study, their cost, and the cells left out with the reason"
EXAMPLES: tuple[str, ...] = (
    "demo",
    "paper --explain 'ViT-B-32 slip one-epoch 10M'",
    "small --format csv --output small.csv",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    add_study_options(parser)
    parser.add_argument(
        "--format",
        choices=("text", "csv", "json", "parquet"),
        default="text",
        help="text: a readable summary (default); csv, json, parquet: every trial and left-out cell",
    )
    parser.add_argument(
        "--output",
        type=output_file,
        metavar="FILE",
        help="file to write (default: standard output; required for parquet)",
    )
    parser.add_argument(
        "--explain",
        metavar="CELL",
        help="show the arithmetic of one cell: a trial's id, or words such as 'ViT-B-32 slip top40'",
    )


def run(options: Namespace) -> int:
    """Print the plan, or write it to a file and print the file's name."""
    from runners.store.files import new_file
    from study.show.plan_export import plan_csv, plan_json, plan_parquet
    from study.state.plan_study import device_throughput, plan_study

    study, form, output = declared_study(options), options.format, options.output
    if form == "parquet" and output is None:
        raise ValueError("--format parquet needs a file: add --output FILE")
    if options.explain is not None and form != "text":
        raise ValueError("--explain writes text: use it with --format text only")
    plan, speeds = plan_study(study), device_throughput(study)
    if form == "parquet":
        with writing(output):
            plan_parquet(study.declaration, plan, output, speeds)
    elif form == "text" and output is None:
        show_all(_lines(study, plan, speeds, cell=options.explain))
        return 0
    else:
        if form == "text":
            text = "".join(f"{line}\n" for line in _lines(study, plan, speeds, cell=options.explain))
        else:
            text = (plan_csv if form == "csv" else plan_json)(study.declaration, plan, speeds)
        if output is None:
            print(text, end="", flush=True)  # now, while `cli.main` can still catch a closed pipe
            return 0
        with writing(output), new_file(output) as file:
            file.write_text(text, encoding="utf-8")
    show(output)
    return 0


def _lines(study: "Study", plan: "Plan", speeds: "Speeds", *, cell: str | None) -> Iterator[str]:
    from study.show.explain import explain_lines
    from study.show.plan_view import plan_lines
    from study.state.plan_study import measured_throughput, study_grid
    from study.state.subset_copies import amplification_lines

    if cell is not None:
        return explain_lines(study_grid(study), plan, cell, speeds)
    if plan.cluster is None:
        speeds = measured_throughput(study, plan)
    return chain(plan_lines(study.declaration, plan, speeds), amplification_lines(study, plan))
