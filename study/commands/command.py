"""A command's shape, and what several commands share: the study that they are about, the console."""

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from study.declare.shipped import shipped_studies

if TYPE_CHECKING:
    from rich.console import Console

    from study.state.imported import Imported
    from study.state.study import Study


class Command(Protocol):
    """The names that the module of a command has; it imports nothing that takes time before `run`.

    Attributes:
        NAME: The word that calls it.
        HELP: One line for the list of commands, without capital and full stop.
        EXAMPLES: Words after the command's name, one whole call each.
    """

    NAME: str
    HELP: str
    EXAMPLES: tuple[str, ...]

    def add_options(self, parser: ArgumentParser, /) -> None:
        """Adds its arguments."""

    def run(self, options: Namespace, /) -> int:
        """Runs it and returns the exit code; ``options.parser`` is that of the whole command line.

        Raises:
            ValueError: What was asked for can't be done.
            OSError: A file, or a storage, can't be used.
        """


class _Help(argparse.HelpFormatter):
    """Fills a description, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def help_with(examples: Iterable[str]) -> dict[str, Any]:
    """Return what makes a parser end its help with examples."""
    return {
        "epilog": "\n".join(["examples:", *(f"  %(prog)s {words}" for words in examples)]),
        "formatter_class": _Help,
    }


def add_commands(parser: ArgumentParser, commands: Iterable[Command], *, dest: str) -> None:
    """Adds commands with their options and their help; ``dest`` becomes the option with the name of one."""
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest=dest)
    for each in commands:
        about = f"{each.HELP[0].upper()}{each.HELP[1:]}."
        each.add_options(
            parsers.add_parser(each.NAME, help=each.HELP, description=about, **help_with(each.EXAMPLES))
        )


def add_study_options(parser: ArgumentParser, *, imported: bool = False) -> None:
    """Adds the study, and where studies and pools are kept.

    Args:
        parser: The command's.
        imported: Whether it may be an imported study, or none.
    """
    parser.add_argument(
        "study",
        nargs="?" if imported else None,
        help=f"a declaration's file, or one that comes with the project: {', '.join(shipped_studies())}"
        + ("; or the name of an imported study" if imported else ""),
    )
    parser.add_argument(
        "--results", metavar="FOLDER", help="where studies are kept (results, in storage: if declared)"
    )
    parser.add_argument("--pools", metavar="FOLDER", help="where generated pools are kept (pools, likewise)")


def add_pool_options(parser: ArgumentParser) -> None:
    """Adds the pool and the number of processes."""
    parser.add_argument("pool", type=Path, help="the pool's folder")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (as many as processors)"
    )


def declared_study(options: Namespace) -> "Study":
    """Return the study that was asked for.

    Raises:
        ValueError: There is no such study, its declaration is wrong, or it was imported.
    """
    from study.declare.load import find_declaration, load_declaration
    from study.state.imported import find_imported, imported_names
    from study.state.study import find_study

    results = Path(options.results or "results")
    if (imported := find_imported(options.study, results)) is not None:
        raise ValueError(f"{imported.folder} was imported, not run: only report and recommend read it")
    declaration = load_declaration(find_declaration(options.study, imported=imported_names(results)))
    study = find_study(declaration, results=options.results, pools=options.pools)
    if find_imported(declaration.name, study.folder.parent) is not None:
        raise ValueError(f"{study.folder} is an imported study; give the declaration another name (study:)")
    return study


def refreshed_study(options: Namespace, *, needed: bool = False) -> "Study":
    """Return the study that was asked for, its folder brought up to date from a storage that is no folder.

    Args:
        options: The command's.
        needed: Whether it is an error that the storage is away; else a warning.

    Raises:
        ValueError: As `declared_study`.
        OSError: The storage is away.
    """
    study = declared_study(options)
    try:
        study.storage.refresh()
    except (ValueError, OSError) as error:
        if needed:
            raise
        print(f"study: {error}; what follows is as it was here", file=sys.stderr)
    return study


def finished_study(options: Namespace) -> "Study | Imported | None":
    """Return the study that was asked for, run or imported; None where none was.

    Raises:
        ValueError: As `declared_study`.
    """
    from study.state.imported import find_imported

    if options.study is None:
        return None
    imported = find_imported(options.study, Path(options.results or "results"))
    return imported or refreshed_study(options)


def open_console() -> "Console":
    """Return the console; a pipe, which has no width, gets room for whole tables."""
    from rich.console import Console

    console = Console(soft_wrap=True)
    return console if console.is_terminal else Console(soft_wrap=True, width=160)
