"""Writes docs/dev/source-map.md: what each file of the project is, by the first line of its docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "dev" / "source-map.md"
_INTRODUCTION = """# Map of the house

One line a file, from its docstring; written by `python -m docs.build.reference`. Imports go one way:
`study` → `analysis` → `runners` → `budgets`. `tests/` mirrors these folders."""
_FOLDERS = {
    "study": "the command line; the only place where all is wired together",
    "analysis": "results → answers: frames in, frames out",
    "runners": "making trials happen",
    "budgets": "what compute buys: pure arithmetic, neither torch nor Ray",
    "benchmarks": "what must be fast, measured beside what it is compared to",
}


def house_map() -> str:
    """Gives the page."""
    parts = [_INTRODUCTION]
    for top, about in _FOLDERS.items():
        files = sorted((ROOT / top).rglob("*.py"), key=lambda path: (path.parent, path.name))
        rows = [
            f"| `{path.relative_to(ROOT)}` | {_line(path)} |" for path in files if path.name != "__init__.py"
        ]
        parts.append("\n".join([f"## `{top}/`: {about}", "", "| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _line(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line.

    Raises:
        ValueError: It has none.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring")
    return " ".join(text.partition("\n\n")[0].split()).replace("``", "`").replace("|", "\\|").rstrip(".:")
