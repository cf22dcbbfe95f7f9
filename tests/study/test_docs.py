"""README and docs/: the commands run, links lead somewhere, constants are those of the code."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from tests.study import shown

README = (shown.ROOT / "README.md").read_text(encoding="utf-8")
METHOD = (shown.ROOT / "docs" / "method.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", shown.PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("page", shown.PAGES, ids=lambda page: page.name)
def test_every_link_within_a_page_leads_to_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", each).strip().lower().replace(" ", "-")
        for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings


def test_the_constants_of_the_method_are_those_of_the_code() -> None:
    found = re.findall(r"^\| `([a-z_.]+)\.([A-Z_]+)` \| (.+) \|$", METHOD, re.MULTILINE)
    assert len(found) == 11
    for module, name, value in found:
        assert str(getattr(import_module(module), name)) == value, f"{module}.{name}"


def test_the_citation_is_whole() -> None:
    citation = yaml.safe_load((shown.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f'version = "{citation["version"]}"' in (shown.ROOT / "pyproject.toml").read_text()
    assert citation["references"][0]["title"].startswith("Scaling (Down) CLIP")
