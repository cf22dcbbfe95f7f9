"""A name of a module or a class has one meaning in all packages, and docstrings refer to names that exist."""

import ast
import re
from collections import Counter
from pathlib import Path

from tests.root import ROOT

FILES = [
    path for package in ("budgets", "runners", "analysis", "study") for path in (ROOT / package).rglob("*.py")
]


def test_no_two_types_share_a_name() -> None:
    types = Counter(
        name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if (name := type_named(node)) and name not in {"T", "P"}  # type variables
    )
    assert len(types) > 300
    assert not [name for name, count in types.items() if count > 1]


def test_no_two_modules_share_a_name_except_a_command_and_its_subject() -> None:
    modules = Counter(
        path.name
        for path in FILES
        if path.name != "__init__.py" and not path.is_relative_to(ROOT / "study" / "commands")
    )
    assert len(modules) > 200
    assert not [name for name, count in modules.items() if count > 1]


def test_docstrings_refer_to_what_exists() -> None:
    referred = {
        (path.relative_to(ROOT), name)
        for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
        for name in re.findall(r"(?<!`)`([a-z_]+(?:\.\w+)+)`(?!`)", path.read_text(encoding="utf-8"))
    }
    packages = {path.relative_to(ROOT).parts[0] for path in FILES}
    ours = [(path, name) for path, name in referred if name.split(".")[0] in packages]
    files = [(path, name) for path, name in referred if name.endswith(".py")]

    assert len(ours) > 50
    assert not [(path, name) for path, name in ours if not defined(name)]
    assert files
    assert not [(path, name) for path, name in files if not (ROOT / path).with_name(name).exists()]


def test_private_names_of_ray_are_in_one_module_and_one_of_tests() -> None:
    private = re.compile(r"(from|import) ray\._|ray\._private|ray\._raylet|internal_kv")
    places = {
        str(path.relative_to(ROOT))
        for path in [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
        if path != Path(__file__).resolve() and private.search(path.read_text(encoding="utf-8"))
    }
    assert places == {
        "runners/scheduling/ray_backend/ray_private.py",
        "tests/runners/scheduling/simulated.py",
    }


def test_every_path_that_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.*-]+/)+[\w.*-]*|\w+\.py)`", text)
    templates = [name for name in named if "NAME" in name]
    paths = [name for name in named if "NAME" not in name and name != "site/"]

    assert len(paths) > 25
    assert len(templates) >= 2
    assert not [name for name in paths if not any(ROOT.rglob(name) if "/" not in name else ROOT.glob(name))]
    assert not [name for name in templates if not (ROOT / name).parent.is_dir()]


def type_named(node: ast.AST) -> str:
    """Return the name of a class, or of an alias of a type; empty for other nodes."""
    if isinstance(node, ast.ClassDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
        return name if name[0].isupper() and not name.isupper() else ""
    return ""


def defined(name: str) -> bool:
    """Return whether a dotted name is that of a module or a folder, or of a definition in a module."""
    path, parts = ROOT, name.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return True
    module = path / f"{parts[0]}.py"
    return module.exists() and {*parts[1:]} <= names_in(module)


def names_in(module: Path) -> set[str]:
    """Return the names in the code of a module, without those in its docstrings."""
    nodes = list(ast.walk(ast.parse(module.read_bytes())))
    return {str(getattr(node, key)) for node in nodes for key in ("name", "id", "attr") if hasattr(node, key)}
