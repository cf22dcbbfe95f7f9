"""Files of a report: tables as CSV, Markdown and LaTeX (booktabs), and the folder that is replaced."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from analysis.report.tables.latex import latex
from analysis.report.tables.tables import Table
from budgets.names import neutral_cell


def save(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex`` into a folder."""
    table.frame.map(neutral_cell).to_csv(folder / f"{table.name}.csv", index=False)
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """Return a table in Markdown, under its title and note."""
    lines = [f"### {_md(table.title)}", "", _md(table.note), ""]
    if table.frame.empty:
        return "\n".join([*lines, "(nothing)", ""])
    header = [str(name) for name in table.frame.columns]
    lines += [_pipe(header), _pipe(["---"] * len(header))]
    return "\n".join([*lines, *(_pipe(map(str, row)) for row in table.frame.to_numpy().tolist()), ""])


def _pipe(texts: Iterable[str]) -> str:
    return "| " + " | ".join(map(_md, texts)) + " |"


def _md(text: str) -> str:
    """Return a text with everything escaped that Markdown would read as markup."""
    return re.sub(r"([\\`*_<>\[\]|~])", r"\\\1", text).replace("\n", " ")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Context manager of a new, empty folder; on success its files replace those of ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        _put_in_place(new, folder)


def _put_in_place(new: Path, folder: Path) -> None:
    """Replace the files of a folder by new ones, each at once and the page last, and remove all others.

    The page is there at every moment, so that an open one can reload itself.
    """
    paths = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.suffix == ".html"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (new / path).replace(folder / path)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder) not in paths:
            path.unlink()
