"""A study's name means the same to every command and in Python."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from study import Study as InPython
from study.cli import main, make_parser
from study.commands.completion import walk
from study.declare import DECLARATIONS
from study.show import opened
from study.state import study as state
from study.state.study import Imported, Study, open_study
from study.storage.folder_storage import FolderStorage
from tests.root import ROOT

MORE = {
    "export": " trial target", "recommend": " --flops 1e12 --pairs 8192", "report": " other",
    "run": " --dry-run",
}  # fmt: skip
"""What commands need beside a study."""
COMMANDS = sorted(
    words for words, parser in walk(make_parser()) if "a declaration file, or" in parser.format_help()
)
READ_IMPORTED = {"recommend", "report"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of studies with a run and an imported one, beside the declaration of the former."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    for name, path in (("mine", "small/study.yaml"), ("mine", "small/plan.parquet")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "results" / path, folder / name)
    declared = folder / "mine" / "study.yaml"
    declared.write_text(declared.read_text(encoding="utf-8").replace("study: small\n", "study: mine\n"))
    shutil.copy(declared, tmp_path / "file.yaml")
    shutil.copytree(ROOT / "results" / "open-clip-scaling", folder / "table")
    return folder


def answer(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error of a command, or of Python, for a name."""
    if command == "Python":
        with pytest.raises(ValueError, match=r"^Study\(") as caught:
            InPython(name)
        return f"study: {str(caught.value).partition(': ')[2]}\n"
    assert main([*shlex.split(f"{command} {name}{MORE.get(command, '')}")]) == 2
    return capsys.readouterr().err


def test_the_commands_that_take_a_study_are_known() -> None:
    assert COMMANDS == [
        "calibrate", "check", "data materialise", "export", "plan", "recommend", "report", "run", "status",
        "stop",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [*COMMANDS, "Python"])
@pytest.mark.parametrize(
    ("name", "folder", "source"),
    [
        ("file.yaml", "mine", "file.yaml"),
        ("mine", "mine", "results/mine/study.yaml"),
        ("demo", "demo", str(DECLARATIONS / "demo.yaml")),
        ("table", "table", None),
    ],
    ids=["file", "run before", "shipped", "imported"],
)
@pytest.mark.usefixtures("results")
def test_every_command_finds_the_same_study(
    command: str, name: str, folder: str, source: str | None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    studies = []

    def stop(name: str, *, results: str | None, pools: str | None = None) -> None:
        studies.append(open_study(name, results=results, pools=pools))
        raise ValueError("opened")

    monkeypatch.setattr(state, "open_study", stop)
    monkeypatch.setattr(opened, "open_study", stop)
    assert answer(command, name, capsys) == "study: opened\n"
    (study,) = studies
    assert study.folder == Path("results") / folder
    assert source == (None if isinstance(study, Imported) else str(study.source))


@pytest.mark.parametrize("command", [*COMMANDS, "Python"])
@pytest.mark.usefixtures("results")
def test_a_misspelt_name_gets_the_nearest_one(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = answer(command, "tabel", capsys)
    assert said.startswith("study: unknown study 'tabel'; did you mean 'table'? allowed: demo, mine, paper, ")
    assert said.endswith("teacher, or a path that ends in .yaml\n")
    assert answer(command, "nowhere.yaml", capsys) == "study: no such declaration file: nowhere.yaml\n"


@pytest.mark.parametrize("command", sorted({*COMMANDS} - READ_IMPORTED))
@pytest.mark.usefixtures("results")
def test_commands_that_need_a_declaration_refuse_an_imported_study(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(command, "table", capsys) == (
        "study: results/table is an imported study: only the commands report and recommend can read it\n"
    )


def test_a_shipped_declaration_goes_before_a_saved_one_and_an_import_before_both(results: Path) -> None:
    shutil.copytree(results / "mine", results / "small")
    study = open_study("small")
    assert isinstance(study, Study)
    assert study.source == DECLARATIONS / "small.yaml"
    for name in ("small", "mine"):
        shutil.copy(results / "table" / "import.json", results / name)
        assert isinstance(open_study(name), Imported)


@pytest.mark.parametrize("command", [*COMMANDS, "Python"])
def test_a_declaration_with_the_name_of_an_imported_study_is_refused(
    results: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(results / "table" / "import.json", results / "mine")
    assert answer(command, "file.yaml", capsys) == (
        "study: results/mine is an imported study; change the declaration's name (study:)\n"
    )


def test_a_study_whose_storage_is_away_is_read_from_its_last_local_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_storage: FolderStorage, _note: Callable[[str], None] = print) -> None:
        raise OSError("the bucket is away")

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results" / "small", tmp_path / "results" / "small")
    monkeypatch.setattr(FolderStorage, "refresh", away)
    line = "the bucket is away; showing the last local copy"
    assert main(["status", "small"]) == 0
    assert capsys.readouterr().err == f"study: {line}\n"
    with pytest.warns(UserWarning, match=line):
        assert len(InPython("small").results) == 41
    # A run needs the newest results, and demo has no copy.
    for words in ("run small --dry-run", "status demo"):
        assert main(words.split()) == 2
        assert capsys.readouterr().err == "study: the bucket is away\n"
