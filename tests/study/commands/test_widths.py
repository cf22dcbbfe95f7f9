"""What the commands print fits a terminal of 80 columns, with every word and every number whole."""

import io
import shutil
import sys
from pathlib import Path

import pytest

from study.commands.command import show
from study.show.terminal import PlainConsole, table_lines, text_lines, wrapped
from tests.root import ROOT
from tests.study.conftest import Run

ROWS = [
    {"level": "1 TFLOP", "architecture": "ViT-S", "seeds": "0 1", "pairs": "10M … 3.4B", "steps": "7"},
    {"level": "1 TFLOP", "architecture": "ViT-B", "seeds": "0 1", "pairs": "25M", "steps": "1,000"},
    {"level": "3 TFLOP", "architecture": "ViT-B", "seeds": "0 1", "pairs": "25M", "steps": "3,000"},
]


@pytest.mark.parametrize(
    ("width", "table"),
    [
        (
            "80",
            """\
every row: seeds 0 1
architecture       pairs  steps
1 TFLOP
ViT-S         10M … 3.4B      7
ViT-B                25M  1,000
3 TFLOP
ViT-B                25M  3,000""",
        ),
        (
            "24",
            """\
every row: seeds 0 1
architecture       pairs
1 TFLOP
ViT-S         10M … 3.4B
ViT-B                25M
3 TFLOP
ViT-B                25M
columns hidden at 24
  characters: steps""",
        ),
        (
            "23",
            """\
every row: seeds 0 1
architecture
1 TFLOP
ViT-S
ViT-B
3 TFLOP
ViT-B
columns hidden at 23
  characters: pairs,
  steps""",
        ),
    ],
)
def test_a_table_leaves_out_what_is_spare_and_breaks_no_number(
    width: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    lines = table_lines(ROWS, words=("architecture",), group="level", spare=("steps", "pairs"))
    assert "\n".join(lines) == table


def test_a_line_is_wrapped_between_words_and_a_number_keeps_its_unit_and_interval() -> None:
    line = "  1.8 TFLOP: mini-ViT-XS-8, FLIP (50 %), all: error 57.2 % [55.8, 58.8], tie of 2"
    assert wrapped(line, 0) == [line]
    assert wrapped(line, 60) == [
        "  1.8 TFLOP: mini-ViT-XS-8, FLIP (50 %), all: error 57.2 %",
        "    [55.8, 58.8], tie of 2",
    ]
    assert wrapped(line, 55)[1] == "    error 57.2 % [55.8, 58.8], tie of 2"


def test_the_lines_of_one_message_are_wrapped_apart() -> None:
    console = PlainConsole(file=io.StringIO(), force_terminal=True, width=12)
    assert [str(text) for text in text_lines(["a: one of\n  two or three"], console)] == [
        "a: one of", "  two or", "    three",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_the_number_of_an_answer_is_bold_on_a_terminal_alone(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, written = where == "terminal", io.StringIO()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "200")
    console = PlainConsole(file=written, force_terminal=terminal, width=200)
    line = "1 TFLOP: ViT-S, CLIP, 1M pairs, all: predicted error 57.2 % [55.8, 58.8], tie of 2"
    show(line)
    console.print(*text_lines([line], console))
    shown = line.replace("57.2 %", "\x1b[1m57.2 %\x1b[0m") if terminal else line
    assert [capsys.readouterr().out, written.getvalue()] == [f"{shown}\n"] * 2


UNCLEAR = ("leaders' parts", "were not run", "bracket", "floor ended", "without the whole", "told apart;")


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_all_that_the_commands_print_fits_eighty_columns(
    run: Run, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    for name in ("small", "open-clip-scaling"):
        ignored = shutil.ignore_patterns("report")
        shutil.copytree(ROOT / "results" / name, tmp_path / "results" / name, ignore=ignored)
    for words in (
        "new first", "plan small", "plan paper", "plan paper --explain 'ViT-B-32 slip one-epoch 10M'",
        "plan first.yaml", "status small --why", "report small --why", "report open-clip-scaling --why",
        "recommend small --flops 5.4e12 --pairs 32768", f"data info {pool} --workers 1",
        "recommend --prior open-clip-scaling --flops 1e20 --pairs 1B --why", "run small --dry-run",
    ):  # fmt: skip
        said = run(words)
        assert [text for text in UNCLEAR if text in " ".join(said.split())] == [], words
        # A path is one word, however long it is.
        assert [line for line in said.splitlines() if len(line) > 80 and " " in line.strip()] == [], words
