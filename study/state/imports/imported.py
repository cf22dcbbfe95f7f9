"""Imported studies: folders of results that come from a table instead of a run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runners.results import read_table

RECORD = "import.json"
"""The file that marks the folder of an imported study; it holds the origin of its results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An imported study.

    Attributes:
        name: The study's name.
        folder: ``results/<name>``.
        record: Origin of the results: ``metric``, ``title``, ``table`` (file name), ``sha256`` of the table,
            ``map`` (file name), ``rows`` (number of rows in the table).
    """

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def metric(self) -> str:
        """The metric of its results."""
        return str(self.record["metric"])

    @property
    def map_text(self) -> str:
        """The text of its column map."""
        return (self.folder / "map.yaml").read_text(encoding="utf-8")

    def results(self) -> pd.DataFrame:
        """Return its results, one row per trial.

        Raises:
            ValueError: The file can't be read.
        """
        return read_table(self.folder / "results.parquet")

    def dropped(self) -> pd.DataFrame:
        """Return the dropped rows of the table: ``trial`` (such as ``row-7``) and ``reason``.

        Raises:
            ValueError: The file can't be read.
        """
        return read_table(self.folder / "dropped.parquet")


def find_imported(name: str, results: Path) -> Imported | None:
    """Return the imported study of a name; None if there is none.

    Raises:
        ValueError: The study's record is damaged.
    """
    record = results / name / RECORD
    if Path(name).name != name or not record.is_file():
        return None
    try:
        return Imported(name=name, folder=record.parent, record=json.loads(record.read_text("utf-8")))
    except ValueError:
        raise ValueError(f"{record} is damaged; import the table again") from None


def imported_names(results: Path) -> tuple[str, ...]:
    """Return the names of all imported studies."""
    return tuple(sorted(path.parent.name for path in results.glob(f"*/{RECORD}")))
