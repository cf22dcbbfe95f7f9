"""The schema of ``events.jsonl``, read from docs/watching.md, and events of a test."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from runners.results import event_line
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
        fields = set(event) - {"time", "event", "at", "digest"}
        assert must <= fields <= must | may, f"{line} is not as docs/watching.md has it"


def write_events(path: Path, events: Iterable[Mapping[str, object]]) -> None:
    """Write events as a run would; those that were read from a file lose their place there."""
    content = b""
    for event in events:
        facts = {name: value for name, value in event.items() if name not in {"at", "digest"}}
        content += event_line(facts, len(content))
    path.write_bytes(content)
