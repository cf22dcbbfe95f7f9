"""Imported studies: folders of results that come from a table instead of a run."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD = "import.json"
"""The file that marks the folder of an imported study; it holds the origin of its results."""

_FACTS = {"metric": str, "title": str, "table": str, "sha256": str, "map": str, "rows": int}


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """An imported study.

    Its folder has ``map.yaml``, ``results.parquet``, and ``dropped.parquet``: ``trial`` (such as ``row-7``)
    and ``reason`` of each row of the table that was dropped.

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


def find_imported(name: str, results: Path) -> Imported | None:
    """Return the imported study of a name; None if there is none.

    Raises:
        ValueError: The study's record is damaged.
    """
    record = results / name / RECORD
    if Path(name).name != name or not record.is_file():
        return None
    with suppress(ValueError, RecursionError):
        facts = json.loads(record.read_text("utf-8"))
        if isinstance(facts, dict) and all(type(facts.get(fact)) is kind for fact, kind in _FACTS.items()):
            return Imported(name=name, folder=record.parent, record=facts)
    raise ValueError(f"{record} is damaged; import the table again")


def imported_names(results: Path) -> tuple[str, ...]:
    """Return the names of all imported studies."""
    return tuple(sorted(path.parent.name for path in results.glob(f"*/{RECORD}")))
