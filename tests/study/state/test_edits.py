"""Edits of a finished study's files: each command gives the right answer, or names a file and exits with 2.

The seeds of the tests decide on files, edits and commands. With `EDITS=400` in the environment, that many are
tried, each with all commands.
"""

import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.cli import main
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow

COMMANDS = ("status", "plan", "report", "recommend", "compare", "export", "run")
_MOST_S = 300
_VALUES: tuple[Any, ...] = (None, -1, 0.99, 1e308, np.nan, np.inf, "x", "\x1b[31m\n", [], {}, True)

Edit = Callable[[random.Random, Path, Path], None]
"""Random numbers, the file, another study's file of the same name or another file → edits the file."""


def _table(change: Callable[[random.Random, pa.Table], pa.Table]) -> Edit:
    def edit(chance: random.Random, path: Path, _other: Path) -> None:
        table = pq.read_table(path)
        changed = change(chance, table)
        kept = chance.choice([table.schema.metadata, changed.schema.metadata, {}])
        pq.write_table(changed.replace_schema_metadata(kept), path)

    return edit


def _cell(chance: random.Random, table: pa.Table) -> pa.Table:
    """Change a value of a column, or all of them."""
    frame = table.to_pandas()
    column = str(chance.choice([*frame.select_dtypes("number").columns, *frame.columns]))
    numeric = pd.api.types.is_numeric_dtype(frame[column])
    value = chance.choice([0.99, -1.0, np.nan, np.inf, 1e30] if numeric else ["x", "", "\x1b[31m", "2\n3"])
    values = frame[column].astype(np.float64 if numeric else object).tolist()
    frame[column] = [value] * len(values) if chance.random() < 0.5 else [value, *values[1:]][: len(values)]
    return pa.Table.from_pandas(frame, preserve_index=False)


def _schema_version(chance: random.Random, table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(
        {**table.schema.metadata, b"schema_version": chance.choice([b"2", b"0", b""])}
    )


TABLE_EDITS: dict[str, Edit] = {
    "cell": _table(_cell),
    "rows": _table(lambda chance, table: table.slice(chance.choice([0, 1]), max(0, len(table) - 1))),
    "duplicate": _table(lambda _, table: pa.concat_tables([table, table.slice(0, 1)])),
    "column": _table(lambda chance, table: table.drop([chance.choice(table.column_names)])),
    "version": _table(_schema_version),
    "pandas": lambda _chance, path, _other: pq.read_table(path).to_pandas().to_parquet(path),
}


def _places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    """Yield the path of keys of each value in JSON."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content if isinstance(content, list) else ())
    )
    for key, value in inside:
        yield (*at, key)
        yield from _places(value, (*at, key))


def _changed(chance: random.Random, content: Any) -> Any:  # noqa: ANN401 - JSON
    """Return JSON in which a value is another one, or is gone."""
    *way, last = chance.choice([*_places(content)])
    inside = content
    for key in way:
        inside = inside[key]
    if chance.random() < 0.3:
        del inside[last]
    else:
        inside[last] = chance.choice(_VALUES)
    return content


def _json(chance: random.Random, path: Path, _other: Path) -> None:
    path.write_text(json.dumps(_changed(chance, json.loads(path.read_text()))))


def _line(chance: random.Random, path: Path, _other: Path) -> None:
    lines = path.read_text().splitlines()
    at = chance.randrange(len(lines))
    lines[at] = chance.choice(
        [
            json.dumps(_changed(chance, json.loads(lines[at]))),
            '{"time": "x"}',
            "[]",
            "[" * 100_000,
            "{}",
            f"{lines[at]}\n{lines[at]}",
        ]
    )
    path.write_text("".join(f"{line}\n" for line in lines))


def _bytes(change: Callable[[random.Random, bytes], bytes]) -> Edit:
    def edit(chance: random.Random, path: Path, _other: Path) -> None:
        path.write_bytes(change(chance, path.read_bytes()))

    return edit


def _replaced(make: Callable[[Path], object]) -> Edit:
    def edit(_chance: random.Random, path: Path, _other: Path) -> None:
        path.unlink()
        make(path)

    return edit


def _flipped(chance: random.Random, content: bytes) -> bytes:
    at = chance.randrange(max(1, len(content)))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def _swap(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


BYTE_EDITS: dict[str, Edit] = {
    "flip": _bytes(_flipped),
    "cut": _bytes(lambda chance, content: content[: chance.randrange(max(1, len(content)))]),
    "garbage": _bytes(lambda chance, _: chance.randbytes(200)),
    "brackets": _bytes(lambda _chance, _content: b"[" * 100_000),
    "empty": _bytes(lambda _chance, _content: b""),
}
FILE_EDITS: dict[str, Edit] = {
    "removed": _replaced(lambda _: None),
    "pipe": _replaced(os.mkfifo),
    "device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "folder": _replaced(Path.mkdir),
    "circle": _replaced(lambda path: path.symlink_to(path.name)),
    "swapped": lambda _chance, path, other: _swap(path, other),
}


def edits_of(path: Path) -> dict[str, Edit]:
    """Return the edits that a file can have."""
    own: dict[str, dict[str, Edit]] = {
        ".parquet": TABLE_EDITS, ".json": {"json": _json}, ".jsonl": {"line": _line}
    }  # fmt: skip
    return own.get(path.suffix, {}) | BYTE_EDITS | FILE_EDITS


@contextmanager
def ends_in_time() -> Iterator[None]:
    """Context manager that raises an error if a command waits without end."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_MOST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def answer(tiny: TinyStudy, command: str) -> tuple[int, str, str]:
    """Return the exit code of a command on a study, what it says and writes, and its error."""
    trial = min(tiny.trials()).name if tiny.trials() else "none"
    copy = tiny.place / "exported"
    words = {
        "status": ["status", "STUDY", "--json"],
        "plan": ["plan", "STUDY"],
        "report": ["report", "STUDY"],
        "recommend": ["recommend", "STUDY", "--flops", "3GFLOP", "--pairs", "1000"],
        "compare": ["report", "STUDY", str(tiny.place / "other.yaml")],
        "export": ["export", "STUDY", trial, str(copy)],
        "run": ["run", "STUDY", "--backend", "local", "--quiet"],
    }[command]
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors), ends_in_time():
        code = main(
            [str(tiny.declaration) if word == "STUDY" else word for word in words]
            + ["--results", str(tiny.place)]
        )
    said = output.getvalue()
    if code == 0 and command == "report":
        report = tiny.folder / "report"
        tables = (path.read_text() for path in sorted((report / "tables").glob("*.csv")))
        said = "".join([said, (report / "report.html").read_text(), *tables])
    if code == 0 and command == "export":
        said += hashlib.sha256((copy / "open_clip_pytorch_model.bin").read_bytes()).hexdigest()
    if code == 0 and command == "run":
        said = repr(tiny.tables())
    said = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:+.]*\d", "DATE", said.replace(str(tiny.place), "PLACE"))
    return code, said, errors.getvalue()


def copied(done: TinyStudy, place: Path) -> TinyStudy:
    """Return a copy of a study and the one beside it, also of pipes and links."""
    subprocess.run(["/bin/cp", "-a", done.place, place], check=True)
    copy = object.__new__(TinyStudy)  # its declaration is not written again
    copy.place, copy.folder, copy.declaration = place, place / "tiny", place / "tiny.yaml"
    return copy


@pytest.fixture(scope="module", autouse=True)
def _undrawn() -> Iterator[None]:
    """Leave figures out of reports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "analysis.report.report.save_all",
            lambda figures, *_: dict.fromkeys((each.name for each in figures), "<svg></svg>"),
        )
        yield


@pytest.fixture(scope="module")
def done(run_once: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> TinyStudy:
    """Return a study of two trials that has been run, beside another of other seeds."""
    place = tmp_path_factory.mktemp("edited") / "both"
    shutil.copytree(run_once.place, place)
    TinyStudy(place, run_once.pool, "other", seeds="2, 3").run("--quiet")
    return TinyStudy(place, run_once.pool, seeds="0, 1")


@pytest.fixture(scope="module")
def right(done: TinyStudy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the answers before any edit."""
    place, found = tmp_path_factory.mktemp("right"), {}
    for command in COMMANDS:
        code, found[command], error = answer(copied(done, place / command), command)
        assert code == 0, error
    return found


@pytest.mark.parametrize("seed", range(int(os.environ.get("EDITS", "24"))))
def test_an_edit_leaves_the_right_answer_or_a_refusal_that_names_a_file(
    done: TinyStudy, right: dict[str, str], tmp_path: Path, seed: int
) -> None:
    chance, edited = random.Random(seed), copied(done, tmp_path / "edited")
    files = sorted(
        path
        for path in edited.folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "report" not in path.parts
    )
    path = chance.choice(files)
    theirs = edited.place / "other" / path.relative_to(edited.folder)
    others = [each for each in files if each.name == path.name and each != path] or files
    how = chance.choice([*edits_of(path)])
    edits_of(path)[how](chance, path, theirs if theirs.is_file() else chance.choice(others))

    for command in COMMANDS if "EDITS" in os.environ else chance.sample(COMMANDS, 2):
        code, said, error = answer(copied(edited, tmp_path / command), command)
        what = f"{command} after {how} of {path.relative_to(edited.folder)}: {code} {error}"
        if code == 0:
            lost = how == "removed" or (path.suffix == ".jsonl" and how in {"cut", "empty"})  # as by a crash
            assert said == right[command] or lost, what
        else:
            assert code == 2, what
            assert len(error.splitlines()) == 1, what
            assert path.name in error or path.parent.name in error, what


def test_rows_and_weights_of_others_are_refused_also_where_digests_fit(
    done: TinyStudy, tmp_path: Path
) -> None:
    edited = copied(done, tmp_path / "edited")
    (one, two), results = sorted(edited.trials()), edited.folder / "results.parquet"
    edited.study.write_table(results.name, edited.table().assign(**{"held-out/top1": 0.99}))
    for command in ("status", "report", "recommend", "compare"):
        code, _, error = answer(edited, command)
        assert code == 2
        assert f"{results} has held-out/top1 0.99 of trial" in error
    for name in ("results.parquet", "plan.parquet"):
        _swap(edited.folder / name, edited.place / "other" / name)
        code, _, error = answer(edited, "report")
        assert code == 2
        assert re.search(rf"{name} was derived from study.yaml of other .*not from study.yaml of tiny", error)

    _swap(one / "weights.pt", two / "weights.pt")
    assert f"{one / 'weights.pt'} has other weights" in answer(edited, "export")[2]
    words = ["evaluate", str(one / "weights.pt"), "--model", "mini-ViT-XXS-8"]
    with redirect_stderr(errors := io.StringIO()):
        assert main([*words, "--sets", str(edited.study.evaluation["retrieval"])]) == 2
    assert f"{one / 'weights.pt'} has other weights" in errors.getvalue()
