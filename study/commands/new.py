"""``python -m study new``: write a commented declaration to start from."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import show, writing
from study.declare import TEMPLATE, shipped_studies

NAME = "new"
HELP = "write a commented declaration to start from"
EXAMPLES: tuple[str, ...] = ("first",)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", help="name of the study; the file is NAME.yaml")


def run(options: Namespace) -> int:
    """Write ``NAME.yaml`` and the schema that it names into the working directory, and print the next step.

    The schema lies beside it, so that an editor finds it offline, on any machine and in any checkout.
    """
    from budgets.declaration import values
    from study.declare import schema

    name = values.name(options.name.removesuffix(".yaml"))
    if name in shipped_studies():
        raise ValueError(f"'{name}' is the name of a shipped study; choose another name")
    path = Path(f"{name}.yaml")
    text = TEMPLATE.read_text(encoding="utf-8").replace("study: NAME", f"study: {name}")
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        raise ValueError(f"{path} already exists; choose another name, or delete it first") from None
    try:
        with writing(path):
            path.write_text(text, encoding="utf-8")
            Path(schema.FILE).write_text(schema.schema_text(), encoding="utf-8")
    except OSError:
        path.unlink()  # a part of it
        raise
    show(f"{path} and its schema written; edit it, then: python -m study plan {path}")
    return 0
