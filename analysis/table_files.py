"""A table → CSV, Markdown and LaTeX (booktabs)."""

import re
from pathlib import Path

from analysis.tables import Table


def save(table: Table, folder: Path) -> None:
    """Writes ``<name>.csv``, ``.md`` and ``.tex`` into the folder."""
    table.frame.to_csv(folder / f"{table.name}.csv", index=False)
    (folder / f"{table.name}.md").write_text(markdown(table), encoding="utf-8")
    (folder / f"{table.name}.tex").write_text(latex(table), encoding="utf-8")


def markdown(table: Table) -> str:
    """A pipe table under its title."""
    lines = [f"### {table.title}", "", table.note, ""]
    if table.frame.empty:
        return "\n".join([*lines, "(nothing)", ""])
    header = [str(name) for name in table.frame.columns]
    lines += [_pipe(header), _pipe(["---"] * len(header))]
    return "\n".join([*lines, *(_pipe(row) for row in _rows(table)), ""])


def latex(table: Table) -> str:
    r"""A ``table`` environment in booktabs' style; needs ``\usepackage{booktabs}``."""
    header = [_tex(str(name)) for name in table.frame.columns] or [""]
    return "\n".join([
        r"\begin{table}", r"\centering\small", rf"\caption{{{_tex(table.title)}: {_tex(table.note)}}}",
        rf"\begin{{tabular}}{{{'l' * len(header)}}}", r"\toprule", " & ".join(header) + r" \\", r"\midrule",
        *(" & ".join(_tex(text) for text in row) + r" \\" for row in _rows(table)),
        r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def _rows(table: Table) -> list[list[str]]:
    return [[str(value) for value in row] for row in table.frame.to_numpy().tolist()]


def _pipe(texts: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


_TEX: dict[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "→": r"$\to$", "−": "$-$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "α": r"$\alpha$", "Σ": r"$\Sigma$", "²": r"$^2$",
    "·": r"$\cdot$", "–": "--", "₀": r"$_0$", "×": r"$\times$", "√": r"$\surd$",
}  # fmt: skip


def _tex(text: str) -> str:
    return re.sub("|".join(map(re.escape, _TEX)), lambda match: _TEX[match[0]], text)
