"""Strategies are read from a user's own files, and what is wrong with one names the file and the line."""

from pathlib import Path

import pytest

from budgets.cost.strategy_files import load_strategy_files

CLIP = "from runners.strategies.clip import Clip\n"


def test_files_and_folders_give_the_strategies_that_they_list(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f"{CLIP}STRATEGIES = (Clip(name='a'), Clip(name='b', batch_factor=2))\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one.py").write_text(f"{CLIP}STRATEGIES = [Clip(name='c')]\n")

    strategies = load_strategy_files([tmp_path / "one.py", folder])

    assert list(strategies) == ["a", "b", "c"]
    assert (strategies["b"].batch_factor, strategies["c"].batch_factor) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nclass Mine(Clip:\n    pass\n", r"mine\.py, line 2: SyntaxError"),
        ("import nothing_such\n", r"mine\.py, line 1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("from common import x\n", r"mine\.py, line 1: .*'common'. A file travels .* without its neighbours"),
        (f"{CLIP}\nSTRATEGIES = (Clip(name='a', kept_fracton=0.5),)\n",
         r"mine\.py, line 3: unknown field of a strategy 'kept_fracton'; did you mean 'kept_fraction'\?"),
        (f"{CLIP}class Mine(Clip):\n    kept_fraction = 0.5\n",
         r"mine\.py, line 2: TypeError: Mine.kept_fraction"),
        (f"{CLIP}STRATEGIES = (Clip(name='clip'),)\n", r"mine\.py: the name 'clip' is taken"),
        (f"{CLIP}STRATEGIES = (Clip(name='a'), Clip(name='a'))\n", r"mine\.py: the name 'a' is taken"),
        (f"{CLIP}MINE = Clip(name='a')\n", r"mine\.py: it lists no strategies"),
        ("STRATEGIES = ()\n", r"mine\.py: it lists no strategies"),
        ("raise SystemExit(0)\n", r"mine\.py, line 1: SystemExit: 0"),
        ("\udcff\n", r"mine\.py is no text in UTF-8"),
        (f"{CLIP}STRATEGIES = (Clip,)\n", r"mine\.py: STRATEGIES has <class .*Clip'>, which is no instance"),
        (f"{CLIP}STRATEGIES = (Clip(name='a', kept_fraction='half'),)\n",
         r"mine\.py: a: kept_fraction must be float, found 'half'"),
        (f"{CLIP}STRATEGIES = (Clip(name='a', kept_fraction=2),)\n", r"above 0 and at most 1, found 2"),
        (f"{CLIP}STRATEGIES = (Clip(name='a', label='A\\x1b[2J'),)\n", r"label must be one line"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text, errors="surrogateescape")
    (tmp_path / "common.py").touch()

    with pytest.raises(ValueError, match=message):
        load_strategy_files([tmp_path / "mine.py"])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.py is no Python file"):
        load_strategy_files([tmp_path / "none.py"])
