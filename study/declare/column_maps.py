"""Reader of column maps: YAML files that map the columns of any table to a study's results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from analysis.cells.imported_table import OPTIONAL, REQUIRED, Column, ColumnMap
from analysis.cells.table import READING_ERROR, TEXT
from analysis.error_unit import is_loss
from budgets.declaration import values
from budgets.declaration.keys import A_VALUE, At, Clashes, Given, Section
from budgets.declaration.value_forms import OneOf, Reader
from budgets.names import unknown
from budgets.quantity import parse_count, parse_number, parse_quantity
from study.declare.yaml_reader import read_top

_SHIPPED = Path(__file__).parent / "maps"
PAPER_FIGURES = _SHIPPED / "paper" / "figures.csv"
"""The paper's figures, digitised; in a checkout a link to ``results/paper/figures.csv``, as other tables."""


def _factor(text: str) -> float:
    factor = parse_number(text)
    if factor == 0:
        raise ValueError(f"'{text}' makes every number 0; give another factor, or leave out times")
    return factor


_text = Reader(parse=str, noun="a text", json="string")
_times = Reader(parse=_factor, noun="a factor")
_direction = OneOf(kind="direction", allowed=("higher", "lower"))
_column = OneOf(kind="column of the results schema", allowed=(*REQUIRED, *OPTIONAL))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column(Column):
    """A column as a map has it."""

    source: Annotated[str | None, _text, At(name="from")] = None
    value: Annotated[str, _text] = ""
    times: Annotated[float, _times] = 1.0
    by: Annotated[str | None, _text] = None
    over: Annotated[str | None, _text] = None
    names: dict[str, Annotated[str, _text]] = field(default_factory=dict)

    def clashes(self, given: Given) -> Clashes:
        """Yield a column that is made from nothing, or from two things."""
        if given("value") == given("from"):
            yield "", "needs one of from: COLUMN and value: CONSTANT"
        if given("value") and given("names"):
            yield "names", "names is not allowed with value"

    def unread(self, at: str) -> Clashes:
        """Yield keys and values that do not fit the column's name, the last part of its key."""
        name = at.rpartition(".")[2]
        for key in ("times", "by", "over") if name in TEXT else ():
            if getattr(self, key) not in {None, 1.0}:
                yield f"{at}.{key}", f"{at}.{key} is not allowed: {name} is a text"
        read = str if name in TEXT else parse_count if name in {"seed", "images"} else parse_quantity
        for key, text in (
            ("value", self.value),
            *((f"names.{label}", self.names[label]) for label in self.names),
        ):
            try:
                _ = text and read(text)
            except ValueError as error:
                yield f"{at}.{key}", f"{at}.{key}: {error}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Number(_Column):
    """A column, or a number alone: its value in every row."""

    in_short: ClassVar[Mapping[str, str]] = {A_VALUE: "value"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Metric:
    """The metric: its name, its column, and what is known of its values."""

    name: Annotated[str, values.metric]
    better: Annotated[Literal["higher", "lower"] | None, _direction] = None
    images: _Number | None = None
    reading_error: _Number | None = None
    column: Annotated[_Column, At(name="")]

    def clashes(self, given: Given) -> Clashes:  # noqa: ARG002
        """Yield a loss that is better when higher."""
        if self.name and is_loss(self.name) and self.better == "higher":
            yield "better", f"better: {self.name} is a loss, which is better when lower"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sweep:
    """What the runs of a cell differ in."""

    choose: Annotated[str, OneOf(kind="choice", allowed=("best", "mean"))] = "best"
    by: dict[str, _Column]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """Which rows of a run are read, in a log with several."""

    by: Annotated[str, _text]
    take: Annotated[
        Literal["last", "best", "each"], OneOf(kind="choice of rows", allowed=("last", "best", "each"))
    ] = "last"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Map:
    """A column map as its file has it."""

    title: Annotated[str, _text] = ""
    rows: dict[str, tuple[Annotated[str, _text], ...]] = field(default_factory=dict)
    columns: dict[Annotated[str, _column], _Column]
    metric: _Metric
    sweep: _Sweep | None = None
    run: _Run | None = None

    def clashes(self, given: Given) -> Clashes:
        """Yield columns that are missing, and keys of columns that do not fit their names."""
        for name in REQUIRED if given("columns") else ():
            if name not in self.columns:
                yield "columns", f"columns lack '{name}'; needed: {', '.join(REQUIRED)}"
        for at, column in self.parts():
            yield from () if at.startswith("sweep") else column.unread(at)

    def parts(self) -> Iterator[tuple[str, _Column]]:
        """Yield each column with its key."""
        yield "metric", self.metric.column
        for name in ("images", READING_ERROR):
            if (column := getattr(self.metric, name)) is not None:
                yield f"metric.{name}", column
        for name, column in self.columns.items():
            yield f"columns.{name}", column
        for name, column in self.sweep.by.items() if self.sweep else ():
            yield f"sweep.by.{name}", column


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
    tables = [*path.parent.glob("*.csv")] if path.parent.parent == _SHIPPED else []
    if not tables:
        with_tables = sorted(table.stem for table in _SHIPPED.glob("*/*.yaml"))
        raise ValueError(
            f"the map {path.stem} needs --table FILE; maps with a table: {', '.join(with_tables)}"
        )
    return tables[0]


def load_column_map(path: Path) -> ColumnMap:
    """Read a column map.

    Raises:
        DeclarationError: The file is not a valid map; every error names its line.
    """
    top = read_top(path)
    read: _Map = Section(kind=_Map).read(top, None)
    top.file.raise_any()
    metric, sweep = read.metric, read.sweep
    usual: Literal["higher", "lower"] = "lower" if is_loss(metric.name) else "higher"
    places = {"columns": "columns", **{f"rows.{name}": f"rows.{name}" for name in read.rows}}
    places |= {"run": "run"} if read.run else {}
    for at, _ in read.parts():
        places[at.removeprefix("metric.").replace("sweep.by.", "sweep.")] = at
    return ColumnMap(
        title=read.title or path.stem, rows=read.rows, columns=read.columns, metric=metric.name,
        metric_column=metric.column, better=metric.better or usual, images=metric.images or 0,
        reading_error=metric.reading_error, sweep=sweep.by if sweep else {},
        mean=sweep is not None and sweep.choose == "mean",
        run=read.run.by if read.run else None, take=read.run.take if read.run else "last",
        where={name: f"{path}:{top.find(key)[0].key_line}" for name, key in places.items()},
    )  # fmt: skip
