"""An imported study: a folder of results that came from anyone's table, neither planned nor run here."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runners.results import read_table

RECORD = "import.json"
"""What an imported study's folder is known by: where its results came from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An imported study.

    Attributes:
        name: Its name.
        folder: ``results/<name>``.
        record: What ``import`` noted: ``metric``, ``title``, ``table`` (file name), ``sha256`` of the table,
            ``map`` (file name), ``rows`` of the table.
    """

    name: str
    folder: Path
    record: dict[str, Any]

    @property
    def metric(self) -> str:
        """Its metric."""
        return str(self.record["metric"])

    @property
    def map_text(self) -> str:
        """The map, as it was written."""
        return (self.folder / "map.yaml").read_text(encoding="utf-8")

    def results(self) -> pd.DataFrame:
        """Return its results, one row a trial.

        Raises:
            ValueError: They can't be read.
        """
        return read_table(self.folder / "results.parquet")

    def dropped(self) -> pd.DataFrame:
        """Return the rows of the table that are no results: ``trial`` (``row-7``) and ``reason``.

        Raises:
            ValueError: They can't be read.
        """
        return read_table(self.folder / "dropped.parquet")


def find_imported(name: str, results: Path) -> Imported | None:
    """Return the imported study of a name, or None where there is none.

    Raises:
        ValueError: Its record is damaged.
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
