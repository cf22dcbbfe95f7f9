"""``python -m study import``: make any table of results a study that `report` and `recommend` read."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from study.commands.command import show_all

NAME = "import"
HELP = "import any table of results as a study to report, by a map of its columns"
EXAMPLES: tuple[str, ...] = (
    "my-table.csv --map my-map.yaml --name mine",
    "results/paper/figures.csv --map paper-one-epoch",
)


def add_options(parser: ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("table", type=Path, help="a CSV or parquet file, one row per trial")
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
    """Write the study's folder and print the counts of imported and dropped rows."""
    from study.state.import_study import import_study

    results = Path(options.results or "results")
    show_all(import_study(options.table, options.map, name=options.name, results=results))
    return 0
