"""Files of a report: tables as CSV, Markdown and LaTeX (booktabs), and the folder that is replaced."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import ceil, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap

from analysis.report.tables import Table
from budgets.names import neutral_cell, one_line

_LINE = 20
"""Longest text, in characters, that stays on one line."""
_LETTER_CM = 0.17
_LONGEST_WORD = 24
_RAGGED = 1.15
"""Factor by which line breaks between words lengthen a text."""
_MOST_COLUMNS = 10
_LINE_WIDTH_CM = 12.1
_PAGE_LINES, _SHRUNK = 44, 1.25
"""Lines of small print per page, and the largest factor by which shrinking a table raises that number."""


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
    r"""Return ``table`` environments in booktabs style; they need ``\usepackage{array,booktabs,graphicx}``.

    Long texts and headings are broken into lines, and numbers are right-aligned. A table of many columns is
    narrowed: columns that are equal in all rows move to the caption, and a single row is transposed. A table
    that is still wider than the line is shrunk to it. ``longtable`` cannot be shrunk, so long tables are
    split into pages here.
    """
    columns = {
        str(name): [_one_unit(str(value)) for value in table.frame[name]] for name in table.frame.columns
    }
    caption = f"{table.title}: {table.note}".rstrip(".")
    if len(columns) > _MOST_COLUMNS and len(table.frame) > 1:
        shared = {name: texts[0] for name, texts in columns.items() if len(set(texts)) == 1}
        if shared:
            caption += f". In all rows: {'; '.join(f'{name} {text}' for name, text in shared.items())}"
        columns = {name: texts for name, texts in columns.items() if name not in shared}
    elif len(columns) > _MOST_COLUMNS and len(table.frame):
        columns = {"": list(columns), " ": [texts[0] or "–" for texts in columns.values()]}
    elif not table.frame.size:
        columns = {"": ["(nothing)"]}
    form = "".join(_column(texts) for texts in columns.values())
    header = " & ".join(_heading(name, texts) for name, texts in columns.items() if name.strip())
    space = r"\addlinespace[2pt]" if "p{" in form else ""
    rows = [" & ".join(map(_tex, row)) + r" \\" + space for row in zip(*columns.values(), strict=True)]
    parts: list[list[str]] = []
    for row, page in zip(rows, _pages(columns), strict=True):
        parts += [[]] if page == len(parts) else []
        parts[-1].append(row)
    first = _part(parts[0], form, header, _tex(caption))
    more = [_part(part, form, header, _tex(f"{table.title}, continued")) for part in parts[1:]]
    return "\\addtocounter{table}{-1}\n".join([first, *more])


def _part(rows: list[str], form: str, header: str, caption: str) -> str:
    return "\n".join([
        r"\begin{table}", r"\centering\small\setlength{\tabcolsep}{3pt}", rf"\caption{{{caption}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{form}}}", r"\toprule", *([header + r" \\", r"\midrule"] if header else []),
        *rows, r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ])  # fmt: skip


def _one_unit(text: str) -> str:
    """Return an interval with its unit once: ``[7.92 MFLOP, 12.8 MFLOP]`` → ``[7.92, 12.8] MFLOP``."""
    return re.sub(r"^\[([\d.,]+) (\w+), ([\d.,]+) \2\]$", r"[\1, \3] \2", text)


def _column(texts: list[str]) -> str:
    """Return a column type: right-aligned numbers, one-line short texts, or wrapped longer texts."""
    if all(_NUMBER.fullmatch(text) for text in texts):
        return "r"
    wide = _broken_cm(texts)
    return "l" if wide is None else rf">{{\raggedright\arraybackslash}}p{{{wide:.1f}cm}}"


def _broken_cm(texts: list[str]) -> float | None:
    """Return the width of a column of wrapped texts; None if each fits on one line."""
    most = max(map(len, texts), default=0)
    if most <= _LINE or all(text.startswith("[") or text in _NOTHING for text in texts):
        return None
    word = max(len(word) for text in texts for word in text.split() or [""])
    return max(0.6 + 0.28 * sqrt(most), _LETTER_CM * min(word, _LONGEST_WORD))


def _pages(columns: dict[str, list[str]]) -> list[int]:
    """Return the page of each row, from an estimate of the lines of all rows up to it."""
    broken = [_broken_cm(texts) for texts in columns.values()]
    single = [_LETTER_CM * max(map(len, texts), default=0) for texts in columns.values()]
    widths = [of_one if of_many is None else of_many for of_one, of_many in zip(single, broken, strict=True)]
    shrunk = sum(width + 2 * _LETTER_CM for width in widths) / _LINE_WIDTH_CM
    lines = _PAGE_LINES * min(max(1.0, shrunk), _SHRUNK)
    pages, used = [0], 0.0
    for row in zip(*columns.values(), strict=True):
        high = max(
            1 if many is None else ceil(_RAGGED * _LETTER_CM * len(text) / many)
            for text, many in zip(row, broken, strict=True)
        )
        turn = used + high > lines
        pages.append(pages[-1] + turn)
        used = high if turn else used + high
    return pages[1:]


def _heading(name: str, texts: list[str]) -> str:
    """Return a heading, broken into lines if its column is narrower."""
    width = max([*map(len, texts), *map(len, name.split())], default=0)
    lines = wrap(name, max(width, 1), break_long_words=False, break_on_hyphens=False)
    side = "r" if _column(texts) == "r" else "l"
    stacked = r"\\".join(map(_tex, lines))
    return stacked if len(lines) <= 1 else rf"\shortstack[{side}]{{{stacked}}}"


_NOTHING = ("", "–")
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
_MARKUP = re.compile(
    r"(?P<power>(?<![\w.])[\d.]+e[+-]\d+)|(?P<minus>(?<![\w.])-(?=\d))|(?P<name>\b[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*-\d+\b)|"
    + "|".join(map(re.escape, sorted(_TEX, key=len, reverse=True)))
)


def _tex(text: str) -> str:
    """Escape TeX markup; a letter missing from TeX's fonts becomes its code point."""
    known = _MARKUP.sub(_replaced, one_line(text))
    return "".join(each if each < "\u0180" else f"U+{ord(each):04X}" for each in known)


def _replaced(match: re.Match[str]) -> str:
    """Return a power of ten, a minus sign or an unbreakable name as TeX prints it."""
    if match["power"]:
        factor, exponent = match["power"].split("e")
        return rf"${factor}\cdot10^{{{int(exponent)}}}$"
    if match["minus"]:
        return "$-$"
    if match["name"]:
        return rf"\mbox{{{match[0]}}}" if len(match[0]) <= _LINE else match[0]
    return _TEX[match[0]]
