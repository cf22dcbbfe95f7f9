"""Texts of the report: every strategy has its usual name."""

import re

from analysis.error_unit import LOSS, PERCENT
from analysis.labels import strategy_text
from budgets.cost.strategy import strategies
from tests.root import ROOT


def test_every_strategy_is_called_as_its_authors_call_it() -> None:
    names = {name: strategy_text(name) for name in strategies()}

    assert not [name for name, text in names.items() if text == name]
    assert len(set(names.values())) == len(names)
    assert (names["siglip"], names["clipa"], names["flip-25"]) == ("SigLIP", "CLIPA", "FLIP (25 %)")


def test_no_zero_is_shown_with_a_sign() -> None:
    assert PERCENT.number(-0.0001) == "0.0"
    assert PERCENT.interval(-0.0002, 0.06) == "[0.0, 6.0]"
    assert (PERCENT.number(-0.002), PERCENT.text(float("nan"))) == ("-0.2", "–")
    assert LOSS.number(-0.0) == "0"


def test_measured_numbers_are_written_by_the_one_function_that_rounds() -> None:
    folders = ("answers", "belief", "charts", "laws", "report")
    files = [path for name in folders for path in (ROOT / "analysis" / name).glob("*.py")]
    wild = [
        f"{path.name}: {form}"
        for path in files
        if path.name != "table_files.py"  # widths of LaTeX
        for form in re.findall(r"{[^{}\n]*:[+,]*\.\d[fg%]}", path.read_text(encoding="utf-8"))
        if not re.search(r"[A-Z]{4}|:,\.0f", form)  # constants and counts
    ]
    assert not wild
