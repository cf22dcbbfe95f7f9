"""``python -m study new``: write a commented declaration to start from, or a strategy with its test."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import show, writing
from study.declare import TEMPLATE, shipped_studies

NAME = "new"
HELP = "write a commented declaration to start from, or a training strategy with its test"
EXAMPLES: tuple[str, ...] = ("first", "smooth --strategy")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "name", help="name of the study, or of the strategy; the file is NAME.yaml or NAME.py"
    )
    parser.add_argument(
        "--strategy", action="store_true", help="write a training strategy, NAME.py, and test_NAME.py"
    )


def run(options: Namespace) -> int:
    """Write ``NAME.yaml`` and the schema that it names into the working directory, and print the next step.

    The schema lies beside it, so that an editor finds it offline, on any machine and in any checkout. A
    strategy, ``NAME.py``, has its test beside it.
    """
    from budgets.cost.strategy import strategies
    from budgets.declaration import values
    from runners.store.files import new_file
    from study.declare import schema

    suffix, taken = (".py", strategies()) if options.strategy else (".yaml", shipped_studies())
    name, kind = values.name(options.name.removesuffix(suffix)), "strategy" if options.strategy else "study"
    if name in taken:
        raise ValueError(f"'{name}' is the name of a shipped {kind}; choose another name")
    path = Path(f"{name}{suffix}")
    if options.strategy:
        beside = Path(f"test_{name}.py")
        text, more = (
            (TEMPLATE.parent / file).read_text(encoding="utf-8").replace('"smooth', f'"{name}')
            for file in ("strategy.py.txt", "test_strategy.py.txt")
        )
        hint = f"name {path} in a declaration (strategy_files:), or try it: python -m pytest {beside}"
    else:
        beside, more = Path(schema.FILE), schema.schema_text()
        text = TEMPLATE.read_text(encoding="utf-8").replace("study: NAME", f"study: {name}")
        hint = f"edit it, then: python -m study plan {path}"
    for file in (path, *([beside] if options.strategy else [])):
        if file.exists():
            raise ValueError(f"{file} already exists; choose another name, or delete it first")
    with writing(path), new_file(path) as new, new_file(beside) as new_beside:
        new.write_text(text, encoding="utf-8")
        new_beside.write_text(more, encoding="utf-8")
    show(f"{path} and {beside if options.strategy else 'its schema'} written; {hint}")
    return 0
