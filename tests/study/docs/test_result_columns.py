"""docs/results.md lists the columns of the tables."""

from docs.build.result_columns import PAGE, columns_page


def test_the_page_of_columns_is_up_to_date() -> None:
    page = columns_page()
    assert PAGE.read_text(encoding="utf-8") == page, "run `python -m docs.build.reference`"
    assert "| `samples_seen` | Pairs that pass through training, repeats included | pairs | int64 |" in page
