"""``python -m study import``: make any table of results a study that `report` and `recommend` read."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from study.commands.command import show_all
from study.declare import shipped_studies

if TYPE_CHECKING:
    import pandas as pd

NAME = "import"
HELP = "import any table of results as a study to report, by a map of its columns"
EXAMPLES: tuple[str, ...] = (
    "my-table.csv --map my-map.yaml --name mine",
    "results/paper/figures.csv --map paper-one-epoch",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "table",
        type=Path,
        nargs="+",
        help="a .csv, .tsv, .jsonl (also .gz, .zst) or .parquet file, one row per run, or logs, .json",
    )
    parser.add_argument(
        "--map",
        required=True,
        metavar="MAP",
        help="column map of the table: a YAML file, or the name of a shipped map",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of the study, written to results/NAME (default: the map's name)"
    )
    parser.add_argument("--results", metavar="FOLDER", help="folder of studies (default: results)")


def run(options: Namespace) -> int:
    """Write the study's folder, and print the number of imported rows and of dropped ones by reason.

    The folder is replaced as a whole, or left if it would not change.

    Raises:
        ValueError: Map or table can't be read, or the name belongs to a study that was not imported.
    """
    import filecmp
    import json
    import shutil
    import tempfile
    from hashlib import sha256

    import pandas as pd

    from analysis.cells.flops_note import flops_notes
    from analysis.cells.imported_table import import_sweeps, unselected
    from analysis.cells.table import tidy
    from budgets.declaration import values
    from budgets.quantity import plural
    from runners.data.build.table_file import read_results
    from runners.results import write_table
    from study.declare.column_maps import find_column_map, load_column_map
    from study.state.study import RECORD, import_source

    tables, results = options.table, Path(options.results or "results")
    map_path = find_column_map(options.map)
    name = values.name(options.name or map_path.stem)
    folder = results / name
    _refuse_others(folder, RECORD)
    columns, frame = load_column_map(map_path), read_results(tables)
    imported, sweeps = import_sweeps(frame, columns)
    excluded = tidy(imported, metric=columns.metric).excluded[["trial", "reason"]]
    excluded = excluded.assign(
        reason=excluded["reason"].astype("str").str.removeprefix("failed: "),
        line=excluded["trial"].map(dict(zip(imported["trial"], imported["line"], strict=True))),
    )
    dropped = pd.concat([unselected(frame, columns).astype("str"), excluded.astype("str")], ignore_index=True)
    counts = [
        f"{plural(count, 'row')}: {reason}" for reason, count in dropped["reason"].value_counts().items()
    ]
    usable = len(imported) - len(excluded)
    if not usable:
        raise ValueError(
            f"{tables[0]} has no usable row: {'; '.join(counts) or 'it has a header and nothing below'}"
        )
    told = tables[0].name if len(tables) == 1 else f"{len(tables)} tables"
    record = {
        "metric": columns.metric, "title": columns.title, "table": told,
        "sha256": sha256(b"".join(table.read_bytes() for table in tables)).hexdigest(),
        "map": map_path.name, "rows": len(frame),
    }  # fmt: skip
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results, prefix=f".{name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        shutil.copyfile(map_path, new / "map.yaml")
        (new / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        files = {"results": imported, "dropped": dropped, **({"sweep": sweeps} if len(sweeps) else {})}
        for stem, rows in files.items():
            write_table(new / f"{stem}.parquet", rows, source=import_source(new))
        names = [path.name for path in new.iterdir()]
        _, other, missing = filecmp.cmpfiles(new, folder, names, shallow=False)
        same = not (other or missing)
        if not same:
            _replace(folder, new, tables)
    lines = [f"{name}: {usable:,} of {plural(len(frame), 'row')} of {told}, {columns.metric}"]
    lines += [f"  note: {note}" for note in flops_notes(imported, columns.metric)]
    lines += [*_tried(sweeps, columns.metric), *(f"  dropped: {line}" for line in counts)]
    lines += [f"  list of dropped rows: {folder / 'dropped.parquet'}"] if len(dropped) else []
    show_all([*lines, f"{folder} is unchanged" if same else f"imported into {folder}"])
    return 0


def _replace(folder: Path, new: Path, tables: list[Path]) -> None:
    """Replace the study's folder by a new one, unless a table would be lost with it."""
    for table in tables:
        if folder.resolve() in table.resolve().parents:  # as in a study that ships with the project
            raise ValueError(f"{table} lies in {folder}, which would be replaced; choose another --name NAME")
    if folder.exists():
        folder.rename(new.with_name("old"))
    new.rename(folder)


def _tried(sweeps: "pd.DataFrame", metric: str) -> list[str]:
    """Return what the cells of a sweep tried, in a line."""
    from analysis.error_unit import ErrorUnit
    from budgets.quantity import plural

    if sweeps.empty:
        return []
    runs = f"{plural(int(sweeps['runs'].sum()), 'run')} of {plural(len(sweeps), 'cell')}"
    if "flag" not in sweeps:
        return [f"  sweep: the means of {runs}"]
    bias, flagged = sweeps["bias"], int((sweeps["flag"] != "").sum())
    moved = [ErrorUnit.of(metric).gap(value, fine=True) for value in (bias.mean(), bias.max())]
    told = f"bias of choosing removed, {moved[0]} on average, {moved[1]} at most"
    told = told if bias.notna().all() else "too few to estimate the bias of choosing"
    return [f"  sweep: the best of {runs}; {told}; possibly undertuned: {plural(flagged, 'cell')}"]


def _refuse_others(folder: Path, record: str) -> None:
    """Refuse the folder or the name of a study that was not imported."""
    if folder.name in shipped_studies():
        raise ValueError(
            f"'{folder.name}' is the name of a shipped study; choose another one with --name NAME"
        )
    if folder.exists() and not (folder / record).exists():
        raise ValueError(
            f"{folder} already exists and is not an imported study, so it is not overwritten; "
            "choose another name with --name NAME, or another --results FOLDER"
        )
