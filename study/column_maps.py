"""Reads column maps: the YAML files that say how anyone's table becomes a study's results."""

from pathlib import Path
from typing import Literal

import pandas as pd

import analysis
from analysis.column_map import Column, ColumnMap
from budgets.names import unknown
from budgets.quantity import parse_count, parse_number
from study.yaml_reader import OneOf, Section, read_root

PAPER_FIGURES = Path(__file__).resolve().parents[1] / "results" / "paper" / "figures.csv"
"""The paper's figures, digitised."""

_SHIPPED = Path(next(iter(analysis.__path__))) / "imports"
_BETTER: dict[str, Literal["higher", "lower"]] = {"higher": "higher", "lower": "lower"}


def find_column_map(name: str) -> Path:
    """The file of a map: a path, or the name of one that comes with the project.

    Raises:
        ValueError: There is no such map.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    shipped = {path.stem: path for path in _SHIPPED.glob("*.yaml")}
    if name not in shipped:
        raise ValueError(unknown("column map", name, shipped))
    return shipped[name]


def load_column_map(path: Path) -> ColumnMap:
    """Reads a map.

    Raises:
        DeclarationError: The file is no valid map; every error names its line.
    """
    root, problems = read_root(path)
    title = root.take("title", str, "")
    rows: dict[str, tuple[str, ...]] = {}
    selected = root.section("rows")
    if selected is not None:
        rows = {name: selected.take_list(name, str) for name in selected.names()}
        selected.done()
    columns: dict[str, Column] = {}
    section = root.section("columns", required=True)
    if section is not None:
        for name in section.names():
            inner = section.section(name)
            if inner is not None:
                columns[name] = _column(inner)
                inner.done()
        section.done()
    metric, better, images, made_of = "", "higher", 0, Column()
    inner = root.section("metric", required=True)
    if inner is not None:
        metric = inner.take("name", str)
        better = inner.take("better", OneOf("direction", tuple(_BETTER)), "higher")
        images = inner.take("images", parse_count, 0)
        made_of = _column(inner)
        inner.done()
    root.done()
    problems.raise_any()
    return ColumnMap(
        title=title, rows=rows, columns=columns, metric=metric, metric_column=made_of,
        better=_BETTER[better], images=images,
    )  # fmt: skip


def _column(section: Section) -> Column:
    if section.has("value") == section.has("from"):
        section.error("give either from: COLUMN or value: CONSTANT")
    return Column(
        source=section.take("from", str, "") or None,
        value=section.take("value", str, ""),
        times=section.take("times", parse_number, 1.0),
        by=section.take("by", str, "") or None,
        over=section.take("over", str, "") or None,
        names=section.take_mapping("names", str),
    )


def read_any_table(path: Path) -> pd.DataFrame:
    """Reads a CSV or parquet file.

    Raises:
        ValueError: There is no such file, or it is of another kind.
    """
    if not path.exists():
        raise ValueError(f"no such table: {path}")
    if path.suffix == ".csv":
        return pd.read_csv(path)
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    raise ValueError(f"{path} is neither .csv nor .parquet")
