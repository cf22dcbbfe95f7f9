"""A name of a module or a class has one meaning in all packages."""

import ast
from collections import Counter

from tests.root import ROOT

FILES = [
    path for package in ("budgets", "runners", "analysis", "study") for path in (ROOT / package).rglob("*.py")
]


def test_no_two_classes_share_a_name() -> None:
    classes = Counter(
        node.name
        for path in FILES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    )
    assert len(classes) > 200
    assert not [name for name, count in classes.items() if count > 1]


def test_no_two_modules_share_a_name_except_a_command_and_its_subject() -> None:
    modules = Counter(
        path.name
        for path in FILES
        if path.name != "__init__.py" and not path.is_relative_to(ROOT / "study" / "commands")
    )
    assert len(modules) > 300
    assert not [name for name, count in modules.items() if count > 1]
