"""docs/results.md lists the columns of the tables."""

import pytest

from docs.build.result_columns import PAGE, columns_page
from runners.results import TABLES, read_table
from tests.root import ROOT


def test_the_page_of_columns_is_up_to_date() -> None:
    page = columns_page()
    assert PAGE.read_text(encoding="utf-8") == page, "run `python -m docs.build.reference`"
    assert "| `samples_seen` | Pairs that pass through training, repeats included | pairs | int64 |" in page


@pytest.mark.parametrize("study", ["small", "small-full"])
@pytest.mark.parametrize("table", sorted(TABLES.keys() - {"midway.parquet"}))  # of studies with evaluation.at
def test_the_shipped_tables_have_the_documented_columns(study: str, table: str) -> None:
    kinds = [(name, column.kind) for name, column in TABLES[table].items()]
    frame = read_table(ROOT / "results" / study / table)
    assert [(name, str(kind)) for name, kind in frame.dtypes.items()][: len(kinds)] == kinds
    assert all("/" in name for name in frame.columns[len(kinds) :])
