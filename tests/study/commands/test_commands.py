"""Every command has the same interface, examples in its help, and a fast start."""

import argparse
import io
import pkgutil
import shlex
import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from study import cli, commands
from study.cli import main, make_parser
from study.commands import completion, pools
from study.commands.command import show
from study.commands.pools import data
from tests.root import ROOT
from tests.study.conftest import Run
from tests.study.tiny_study import TinyStudy

HEAVY = {"torch", "ray", "pandas", "numpy", "scipy", "rich", "yaml"}


ALL = {parser.prog: parser for _, parser in completion.walk(make_parser())}


def test_every_command_module_has_the_same_interface() -> None:
    found = {
        f"{package.__name__}.{each.name}"
        for package in (commands, pools)
        for each in pkgutil.iter_modules(package.__path__)
    } - {"study.commands.command", "study.commands.pools"}

    listed = (*cli.COMMANDS, *data.COMMANDS)

    assert {each.__name__ for each in listed} == found  # type: ignore[attr-defined]
    assert len(found) == 20
    for module in map(import_module, found):
        own = {name for name in vars(module) if name in {"NAME", "HELP", "EXAMPLES", "add_options", "run"}}
        assert own == {"NAME", "HELP", "EXAMPLES", "add_options", "run"}, module.__name__
        assert len(signature(module.run).parameters) == len(signature(module.add_options).parameters) == 1
        assert module.HELP[0].islower()
        assert not module.HELP.endswith(".")


@pytest.mark.parametrize("prog", ALL)
def test_every_help_ends_with_valid_examples(prog: str) -> None:
    _, _, examples = ALL[prog].format_help().partition("\nexamples:\n")

    lines = [line.removeprefix("  python -m study ") for line in examples.splitlines()]

    assert lines
    for line in lines:
        assert make_parser().parse_args(shlex.split(line.partition(" >")[0])).command


def test_help_and_parser_need_no_library() -> None:
    asked = "import sys; from study.cli import make_parser; make_parser().format_help(); print(*sys.modules)"
    assert not HEAVY & set(said(asked).split())


@pytest.mark.slow
@pytest.mark.parametrize("words", ["plan small", "report small"])
def test_plan_and_report_need_neither_torch_nor_ray(tmp_path: Path, words: str) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "small").symlink_to(ROOT / "results" / "small")
    asked = (
        "import sys; from study import cli; from study.show import study_report; "
        "study_report.write_report = lambda *_, **__: sys.exit(print(*sys.modules)); "
        f"cli.main({[*words.split(), '--results', str(results)]}); print(*sys.modules)"
    )
    assert not {"torch", "ray"} & set(said(asked).splitlines()[-1].split())


@pytest.mark.slow
def test_a_script_that_runs_a_study_needs_no_torch_and_no_guard(tiny: TinyStudy) -> None:
    words = ["run", str(tiny.declaration), "--results", str(tiny.place), "--backend", "local"]
    script = tiny.place / "script.py"
    script.write_text(
        f"import sys; print('begun'); from study import cli; cli.main({words}); print(*sys.modules)"
    )

    found = said(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")

    assert found.count("begun") == 1, "its processes do not run it again"
    assert "[1/1] mini-ViT-XXS-8 clip on 512 pairs" in found
    assert not {"torch", "open_clip", "timm", "ray"} & set(found.splitlines()[-1].split())


def said(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_output_in_an_encoding_without_all_characters_writes_the_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", output)
    monkeypatch.setattr("study.commands.new.run", lambda _options: show("2 × 3 …"))
    main(["new", "first"])
    output.seek(0)
    assert output.read() == "2 × 3 \\u2026\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run: run demo", "interrupted; finished work is kept"),
        ("pools.pool_score: data score p --with =a", "interrupted; finished work is kept"),
        ("pools.pool_info: data info p", "interrupted\n"),
        ("status: status demo", "interrupted\n"),
        ("status: status demo --watch", "no longer watching; a run goes on"),
    ],
)
def test_an_interrupted_command_says_how_to_continue_what_it_keeps_and_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, run: Run, command: str, said: str
) -> None:
    def interrupted(_options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    module, _, words = command.partition(": ")
    monkeypatch.setattr(f"study.commands.{module}.run", interrupted)
    assert run(words, code=130).startswith(f"study: {said}")
