"""``python -m study import``: anyone's table as a study that `report` and `recommend` read."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

NAME = "import"
HELP = "read anyone's table of results, by a map of its columns, as a study to report"
EXAMPLES: tuple[str, ...] = (
    "my-table.csv --map my-map.yaml --name mine",
    "results/paper/figures.csv --map paper-one-epoch",
)


def add_options(parser: ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument("table", type=Path, help="a CSV or parquet file, one row a trial")
    parser.add_argument(
        "--map", required=True, metavar="MAP", help="its column map: a YAML file, or one that comes along"
    )
    parser.add_argument("--name", metavar="NAME", help="of the study: results/NAME is written (the map's)")
    parser.add_argument("--results", metavar="FOLDER", help="where studies are kept (results)")


def run(options: Namespace) -> int:
    """Writes the study's folder and prints what was read and what was left aside."""
    from study.state.import_study import import_study

    results = Path(options.results or "results")
    for line in import_study(options.table, options.map, name=options.name, results=results):
        print(line)
    return 0
