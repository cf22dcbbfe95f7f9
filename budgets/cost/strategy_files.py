"""Strategies in a user's own Python files, which are executed."""

import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import fields
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from budgets.cost.strategy import Strategy, strategies
from budgets.names import unknown


def load_strategy_files(paths: Iterable[Path]) -> dict[str, Strategy]:
    """Return the strategies that files list in ``STRATEGIES``, by name; a folder stands for its Python files.

    Raises:
        ValueError: A file cannot be executed, lists no strategies, or one under a name that is taken. The
            message names the file, and the line if there is one.
    """
    found = dict[str, Strategy]()
    for file in (
        each for path in paths for each in (sorted(path.glob("*.py")) if path.is_dir() else (path,))
    ):
        for strategy in _listed(_executed(file), file):
            if strategy.name in strategies() or strategy.name in found:
                raise ValueError(
                    f"{file}: the name '{strategy.name}' is taken; give the strategy another one"
                )
            found[strategy.name] = strategy
    return found


def place_in(file: Path, error: BaseException) -> str:
    """Return a file, and its last line that took part in an error, as ``FILE, line N``."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    return f"{file}, line {lines[-1]}" if lines else str(file)


def _executed(file: Path) -> ModuleType:
    # Its own name, so that two files called alike in two folders are two modules.
    name = f"{file.stem}_{sha256(bytes(file.resolve())).hexdigest()[:8]}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ValueError(f"{file} is no Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        if argument := re.search(r"unexpected keyword argument '(\w+)'", reason):
            reason = unknown("field of a strategy", argument[1], [field.name for field in fields(Strategy)])
        raise ValueError(f"{place_in(file, error)}: {reason}") from error
    return module


def _listed(module: ModuleType, file: Path) -> Iterable[Strategy]:
    listed = getattr(module, "STRATEGIES", None)
    if listed is None:
        raise ValueError(
            f"{file} lists no strategies: it must end with STRATEGIES = (…,), a tuple of instances"
        )
    for strategy in listed if isinstance(listed, tuple | list) else (listed,):
        if not isinstance(strategy, Strategy):
            raise ValueError(  # noqa: TRY004 - of a user's file
                f"{file}: STRATEGIES has {str(strategy)[:80]}, which is no instance of a Strategy"
            )
        yield strategy
