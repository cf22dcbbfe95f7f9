"""``study new``, ``--version``, and completion in bash."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.cli import main
from study.commands.command import writing
from study.declare import shipped_studies
from study.declare.load import load_declaration
from study.state.study import RECORD
from tests.root import ROOT
from tests.study.conftest import Run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, set as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_declaration_is_short_and_every_commented_key_of_it_is_valid(folder: Path) -> None:
    assert main(["new", "mine"]) == 0
    path = folder / "mine.yaml"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    whole, count = re.subn(r"^( *)# ([a-z_]+: )", r"\1\2", text, flags=re.MULTILINE)
    assert count == 6
    path.write_text(whole)

    declaration = load_declaration(path)

    assert declaration.cluster is not None
    assert declaration.tuning is not None
    assert (declaration.storage, declaration.training.preset) == ("s3://bucket/folder", "paper")
    assert declaration.grid[1].sizes == (2_000, None)
    assert list(declaration.evaluation) == ["imagenet"]


def test_a_new_strategy_passes_its_test_and_is_the_one_of_the_page(folder: Path, run: Run) -> None:
    assert "python -m pytest test_mine.py" in run("new mine --strategy")

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_mine.py", "-p", "no:cacheprovider"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in tested.stdout
    written = (folder / "mine.py").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert written.replace('"mine"', '"smooth"') in page
    assert "mine.py already exists" in run("new mine --strategy", code=2)


def test_the_schema_that_a_new_declaration_names_lies_beside_it(folder: Path, run: Run) -> None:
    assert "python -m study plan mine.yaml" in run("new mine")
    first = (folder / "mine.yaml").read_text(encoding="utf-8").splitlines()[0]

    named = folder / first.partition("$schema=")[2]
    assert named.read_text(encoding="utf-8") == run("schema")


@pytest.mark.parametrize("command", ["new mine", "plan demo --output mine.yaml"])
def test_a_full_disk_leaves_no_part_of_a_file_and_names_it(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def write_half(path: Path, text: str, **_: object) -> None:
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", write_half)

    said = run(command, code=2)
    assert said == "study: mine.yaml could not be written: No space left on device\n"
    assert list(folder.iterdir()) == []


def test_an_error_of_writing_names_the_folder_unless_it_names_a_file_itself() -> None:
    full, refused = (
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(13, "Denied", "a/plan.parquet"),
    )

    with pytest.raises(OSError, match=r"^a/report .*No space"), writing(Path("a/report")):
        raise full
    with pytest.raises(PermissionError, match=r"a/plan\.parquet"), writing(Path("a/report")):
        raise refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "mine.yaml"),
        ("demo", "'demo'"),
        ("../mine", "'../mine'"),
        ("flip-50 --strategy", "'flip-50' is the name of a shipped strategy"),
    ],
)
def test_new_never_overwrites_a_file(folder: Path, run: Run, name: str, message: str) -> None:
    (folder / "mine.yaml").write_text("study: mine\n")

    assert message in run(f"new {name}", code=2)

    assert (folder / "mine.yaml").read_text() == "study: mine\n"
    assert list(folder.iterdir()) == [folder / "mine.yaml"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to complete in")
def test_bash_completes_commands_studies_options_and_their_values(tmp_path: Path, run: Run) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(run("completion"), encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "results" / "their-study").mkdir(parents=True)
    (tmp_path / "results" / "their-study" / RECORD).touch()
    asked = (
        'source "$0"; complete -p python; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _study_complete; '
        'echo "${COMPREPLY[@]}"'
    )
    for typed, word in (
        ("python -m study reco", "recommend"),
        ("scaling-study plan pa", "paper"),
        ("python -m study report th", "their-study"),
        ("scaling-study report demo th", "their-study"),
        ("python -m study plan th", ""),  # only a study of its own has a plan
        ("python -m study plan mi", "mine.yaml"),
        ("python -m study plan --format par", "parquet"),
        ("python -m study run demo --retr", "--retry-failed"),
        ("python -m study data bu", "build"),
        ("python -m study data score p --meta", "--metadata"),
        ("python -m study plan --output mi", ""),  # bash completes a file's name, as for
        ("python mi", ""),
    ):
        said = subprocess.check_output(
            ["/usr/bin/env", "bash", "-c", asked, script, *typed.split()], cwd=tmp_path, text=True
        )
        assert said == f"complete -o bashdefault -o default -F _study_complete python\n{word}\n", typed


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_the_script_of_another_shell_completes_commands_and_shipped_studies(run: Run, shell: str) -> None:
    script = run(f"completion --shell {shell}")
    assert " ".join(shipped_studies()) in script
    assert "materialise" in script
