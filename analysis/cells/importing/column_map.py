"""Map that defines each column of the results schema from a table's own columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

REQUIRED = ("regime", "subset_size", "quality", "architecture", "strategy", "samples_seen", "train_flops")
OPTIONAL = (
    "level_flops", "seed", "batch_size", "train_flops_per_sample", "evaluation_flops", "epochs", "parameters",
    "train_loss",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Definition of one column of the results schema.

    Attributes:
        source: Column of the table; None for a constant.
        value: The constant.
        times: Factor that numbers are multiplied by.
        by: Column that numbers are multiplied by.
        over: Column that numbers are divided by.
        names: Values of the table → values of the schema; any other value is an error.
    """

    source: str | None = None
    value: str = ""
    times: float = 1.0
    by: str | None = None
    over: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnMap:
    """Definition of how a table is read.

    Attributes:
        title: Name and origin of the table.
        rows: Selected rows: column → allowed values. All other rows are dropped.
        columns: Column of the results schema → its definition: all of ``REQUIRED``, any of ``OPTIONAL``.
        metric: ``<evaluation set>/<metric>`` of the study. A metric that ends with ``/loss`` is better when
            lower and need not be a fraction.
        metric_column: Definition of the metric.
        better: Direction in which the table's metric is better; a fraction that is better when lower becomes
            1 − itself.
        images: Number of evaluation images or texts behind the metric, or its column; 0 when unknown.
        reading_error: Standard deviation with which the metric was read off a figure, in its own unit.
        where: Part of the map (``columns.NAME``, ``rows.NAME``) → its file and line, for error messages.
    """

    title: str
    rows: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, Column]
    metric: str
    metric_column: Column
    better: Literal["higher", "lower"]
    images: int | Column = 0
    reading_error: Column | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    def at(self, name: str) -> str:
        """Return the file and line of a part of the map, as a prefix of an error message."""
        return f"{self.where[name]}: " if name in self.where else ""
