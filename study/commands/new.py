"""``python -m study new``: a commented declaration to start from."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.declare.shipped import TEMPLATE, shipped_studies

NAME = "new"
HELP = "write a commented declaration to start from"
EXAMPLES: tuple[str, ...] = ("first",)


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("name", help="of the study: NAME.yaml is written")


def run(options: Namespace) -> int:
    """Writes ``NAME.yaml`` into the working directory, and prints what to do with it."""
    from budgets import values

    name = values.name(options.name)
    if name in shipped_studies():
        raise ValueError(f"the study '{name}' comes with the project; choose another name")
    path = Path(f"{name}.yaml")
    text = TEMPLATE.read_text(encoding="utf-8").replace("study: NAME", f"study: {name}")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} exists already; choose another name, or remove it first") from None
    print(f"{path} written; edit it, then: python -m study plan {path}")
    return 0
