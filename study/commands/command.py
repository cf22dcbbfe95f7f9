"""The interface of a command, and options and helpers that several commands share."""

import argparse
import errno
import math
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from budgets.names import printable, without_secrets
from study.declare import shipped_studies

if TYPE_CHECKING:
    from study.state.study import Imported, Study


class Command(Protocol):
    """Interface of a command's module; it imports nothing slow at module level, only in `run`.

    Attributes:
        NAME: The command's name.
        HELP: One line for the list of commands, without a capital letter or full stop.
        EXAMPLES: Example calls, without the command's name.
    """

    NAME: str
    HELP: str
    EXAMPLES: tuple[str, ...]

    def add_options(self, parser: ArgumentParser, /) -> None:
        """Add the command's options."""

    def run(self, options: Namespace, /) -> int:
        """Run the command and return its exit code; ``options.parser`` parses the whole command line.

        Raises:
            ValueError: The request is invalid.
            OSError: A file or the storage can't be used.
        """


class _Help(argparse.HelpFormatter):
    """Help formatter that wraps descriptions and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def help_with(examples: Iterable[str]) -> dict[str, Any]:
    """Return the arguments of a parser whose help ends with examples."""
    return {
        "epilog": "\n".join(["examples:", *(f"  %(prog)s {words}" for words in examples)]),
        "formatter_class": _Help,
    }


def add_commands(parser: ArgumentParser, commands: Iterable[Command], *, dest: str) -> None:
    """Add commands with their options and help; the option ``dest`` holds the chosen command's name."""
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest=dest)
    for command in commands:
        about = f"{command.HELP[0].upper()}{command.HELP[1:]}."
        texts = help_with(command.EXAMPLES)
        command.add_options(parsers.add_parser(command.NAME, help=command.HELP, description=about, **texts))


def add_study_options(parser: ArgumentParser, *, imported: bool = False) -> None:
    """Add the options for the study and for the folders of studies and pools.

    With ``imported``, the study may be an imported one, or be left out.
    """
    parser.add_argument(
        "study",
        nargs="?" if imported else None,
        help="a declaration file, or the name of a study that was run"
        + (" or imported" if imported else "")
        + f", or of a shipped one: {', '.join(shipped_studies())}",
    )
    parser.add_argument(
        "--results", metavar="FOLDER", help="folder of studies (default: results, below storage: if declared)"
    )
    parser.add_argument(
        "--pools",
        metavar="FOLDER",
        help="folder of generated pools (default: pools, below storage: if declared)",
    )


def add_why_option(parser: ArgumentParser) -> None:
    """Add the option for the reasons of answers."""
    parser.add_argument(
        "--why", action="store_true", help="below each answer say what it rests on, and what it leaves open"
    )


def number(least: float, most: float, kind: Callable[[str], float] = float) -> Callable[[str], float]:
    """Return the reader of an option's number, which must lie within bounds."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # NaN is never within bounds
            what = "a whole number" if kind is int else "a number"
            raise ArgumentTypeError(f"'{text}' must be {what} from {least:,} to {most:,}")
        return value

    return read


def amount(options: Namespace, name: str, read: Callable[[str], float]) -> float:
    """Return the amount that an option gives as text.

    Raises:
        ValueError: The text can't be read; the message names the option.
    """
    try:
        return read(getattr(options, name))
    except ValueError as error:
        raise ValueError(f"--{name}: {error}") from None


def output_file(text: str) -> Path:
    """Return the path of a file to write. It is replaced, so it must not be a device, a pipe or a folder."""
    path = Path(text)
    if path.exists() and not path.is_file():
        raise ArgumentTypeError(f"'{text}' exists and is not a plain file; name a file to write")
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"'{text}' is in a folder that does not exist: {path.parent}")
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager that names the file or folder in an error of writing it, such as a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and ".partial-" not in str(error.filename):
            raise  # it names a file of its own
        raise OSError(f"{path} could not be written: {error.strerror or error}") from None


@contextmanager
def continuing(path: str | Path) -> Iterator[None]:
    """Context manager that names the pool in an error of a full disk, and says that the command continues."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        at = f" at {error.filename}" if error.filename else ""
        raise OSError(
            f"{path} could not be written: {os.strerror(error.errno)}{at}; free some space and run the same "
            "command again to continue"
        ) from None


def add_pool_options(parser: ArgumentParser) -> None:
    """Add the options for the pool and its workers."""
    parser.add_argument("pool", help="the pool's folder, or its URL")
    add_worker_options(parser)


def add_worker_options(parser: ArgumentParser) -> None:
    """Add the options for work on a pool that several processes share."""
    parser.add_argument(
        "--workers",
        type=number(1, 65_536, int),
        help="number of processes (default: one per core; with --address, one per core of all nodes)",
    )
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of a running Ray cluster's head, whose nodes do the work (default: RAY_ADDRESS if "
        "set, else local: processes of this machine)",
    )


def add_backend_options(parser: ArgumentParser) -> None:
    """Add the options for what runs trials."""
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of a running Ray cluster's head, or local to start Ray on this machine "
        "(default: RAY_ADDRESS if set, else local)",
    )
    parser.add_argument(
        "--backend",
        choices=("ray", "local"),
        default="ray",
        help="run trials on Ray, or as plain local processes to debug (default: ray)",
    )


def without_ray(options: Namespace) -> bool:
    """Return whether trials run without Ray.

    Raises:
        ValueError: There is the address of a cluster, too.
    """
    local: bool = options.backend == "local"
    if local and options.address is not None:
        raise ValueError(
            "--address is for a Ray cluster and --backend local runs without Ray: use only one of them"
        )
    return local


def named_study(options: Namespace, name: str, *, refresh: bool = True) -> "Study | Imported":
    """Return the study of a name, see `open_study`; a declared one after `Study.refresh`, if asked.

    Raises:
        ValueError: As `open_study`.
        OSError: The storage of the study can't be reached, and this machine has no copy of it.
    """
    from study.state.study import Study, open_study

    study = open_study(name, results=options.results, pools=options.pools)
    if refresh and isinstance(study, Study):
        study.refresh(note=lambda line: print(f"study: {printable(line)}", file=sys.stderr))
    return study


def declared_study(options: Namespace, *, refresh: bool = False) -> "Study":
    """Return the declared study that the options name, see `named_study`.

    Raises:
        ValueError: The study was imported; and as `named_study`.
    """
    from study.state.study import Imported

    study = named_study(options, options.study, refresh=refresh)
    if isinstance(study, Imported):
        raise ValueError(  # noqa: TRY004 - a mistake of the user
            f"{study.folder} is an imported study: only the commands report and recommend can read it"
        )
    return study


def show(line: object) -> None:
    """Print a line now, wrapped to the width of a terminal; without the secrets of URLs."""
    from study.show.terminal import PlainConsole, say

    say(PlainConsole(), without_secrets(str(line)))


def show_all(lines: Iterable[str]) -> None:
    """Print each line as soon as it comes."""
    for line in lines:
        show(line)
