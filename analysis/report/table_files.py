"""Saving of a table as CSV, Markdown and LaTeX (booktabs)."""

import re
from pathlib import Path

from analysis.report.latex import latex
from analysis.report.tables import Table
from budgets.names import neutral


def save(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex`` into a folder."""
    table.frame.map(neutral).to_csv(folder / f"{table.name}.csv", index=False)
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """Return a table in Markdown, under its title and note."""
    lines = [f"### {_md(table.title)}", "", _md(table.note), ""]
    if table.frame.empty:
        return "\n".join([*lines, "(nothing)", ""])
    header = [str(name) for name in table.frame.columns]
    lines += [_pipe(header), _pipe(["---"] * len(header))]
    return "\n".join([*lines, *(_pipe(row) for row in _rows(table)), ""])


def _rows(table: Table) -> list[list[str]]:
    return [[str(value) for value in row] for row in table.frame.to_numpy().tolist()]


def _pipe(texts: list[str]) -> str:
    return "| " + " | ".join(map(_md, texts)) + " |"


def _md(text: str) -> str:
    """Return a text with everything escaped that Markdown would read as markup."""
    return re.sub(r"([\\`*_<>\[\]|~])", r"\\\1", text).replace("\n", " ")
