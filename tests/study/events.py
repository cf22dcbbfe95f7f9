"""The schema of ``events.jsonl``, read from docs/watching.md."""

import json
import re
from pathlib import Path

from tests.root import ROOT

DOCS = ROOT / "docs" / "watching.md"


def documented() -> dict[str, tuple[set[str], set[str]]]:
    """Return, by event, the required and the optional fields."""
    schema = {}
    text = DOCS.read_text(encoding="utf-8")
    for name, fields in re.findall(r"^\| `([a-z-]+)` \|([^|]*)\|", text, re.MULTILINE):
        found = re.findall(r"`(\w+)`(\??)", fields)
        may = {field for field, mark in found if mark}
        schema[name] = {field for field, _ in found} - may, may
    return schema


def require_documented(path: Path) -> None:
    """Check every line of a study's events against the schema."""
    schema = documented()
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        must, may = schema[event["event"]]
        fields = set(event) - {"time", "event"}
        assert must <= fields <= must | may, f"{line} is not as docs/watching.md has it"
