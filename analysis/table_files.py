"""A table → CSV, Markdown and LaTeX (booktabs)."""

import re
from pathlib import Path

from analysis.tables import Table

_LINE = 14
"""Longest text, in characters, that stays on one line of a LaTeX table."""


def save(table: Table, folder: Path) -> None:
    """Writes ``<name>.csv``, ``.md`` and ``.tex`` into the folder."""
    table.frame.to_csv(folder / f"{table.name}.csv", index=False)
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """A pipe table under its title."""
    lines = [f"### {_md(table.title)}", "", _md(table.note), ""]
    if table.frame.empty:
        return "\n".join([*lines, "(nothing)", ""])
    header = [str(name) for name in table.frame.columns]
    lines += [_pipe(header), _pipe(["---"] * len(header))]
    return "\n".join([*lines, *(_pipe(row) for row in _rows(table)), ""])


def latex(table: Table) -> str:
    r"""A ``table`` environment in booktabs' style; needs ``\usepackage{array,booktabs,graphicx}``.

    Long texts are broken into lines. A table that is still wider than the line is shrunk to it, and none is
    blown up.
    """
    header = [_tex(str(name)) for name in table.frame.columns] or [""]
    return "\n".join([
        r"\begin{table}", r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_tex(table.title)}: {_tex(table.note)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{_columns(table)}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule",
        *(" & ".join(_tex(text) for text in row) + r" \\" for row in _rows(table)),
        r"\bottomrule", r"\end{tabular}}", r"\end{table}", "",
    ])  # fmt: skip


def _columns(table: Table) -> str:
    """One line for short texts; a column with longer ones gets wider and more lines the longer they are."""
    longest = [max(map(len, column), default=0) for column in zip(*_rows(table), strict=True)] or [0]
    broken = r">{\raggedright\arraybackslash}p{%.1fcm}"
    return "".join("l" if most <= _LINE else broken % (0.6 + 0.28 * most**0.5) for most in longest)


def _rows(table: Table) -> list[list[str]]:
    return [[str(value) for value in row] for row in table.frame.to_numpy().tolist()]


def _pipe(texts: list[str]) -> str:
    return "| " + " | ".join(map(_md, texts)) + " |"


def _md(text: str) -> str:
    """What Markdown would take for markup stands as it is."""
    return re.sub(r"([\\`*_<>\[\]|~])", r"\\\1", text).replace("\n", " ")


_TEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " ",
    "<": "$<$", ">": "$>$", "|": "$|$",
    "→": r"$\to$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$",
    "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$", "∞": r"$\infty$", "Σ": r"$\Sigma$", "α": r"$\alpha$",
    "β": r"$\beta$", "ν": r"$\nu$", "χ": r"$\chi$", "²": r"$^2$", "₀": r"$_0$", "–": "--", "—": "---",
    "…": r"\ldots{}", "\u2019": "'", "“": "``", "”": "''", "\u202f": "~", "\xa0": "~",
}  # fmt: skip
_TEX_MARKUP = re.compile("|".join(map(re.escape, _TEX)))


def _tex(text: str) -> str:
    """Escapes what TeX would take for markup; a letter that its fonts lack is named by its code point."""
    known = _TEX_MARKUP.sub(lambda match: _TEX[match[0]], text)
    return "".join(each if each < "\u0180" else f"U+{ord(each):04X}" for each in known)
