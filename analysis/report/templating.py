"""The templates of a page: strict, escaped, and without line breaks before percent signs."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates(folder: Path) -> Environment:
    """Return the environment of the templates in a folder; an unknown name in a template is an error."""
    return Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, finalize=_unbroken,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _unbroken(value: object) -> object:
    """Return a text without line breaks before percent signs; markup stays as it is."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value
