"""Writes the studies in `results/` as a run would today: declaration, plan, and what tables are derived from.

Run as ``python -m docs.build.shipped`` after a key of the declaration was added, or forecasts have changed.
"""

from pathlib import Path

import pandas as pd

from study.declare.load import load_declaration
from study.state.book import SPENT
from study.state.plan_study import plan_study, plan_tables
from study.state.study import find_study

RESULTS = Path(__file__).parents[2] / "results"


def main() -> None:
    """Rewrite each declaration and plan, and the source of the other tables, whose rows stay.

    The book stays as it is: it was derived from any declaration of the study.
    """
    for declaration in RESULTS.glob("*/study.yaml"):
        study = find_study(load_declaration(declaration), results=str(RESULTS), pools=None)
        derived = (path for path in study.folder.glob("*.parquet") if path.name != SPENT)
        tables = {path.name: pd.read_parquet(path) for path in derived}
        planned = plan_tables(plan_study(study))
        tables |= zip(("plan.parquet", "left-out.parquet", "scores.parquet"), planned, strict=True)
        study.write_declaration()
        for name, frame in tables.items():
            study.write_table(name, frame)


if __name__ == "__main__":
    main()
