"""Files of a report: tables as CSV, Markdown and LaTeX (booktabs), and the folder that is replaced."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from analysis.report.tables import Table
from budgets.names import one_line
from runners.results import csv_text

_LONG, _LINE = 24, 75
"""Longest text that should stay on one line, and a line of the page, in letters of LaTeX's footnotes."""


def save(table: Table, folder: Path) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex`` into a folder."""
    (folder / f"{table.name}.csv").write_text(csv_text(table.frame), encoding="utf-8")
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """Return a table in Markdown, under its title and note."""
    lines = [f"### {_md(table.title)}", "", _md(table.note), ""]
    if table.shown.empty:
        return "\n".join([*lines, "(nothing)", ""])
    header = [str(name) for name in table.shown.columns]
    lines += [_pipe(header), _pipe(["---"] * len(header))]
    return "\n".join([*lines, *(_pipe(map(str, row)) for row in table.shown.to_numpy().tolist()), ""])


def _pipe(texts: Iterable[str]) -> str:
    return "| " + " | ".join(map(_md, texts)) + " |"


def _md(text: str) -> str:
    """Return a text with everything escaped that Markdown would read as markup."""
    return re.sub(r"([\\`*_<>\[\]|~])", r"\\\1", one_line(text))


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
    """Replace the files of a folder that differ by new ones, and remove all others.

    Each is replaced at once and the page last: it is there at every moment, so an open one can reload itself.
    """
    paths = [path.relative_to(new) for path in new.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.suffix == ".html"):
        old = folder / path
        if not old.is_file() or old.read_bytes() != (new / path).read_bytes():
            old.parent.mkdir(parents=True, exist_ok=True)
            (new / path).replace(old)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder) not in paths:
            path.unlink()


def latex(table: Table) -> str:
    r"""Return a ``longtable`` in booktabs style; it needs ``\usepackage{array,booktabs,longtable}``.

    Its columns share the line by their longest words and texts, and numbers are right-aligned. A table whose
    words need more than the line reaches into both margins.
    """
    frame = table.shown if table.shown.size else pd.DataFrame({"": ["(nothing)"]})
    cells = {head: [head, *map(_one_unit, frame[head])] for head in map(str, frame)}
    words = [max(map(_longest_word, texts)) + 2.5 for texts in cells.values()]
    whole = [max(map(len, texts[1:]), default=0) + 2.5 for texts in cells.values()]
    wished = [max(word, min(text, _LONG)) for word, text in zip(words, whole, strict=True)]
    line = max(float(_LINE), sum(words))
    more = min(1.0, (line - sum(words)) / max(sum(wished) - sum(words), 1.0))
    widths = [(word + more * (wish - word)) / _LINE for word, wish in zip(words, wished, strict=True)]
    form = "".join(
        rf">{{\{_side(texts)}\arraybackslash}}p{{\dimexpr{width:.4f}\linewidth-2\tabcolsep\relax}}"
        for width, texts in zip(widths, cells.values(), strict=True)
    )
    caption, title = _tex(f"{table.title}: {table.note}".rstrip(".")), _tex(table.title)
    styler = pd.DataFrame({_tex(head): map(_tex, texts[1:]) for head, texts in cells.items()}).style
    made: str = styler.hide(axis="index").to_latex(
        environment="longtable", hrules=True, column_format=form, caption=caption
    )
    made = made.replace("Continued on next page", r"\ldots")
    made = made.replace(rf"\caption[]{{{caption}}}", rf"\caption[]{{{title}, continued}}")
    margin = (
        rf"\setlength{{\LTleft}}{{{(1 - sum(widths)) / 2:.4f}\linewidth}}\setlength{{\LTright}}{{\LTleft}}"
    )
    return f"{{\\footnotesize\\setlength{{\\tabcolsep}}{{2pt}}{margin}\n{made}}}\n"


def _one_unit(text: str) -> str:
    """Return an interval with its unit once: ``[7.92 MFLOP, 12.8 MFLOP]`` → ``[7.92, 12.8] MFLOP``."""
    return re.sub(r"^\[([\d.,]+) (\w+), ([\d.,]+) \2\]$", r"[\1, \3] \2", text)


def _longest_word(text: str) -> int:
    """Return the letters of the longest part of a text that is not broken."""
    return max((len(word) for part in _WHOLE.split(text) for word in _words(part)), default=1)


def _words(part: str) -> list[str]:
    return [part] if _WHOLE.fullmatch(part) else part.split()


def _side(texts: list[str]) -> str:
    """Return how a column is aligned, from its heading and texts."""
    return "raggedleft" if all(_NUMBER.fullmatch(text) for text in texts[1:]) else "raggedright"


_NUMBER = re.compile(r"[<>+−-]?[\d.,]+(e[+-]\d+)?|–|")
_TEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", " %": r"\,\%", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " ",
    "^-α": r"$^{-\alpha}$", "^-β": r"$^{-\beta}$",
    "<": "$<$", ">": "$>$", "|": "$|$",
    "→": r"$\to$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$",
    "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$", "∞": r"$\infty$", "Σ": r"$\Sigma$", "α": r"$\alpha$",
    "β": r"$\beta$", "ν": r"$\nu$", "χ": r"$\chi$", "²": r"$^2$", "₀": r"$_0$", "₁": r"$_1$", "₂": r"$_2$",
    "ε": r"$\varepsilon$", "–": "--", "—": "---", "…": r"\ldots{}", "\u2019": "'", "“": "``", "”": "''",
    "\u202f": "~", "\xa0": "~",
}  # fmt: skip
_WHOLE = re.compile(r"(\[[^\[\]]{,20}\]|\b[A-Za-z][A-Za-z0-9]{,9}(?:-[A-Za-z0-9]{,9}){,3}-\d+\b(?!-))")
"""Intervals and names that end with a number, which are not broken."""
_MARKUP = re.compile(
    r"(?P<power>(?<![\w.])[\d.]+e[+-]\d+)|(?P<minus>(?<![\w.])-(?=\d))|"
    + "|".join(map(re.escape, sorted(_TEX, key=len, reverse=True)))
)


def _tex(text: str) -> str:
    """Escape TeX markup; a letter missing from TeX's fonts becomes its code point."""
    parts = [_MARKUP.sub(_replaced, part) for part in _WHOLE.split(one_line(text))]
    parts[1::2] = [rf"\mbox{{{part}}}" for part in parts[1::2]]
    return "".join(letter if letter < "\u0180" else f"U+{ord(letter):04X}" for letter in "".join(parts))


def _replaced(match: re.Match[str]) -> str:
    """Return a power of ten, a minus sign or a letter as TeX prints it."""
    if match["power"]:
        factor, exponent = match["power"].split("e")
        return rf"${factor}\cdot10^{{{int(exponent)}}}$"
    return "$-$" if match["minus"] else _TEX[match[0]]
