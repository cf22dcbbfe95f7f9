"""Reader of column maps: YAML files that map the columns of any table to a study's results."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from analysis.cells.imported_table import OPTIONAL, REQUIRED, Column, ColumnMap
from analysis.cells.table import READING_ERROR, TEXT
from analysis.error_unit import is_loss
from budgets.declaration import values
from budgets.declaration.keys import OneOf
from budgets.names import unknown
from budgets.quantity import parse_count, parse_number, parse_quantity
from study.declare.yaml_reader import Section, read_root

_SHIPPED = Path(__file__).parent / "maps"
PAPER_FIGURES = _SHIPPED / "paper" / "figures.csv"
"""The paper's figures, digitised; in a checkout a link to ``results/paper/figures.csv``, as other tables."""

_BETTER: dict[str, Literal["higher", "lower"]] = {"higher": "higher", "lower": "lower"}


def find_column_map(name: str) -> Path:
    """Return the file of a map, given by its path or by the name of a shipped map.

    Raises:
        ValueError: There is no such map.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    shipped = {path.stem: path for path in _SHIPPED.rglob("*.yaml")}
    if name not in shipped:
        raise ValueError(unknown("column map", name, shipped))
    return shipped[name]


def shipped_table(path: Path) -> Path:
    """Return the table that comes with a shipped map: the one in the map's folder.

    Raises:
        ValueError: There is none.
    """
    found = [*path.parent.glob("*.csv")] if path.parent.parent == _SHIPPED else []
    if not found:
        with_tables = sorted(table.stem for table in _SHIPPED.glob("*/*.yaml"))
        raise ValueError(
            f"the map {path.stem} needs --table FILE; maps with a table: {', '.join(with_tables)}"
        )
    return found[0]


def load_column_map(path: Path) -> ColumnMap:
    """Read a column map.

    Raises:
        DeclarationError: The file is not a valid map; every error names its line.
    """
    root, problems = read_root(path)
    title = root.take("title", str, "")
    where = {"columns": root.where("columns")}
    rows: dict[str, tuple[str, ...]] = {}
    selected = root.section("rows")
    if selected is not None:
        rows = {name: selected.take_list(name, str) for name in selected.names()}
        where |= {f"rows.{name}": selected.where(name) for name in rows}
        selected.done()
    columns: dict[str, Column] = {}
    section = root.section("columns", required=True)
    if section is not None:
        columns = _columns(section)
        where |= {f"columns.{name}": section.where(name) for name in columns}
    metric, better, made_of = "", "higher", Column()
    images: Column | int = 0
    error: Column | None = None
    inner = root.section("metric", required=True)
    if inner is not None:
        metric = inner.take("name", values.metric) or ""  # an error is recorded
        usual = "lower" if is_loss(metric) else "higher"
        better = inner.take("better", OneOf(kind="direction", allowed=tuple(_BETTER)), usual)
        if is_loss(metric) and better == "higher":
            inner.error(f"metric.better: {metric} is a loss, which is better when lower", "better")
        images = _column_or_number(inner, "images", read=_whole) or 0
        error = _column_or_number(inner, READING_ERROR, read=_quantity)
        made_of = _column(inner, read=_quantity)
        where |= {"metric": root.where("metric")}
        where |= {name: inner.where(name) for name in ("images", READING_ERROR)}
    sweep: dict[str, Column] = {}
    mean = False
    inner = root.section("sweep")
    if inner is not None:
        mean = inner.take("choose", OneOf(kind="choice", allowed=("best", "mean")), "best") == "mean"
        by = inner.section("by", required=True)
        if by is not None:
            sweep = _each_column(by, lambda _: _as_written(str))  # numbers or names, as the table has them
            where |= {f"sweep.{name}": by.where(name) for name in sweep}
        inner.done()
    root.done()
    problems.raise_any()
    return ColumnMap(
        title=title or path.stem, rows=rows, columns=columns, metric=metric, metric_column=made_of,
        better=_BETTER[better], images=images, reading_error=error, sweep=sweep, mean=mean, where=where,
    )  # fmt: skip


def _columns(section: Section) -> dict[str, Column]:
    """Read the source of each column of the results schema."""
    for name in section.names():
        if name not in (*REQUIRED, *OPTIONAL):
            section.error(unknown("column of the results schema", name, (*REQUIRED, *OPTIONAL)), name)
    found = _each_column(
        section, lambda name: str if name in TEXT else _whole if name == "seed" else _quantity
    )
    for name in REQUIRED:
        if name not in found:
            section.error(f"columns lack '{name}'; needed: {', '.join(REQUIRED)}")
    return found


def _each_column(section: Section, reader: Callable[[str], Callable[[str], str]]) -> dict[str, Column]:
    """Read the columns of a section, each with the reader of its name."""
    inside = {name: section.section(name) for name in section.names()}
    found = {name: _column(inner, read=reader(name)) for name, inner in inside.items() if inner is not None}
    section.done()
    return found


def _column_or_number(section: Section, name: str, *, read: Callable[[str], str]) -> Column | None:
    """Read a column, or one number for every row; None if the key is absent."""
    if not section.has(name):
        return None
    if not section.is_section(name):
        return Column(value=section.take(name, read))
    inner = section.section(name)
    assert inner is not None, "is_section"
    return _column(inner, read=read)


def _column(section: Section, *, read: Callable[[str], str]) -> Column:
    """Read a column, the last keys of a section."""
    if section.has("value") == section.has("from"):
        section.error("give either from: COLUMN or value: CONSTANT")
    scaled = read is not str  # a key that is not taken is an error
    found = Column(
        source=section.take("from", str, "") or None,
        value=section.take("value", read, ""),
        times=section.take("times", _factor, 1.0) if scaled else 1.0,
        by=(section.take("by", str, "") if scaled else "") or None,
        over=(section.take("over", str, "") if scaled else "") or None,
        names={} if section.has("value") else section.take_mapping("names", read),
    )
    section.done()
    return found


def _as_written(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a reader that checks a text and returns it as it is written."""

    def read(text: str) -> str:
        parse(text)
        return text

    return read


_quantity, _whole = _as_written(parse_quantity), _as_written(parse_count)


def _factor(text: str) -> float:
    factor = parse_number(text)
    if factor == 0:
        raise ValueError(f"'{text}' makes every number 0; give another factor, or leave out times")
    return factor
