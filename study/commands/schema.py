"""``python -m study schema``: print the JSON schema of declarations."""

from argparse import ArgumentParser, Namespace

NAME = "schema"
HELP = "print the JSON schema of declarations, for editors"
EXAMPLES: tuple[str, ...] = ("", "> study.schema.json")


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options: none."""


def run(options: Namespace) -> int:  # noqa: ARG001 - as every command
    """Print the schema."""
    from study.declare.schema import schema_text

    print(schema_text(), end="")
    return 0
