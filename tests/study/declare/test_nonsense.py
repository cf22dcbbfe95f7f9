"""Nonsense is refused with the reason, unusual values are warned about, and errors are bounded."""

import io
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.live import Live
from rich.table import Table
from rich.text import Text

from budgets.declaration.keys import unusual
from budgets.declaration.marked_file import DeclarationError
from budgets.names import neutral_cell, printable
from runners.host.faults import format_error
from study.cli import main
from study.commands.command import show
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from study.show.progress import Progress
from study.show.terminal import PlainConsole
from study.show.view import level_table
from study.state.running import Level
from tests.study.declared import FULL, changed, full, places, problems, write


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mini-ViT-XXS-8: 2e-3", "mini-ViT-XXS-8: 1e308", "at most 10: a step of Adam moves each weight"),
        ("weight_decay: 0.1", "weight_decay: 1e300", "at most 1,000: it is multiplied by the learning rate"),
        ("eps: 1e-6", "eps: 1e300", "at most 1: 32-bit floats"),
        ("eps: 1e-6", "eps: 1e-300", "'1e-300' must be 1e-37 or more"),
        ("gradient_clip: 1.0", "gradient_clip: 1e-300", "a smaller norm stops the training"),
        ("retries: 1", "retries: 1e15", "at most 1,000: each one starts the trial again"),
        ("retries: 1", "backoff: 1e26", "each further retry waits four times as long"),
        ("checkpoint: 2 min", "checkpoint: 1e290 d", "longer than a year"),
        ("cpus: 2, gpus: 1", "cpus: 1000000", "cpus = 1,000,000 on resources.nodes = 1: no node has so many"),
        ("[20%, 50%]", "[40%, 10%]", "cluster.utilisation: the lowest comes first, found 0.4 before 0.1"),
        ("study: full", "study: full\nstorage: /", "'/' is the top of the file system"),
        ("study: full", "study: full\nstorage: https://a.b/c", "can't be written to: https:// is read-only"),
        ("metric: imagenet/top1", "metric: imagnet/top1",
         "metric: unknown evaluation set 'imagnet'; did you"),
        ("price_per_hour: 2.5", "price_per_hour: 1e300", "at most 1,000,000,000"),
        ("precision: bf16", "diverged_after: false", "34: training.diverged_after: 'false'"),
        ("gradient_clip: 1.0", "gradient_clip: null", "write off"),
        ("images: 5k", "images: ١٢", "6: evaluation.imagenet.images: '١٢' is not a number"),
        ("images: 5k", "images: 1__0", "6: evaluation.imagenet.images: '1__0' is not a number"),
        ("images: 5k", "images: 0", "6: evaluation.imagenet.images: '0' must be more than 0"),
        ("confidence: 95%", "confidence: 0", "44: design.confidence: '0' must be more than 0, below 1"),
        ("study: full", "study: full\nstorage: /proc/x", "3: storage: '/proc/x' can't be written to"),
        ("study: full", "study: full\nstorage: s3://b/../x", "3: storage: 's3://b/../x': a URL has no ."),
    ],
)  # fmt: skip
def test_a_value_that_no_one_can_mean_is_refused_with_the_reason(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    found = problems(tmp_path, changed(old, new))
    assert any(message in line for line in found), found


def test_unusual_values_are_warned_about(tmp_path: Path) -> None:
    text = FULL.replace("mini-RN: 1e-3}", "mini-RN: 5}").replace("weight_decay: 0.1", "weight_decay: 10")
    text = text.replace("eps: 1e-6", "eps: 1e-6\n  unmasked_tail: 99.99%").replace(
        "retries: 1", "retries: 500"
    )
    assert list(unusual(load_declaration(write(tmp_path, FULL)))) == []
    assert list(unusual(load_declaration(write(tmp_path, text)))) == [
        "training.lr_peak.mini-RN = 5 is unusual: 1e-07 to 0.1 is common",
        "training.weight_decay = 10 is unusual: 0 to 2 is common",
        "training.unmasked_tail = 0.9999 is unusual: 0 to 0.5 is common",
        "resources.retries = 500 is unusual: 0 to 30 is common",
    ]


def test_no_message_repeats_a_very_long_value_or_key(tmp_path: Path) -> None:
    long = "x" * 5000
    for place in places(full()):
        for key in (False, True):
            content: Any = full()
            *way, last = place
            around = reduce(lambda inside, each: inside[each], way, content)
            if key and isinstance(around, dict):
                around[long] = around.pop(last)
            else:
                around[last] = long
            path, said = write(tmp_path, yaml.safe_dump(content)), ""
            try:
                load_declaration(path)
            except DeclarationError as error:
                said = str(error)
            assert "x" * 201 not in said, place


@pytest.mark.slow
def test_of_many_errors_the_first_twenty_and_a_count_are_given(tmp_path: Path) -> None:
    text = FULL + "".join(f"key{number}: x\n" for number in range(50_000))
    found = problems(tmp_path, text)
    assert len(found) == 21
    first = len(FULL.splitlines()) + 1
    assert [int(line.split(":")[0]) for line in found[:20]] == list(range(first, first + 20))
    assert "unknown key 'key0'" in found[0]
    assert found[20] == "and 49,980 more errors"


def test_aliases_that_repeat_each_other_without_end_are_refused(tmp_path: Path) -> None:
    lines = [f"k{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12)]
    (found,) = problems(tmp_path, "".join(["study: &l0 [x, x]\n", *lines]))
    assert found.endswith("its aliases (*NAME) repeat too many values")


def test_a_file_too_large_for_a_declaration_is_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, FULL + "#" * 4_000_000)
    assert found.endswith("larger than 4 MB, the limit for a declaration")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("recommend x --flops 1e18 --pairs 10M --limit nan", "'nan' must be a number from 1 to"),
        ("calibrate x --seconds nan", "'nan' must be a number from 1 to"),
        ("data score pool --workers -1", "'-1' must be a whole number from 1 to 65,536"),
        ("data score pool --with a:b --batch-size 0", "'0' must be a whole number from 1 to 65,536"),
        ("evaluate x --std 0 0 0", "'0' must be a number from 0.001 to 10"),
        ("stop x --within nan", "'nan' must be a number from 1 to 604,800"),
        ("plan x --format csv --output /dev/null", "'/dev/null' exists and is not a plain file"),
        ("evaluate x --csv /dev/null", "'/dev/null' exists and is not a plain file"),
    ],
)
def test_options_out_of_bounds_are_problems(
    capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_passwords_of_urls_are_neither_printed_nor_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
study: away
storage: ftp://me:hush@127.0.0.1:9/clip
pool: {embedded: {pairs: 4096}}
budget: {levels: [10 GFLOP]}
grid: [{architectures: [mini-ViT-XXS-8]}]
training: {lr_peak: {mini-ViT-XXS-8: 1e-3}}
"""
    declaration = load_declaration(write(tmp_path, text))
    assert declaration.storage == "ftp://me:hush@127.0.0.1:9/clip"
    assert "storage: ftp://me@127.0.0.1:9/clip\n" in dump_declaration(declaration)
    assert (
        format_error(OSError("ftp://me:hush@127.0.0.1:9 is away")) == "OSError: ftp://me@127.0.0.1:9 is away"
    )

    assert main(["run", str(write(tmp_path, text)), "--results", str(tmp_path)]) == 2
    assert "hush" not in (said := capsys.readouterr().err)
    assert "ftp://me@127.0.0.1:9" in said


def test_cells_of_tables_run_no_formula_and_errors_no_escape_code(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["=1+1", "+cmd", "-2+3", "@x", "-0.5", "+3 %", "clip", 7, None]
    assert list(map(neutral_cell, texts)) == [
        "'=1+1", "'+cmd", "'-2+3", "'@x", "-0.5", "+3 %", "clip", 7, None
    ]  # fmt: skip
    assert neutral_cell("a\x1b[2J") == "a\\x1b[2J"
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\nc"
    assert main(["plan", "x\x1b[2J.yaml"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ['"a\\e[2J"', '"a\\nb"', '"a\\u202eb"', "|\n  a\n  b\n"])
@pytest.mark.parametrize("key", ["study", "metric", "grid"])
def test_a_declaration_has_no_control_characters(tmp_path: Path, key: str, name: str) -> None:
    with pytest.raises(DeclarationError, match=r"yaml:1: '.*' has line breaks or control characters"):
        load_declaration(write(tmp_path, f"{key}: {name}\n"))


@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_tables_and_views_write_the_escape_codes_of_names_out(
    where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "name\x1b[2J\x9b3J[/x]:smile:"
    console = PlainConsole(file=io.StringIO(), force_terminal=where == "terminal", width=60)
    table = Table("Set", box=None)
    table.add_row(evil)
    console.print(level_table([Level(name=evil, done=1, running=0, failed=0, waiting=0)], console))
    console.print(table, Text(evil), evil)
    with Progress("held-out/top1", console) as progress:
        progress.say(evil)
    with Live(Text(evil), console=console, auto_refresh=False) as live:
        live.refresh()
    show(evil)
    for message in (console.file.getvalue(), capsys.readouterr().out):  # type: ignore[attr-defined]
        assert "name\\x1b[2J\\x9b3J[/x]:smile:" in message
        assert "\x1b[2J" not in message
        assert "\x9b" not in message
