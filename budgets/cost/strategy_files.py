"""Strategies in a user's own Python files, which are executed.

The text of a file is part of the trials that use it: they know it on every node, and a file that is edited
while they run changes nothing.
"""

import linecache
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType
from typing import Any, get_origin

from budgets.cost.strategy import Strategy, StrategyFile, find_strategy, strategies
from budgets.names import one_line, unknown

_NUMBER = (int, float)
_KINDS: dict[Any, Any] = {float: _NUMBER, float | None: (*_NUMBER, NoneType)}


def load_strategy_files(paths: Iterable[str | Path]) -> dict[str, Strategy]:
    """Return the strategies that files list in ``STRATEGIES``, by name; a folder stands for its Python files.

    Raises:
        ValueError: A file cannot be executed, lists no strategies, or one under a name that is taken. The
            message names the file, and the line if there is one.
    """
    by_name = dict[str, Strategy]()
    for file in _read(paths):
        for strategy in _strategies_of(file):
            if strategy.name in strategies() or strategy.name in by_name:
                raise ValueError(
                    f"{file.path}: the name '{strategy.name}' is taken; give the strategy another one"
                )
            by_name[strategy.name] = strategy
    return by_name


def strategy_of(name: str, file: StrategyFile | None) -> Strategy:
    """Return the strategy of a trial, whose file is None for a shipped one."""
    return find_strategy(name, {strategy.name: strategy for strategy in _strategies_of(file)} if file else {})


def place_in(file: str, error: BaseException) -> str:
    """Return a file, and its last line that took part in an error, as ``FILE, line N``."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f"{file}, line {lines[-1]}" if lines else file


def _read(paths: Iterable[str | Path]) -> Iterator[StrategyFile]:
    for path in map(Path, paths):
        files = sorted(path.glob("*.py")) if path.is_dir() else [path]
        if not files or not all(file.is_file() and file.suffix == ".py" for file in files):
            raise ValueError(f"{path} is no Python file, and no folder that has one")
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{file} is no text in UTF-8: {error}") from error
            yield StrategyFile(path=str(file), text=text)


@cache
def _strategies_of(file: StrategyFile) -> tuple[Strategy, ...]:
    """Execute a file, once in a process for each of its texts, and return what it lists."""
    # Its own name, so that two files called alike in two folders are two modules.
    module = ModuleType(f"{Path(file.path).stem}_{file.version}")
    module.__file__ = file.path
    sys.modules[module.__name__] = module  # where `dataclass` looks up what a class refers to
    # A traceback shows these lines, also where the file is not, or is another by now.
    linecache.cache[file.path] = len(file.text), None, file.text.splitlines(keepends=True), file.path
    try:
        exec(compile(file.text, file.path, "exec"), vars(module))  # noqa: S102 - a study may bring code
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        if argument := re.search(r"unexpected keyword argument '(\w+)'", reason):
            reason = unknown("field of a strategy", argument[1], [field.name for field in fields(Strategy)])
        if isinstance(error, ImportError) and Path(file.path).with_name(f"{error.name}.py").exists():
            reason += (
                f". A file travels to the nodes without its neighbours: move what it needs of "
                f"{error.name}.py into it, or install both as a package"
            )
        raise ValueError(f"{place_in(file.path, error)}: {reason}") from error
    listed = getattr(module, "STRATEGIES", None) or (None,)
    several = listed if isinstance(listed, tuple | list) else (listed,)
    if problem := next(filter(None, map(_problem, several)), ""):
        raise ValueError(f"{file.path}: {problem}")
    return tuple(replace(strategy, file=file) for strategy in several)


def _problem(strategy: object) -> str:
    """Return what is wrong with what a file lists: it is no strategy, or a field is of another type."""
    if strategy is None:
        return "it lists no strategies: it must end with STRATEGIES = (…,), a tuple of instances"
    if not isinstance(strategy, Strategy):
        return f"STRATEGIES has {str(strategy)[:80]}, which is no instance of a Strategy"
    for field in fields(Strategy):
        value: Any = getattr(strategy, field.name)
        kind: Any = tuple if get_origin(field.type) is tuple else _KINDS.get(field.type, field.type)
        wanted = ""
        if not isinstance(value, kind):
            wanted = getattr(field.type, "__name__", str(field.type))
        elif one_line(value) != value:
            wanted = "one line without control characters"
        elif field.name.endswith("_fraction") and not 0 < value <= 1:
            wanted = "above 0 and at most 1"
        elif field.type is int and value < 1:
            wanted = "1 or more"
        if wanted:
            return f"{strategy.name}: {field.name} must be {wanted}, found {value!r}"
    return ""
