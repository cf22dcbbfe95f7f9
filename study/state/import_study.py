"""Writes the folder of an imported study, from anyone's table and a map of its columns."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pandas as pd

from analysis.cells.column_map import import_table, unselected
from analysis.cells.table import tidy
from analysis.labels import plural
from budgets import values
from runners.results import write_table
from study.declare.column_maps import find_column_map, load_column_map, read_any_table
from study.declare.shipped import shipped_studies
from study.state.imported import RECORD


def import_study(table: Path, map_name: str, *, name: str | None, results: Path) -> Iterator[str]:
    """Writes ``results/<name>/`` as a whole, or leaves it where it is the same already.

    Args:
        table: A CSV or parquet file.
        map_name: A column map: the path of its file, or the name of one that comes with the project.
        name: Of the study; the map's by default.
        results: Where studies are kept.

    Yields:
        The lines that say what was read, and what was not and why.

    Raises:
        ValueError: Map or table can't be read, or the name is that of a study of another kind.
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
        raise ValueError(f"{table} has no row that can be used: {'; '.join(_counted(dropped))}")
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
        yield f"  left aside: {line}"
    if len(dropped):
        yield f"  each of them: {folder / 'dropped.parquet'}"
    yield f"{folder} is as it was" if same else f"imported into {folder}"


def _check_free(folder: Path) -> None:
    if folder.name in shipped_studies():
        raise ValueError(
            f"'{folder.name}' is a study that comes with the project; give another name by --name NAME"
        )
    if folder.exists() and not (folder / RECORD).exists():
        raise ValueError(
            f"{folder} is there and was not imported, it is never overwritten; "
            "give another name by --name NAME, or another --results FOLDER"
        )


def _counted(dropped: pd.DataFrame) -> list[str]:
    """Why rows were dropped, and how many."""
    return [f"{plural(count, 'row')}: {reason}" for reason, count in dropped["reason"].value_counts().items()]


def _same(new: Path, old: Path) -> bool:
    """Whether an imported study is to the byte what it would become."""
    return all(
        (old / path.name).exists() and (old / path.name).read_bytes() == path.read_bytes()
        for path in new.iterdir()
    )
