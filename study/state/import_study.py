"""Import of a table as the folder of a study, by a map of its columns."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pandas as pd

from analysis.cells.imported_table import import_table, unselected
from analysis.cells.table import tidy
from budgets.declaration import values
from budgets.quantity import plural
from runners.results import write_table
from study.declare import shipped_studies
from study.declare.column_maps import find_column_map, load_column_map, read_any_table
from study.state.study import RECORD


def import_study(table: Path, map_name: str, *, name: str | None, results: Path) -> Iterator[str]:
    """Replace ``results/<name>/`` as a whole, or leave it if it would not change.

    Args:
        table: A CSV or parquet file.
        map_name: The path of a column map, or the name of a shipped one.
        name: Name of the study (default: the map's name).
        results: Folder of studies.

    Yields:
        Lines with the counts of imported rows and of dropped rows by reason.

    Raises:
        ValueError: Map or table can't be read, or the name belongs to a study that was not imported.
    """
    map_path = find_column_map(map_name)
    name = values.name(name or map_path.stem)
    folder = results / name
    _check_free(folder)
    how, frame = load_column_map(map_path), read_any_table(table)
    imported = import_table(frame, how)
    excluded = tidy(imported, metric=how.metric).excluded[["trial", "reason"]]
    reasons = [str(reason).removeprefix("failed: ") for reason in excluded["reason"]]
    left = [unselected(frame, how), excluded.assign(reason=reasons)]
    dropped = pd.concat([part.astype("str") for part in left], ignore_index=True)
    kept = len(imported) - len(excluded)
    if not kept:
        why = "; ".join(_counted(dropped)) or "it has a header and nothing below"
        raise ValueError(f"{table} has no usable row: {why}")
    record = {
        "metric": how.metric, "title": how.title, "table": table.name,
        "sha256": sha256(table.read_bytes()).hexdigest(), "map": map_path.name, "rows": len(frame),
    }  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results, prefix=f".{name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        write_table(new / "results.parquet", imported)
        write_table(new / "dropped.parquet", dropped)
        shutil.copyfile(map_path, new / "map.yaml")
        (new / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        same = _same(new, folder)
        if not same:
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            new.rename(folder)
    yield f"{name}: {kept:,} of {plural(len(frame), 'row')} of {table.name}, {how.metric}"
    for line in _counted(dropped):
        yield f"  dropped: {line}"
    if len(dropped):
        yield f"  list of dropped rows: {folder / 'dropped.parquet'}"
    yield f"{folder} is unchanged" if same else f"imported into {folder}"


def _check_free(folder: Path) -> None:
    if folder.name in shipped_studies():
        raise ValueError(
            f"'{folder.name}' is the name of a shipped study; choose another one with --name NAME"
        )
    if folder.exists() and not (folder / RECORD).exists():
        raise ValueError(
            f"{folder} already exists and is not an imported study, so it is not overwritten; "
            "choose another name with --name NAME, or another --results FOLDER"
        )


def _counted(dropped: pd.DataFrame) -> list[str]:
    """Return one line per reason with the number of dropped rows."""
    return [f"{plural(count, 'row')}: {reason}" for reason, count in dropped["reason"].value_counts().items()]


def _same(new: Path, old: Path) -> bool:
    """Return whether the files of two imported studies have the same bytes."""
    return all(
        (old / path.name).exists() and (old / path.name).read_bytes() == path.read_bytes()
        for path in new.iterdir()
    )
