"""Commands shown in the documentation, for tests that run them."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from analysis.report import paper
from study.cli import main
from tests.root import ROOT

PAGES = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))


def commands(page: str) -> list[str]:
    """Return the arguments of each ``python -m study`` command on a page, without comments.

    Args:
        page: Its path from the root of the checkout.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^(?:    )?python -m study (.+)$", text, re.MULTILINE)
    return [line.partition("  #")[0].rstrip() for line in lines]


def follow(page: str, smaller: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Do what a page says, in its order: run Python, write declarations, run commands.

    Args:
        page: As above.
        smaller: Changes the text of a declaration into one that takes seconds.
        capsys: Reads what the commands print.

    Returns:
        The output of each command, by its arguments.
    """
    said = {}
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, block in re.findall(r"^```(\w*)\n(.+?)^```", text, re.MULTILINE | re.DOTALL):
        if kind == "python":
            exec(block, {})  # noqa: S102 (our own page)
        elif kind == "yaml":
            Path(f"{yaml.safe_load(block)['study']}.yaml").write_text(smaller(block), encoding="utf-8")
        for line in re.findall(r"^python -m study (.+?)(?: +#.*| > .*)?$", block, re.MULTILINE):
            words = [
                name for word in shlex.split(line) for name in sorted(map(str, Path().glob(word))) or [word]
            ]
            # Without Ray, whose start takes longer than these trials; the other tests have it.
            extra = {"run": ["--backend", "local"], "calibrate": ["--seconds", "1"]}.get(words[0], [])
            code = main([*words, *extra])
            out, err = capsys.readouterr()
            assert code == 0, line + out + err
            said[line] = out
            if words[0] == "new":
                new = Path(f"{words[1]}.yaml")
                new.write_text(smaller(new.read_text(encoding="utf-8")), encoding="utf-8")
    return said


def draw_two_paper_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``report --paper`` draw two of its figures; tests/paper draws all."""
    monkeypatch.setattr(paper, "_FIGURES", paper._FIGURES[:2])  # noqa: SLF001 - the tests' own choice
