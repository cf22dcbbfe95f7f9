"""Hooks of mkdocs.yml: pages of the root become pages of the site; links to source files become text."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "dev/contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    for source, page in _PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Point links at pages of the site; keep only the text of a link to any other file of the project."""
    uri = page.file.src_uri
    source = next((name for name, target in _PAGES.items() if target == uri), f"docs/{uri}")

    def rewritten(link: re.Match[str]) -> str:
        label, path, anchor = link.groups()
        if "://" in path:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (target in _PAGES or target.startswith("docs/")):
            return label.strip("[]")
        target = _PAGES.get(target, target.removeprefix("docs/"))
        return f"{label}({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{anchor or ''})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)\s]*)?\)", rewritten, markdown)
