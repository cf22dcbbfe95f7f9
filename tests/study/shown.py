"""Commands shown in the documentation, for tests that run them."""

import re

import pytest

from analysis.report import paper
from tests.root import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))


def commands(page: str) -> list[str]:
    """Return the arguments of each ``python -m study`` command on a page, without comments.

    Args:
        page: Its path from the root of the checkout.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^(?:    )?python -m study (.+)$", text, re.MULTILINE)
    return [line.partition("  #")[0].rstrip() for line in lines]


def draw_two_paper_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``report --paper`` draw two of its figures; tests/paper draws all."""
    monkeypatch.setattr(paper, "_FIGURES", paper._FIGURES[:2])  # noqa: SLF001 - the tests' own choice
