"""``python -m study plan``: show the plan, explain one cell, or export the plan."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from study.commands.command import add_study_options, declared_study, output_file, show, writing

if TYPE_CHECKING:
    from budgets.planning.plan import Plan
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
    from study.show.plan_export import plan_parquet
    from study.state.plan_study import device_throughput, plan_study

    study, output = declared_study(options), options.output
    if options.format == "parquet" and output is None:
        raise ValueError("--format parquet needs a file: add --output FILE")
    if options.explain is not None and options.format != "text":
        raise ValueError("--explain writes text: use it with --format text only")
    plan = plan_study(study)
    if options.format == "parquet":
        with writing(output):
            plan_parquet(study.declaration, plan, output, device_throughput(study))
    elif output is not None:
        text = "".join(f"{line}\n" for line in _lines(study, plan, form=options.format, cell=options.explain))
        with writing(output), new_file(output) as file:
            file.write_text(text, encoding="utf-8")
    else:
        write = show if options.format == "text" else print
        for line in _lines(study, plan, form=options.format, cell=options.explain):
            write(line)
        sys.stdout.flush()  # now, while `cli.main` can still catch a closed pipe
        return 0
    show(output)
    return 0


def _lines(study: "Study", plan: "Plan", *, form: str, cell: str | None) -> Iterator[str]:
    from study.show.explain import explain_lines
    from study.show.plan_export import plan_csv, plan_json
    from study.show.plan_view import plan_lines
    from study.state.plan_study import device_throughput, measured_throughput, study_grid
    from study.state.subset_copies import amplification_lines

    own = device_throughput(study)
    if cell is not None:
        return explain_lines(study_grid(study), plan, cell, own)
    if form == "csv":
        return plan_csv(study.declaration, plan, own)
    if form == "json":
        return plan_json(study.declaration, plan, own)
    if plan.cluster is None:
        own = measured_throughput(study, plan)
    return chain(plan_lines(study.declaration, plan, own), amplification_lines(study, plan))
