"""docs/watching.md: its commands run, and its table lists every event that is written."""

import ast
import shlex
from pathlib import Path

import pytest

import study
from study.cli import main
from tests.study import shown
from tests.study.events import documented, require_documented
from tests.study.tiny_study import write_declaration

COMMANDS = shown.commands("docs/watching.md")


def written() -> set[str]:
    """Return the names of events in the code."""
    names = set()
    for path in Path(study.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = [node.func, *node.args] if isinstance(node, ast.Call) else []
            if {"add_event", "self.event"} & set(map(ast.unparse, called)):
                names |= {str(each.value) for each in called if isinstance(each, ast.Constant)}
    return names


def test_every_event_is_documented_with_its_fields() -> None:
    assert {"trial-started", "node-left-out"} <= written() <= set(documented())


@pytest.mark.slow
def test_documented_commands_run_verbatim(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_declaration(tmp_path, pool, name="my-study")
    for command in COMMANDS:
        words = [str(tmp_path / word) if word.endswith(".yaml") else word for word in shlex.split(command)]
        words += ["--backend", "local"] if words[0] == "run" else []

        assert main([*words, "--results", str(tmp_path)]) == 0, command

        said = capsys.readouterr().out
        if "--quiet" in words:
            assert all(line.startswith("note: ") for line in said.splitlines())
    assert len(COMMANDS) == 5
    require_documented(tmp_path / "my-study" / "events.jsonl")
