"""Joined tables of trials: each file is read once, and the rows come in the order that is asked for."""

from itertools import repeat

import pytest

from runners.results import CURVE_COLUMNS, to_frame, write_table
from study.run import pipeline
from study.run.pipeline import TrialTables
from tests.study.tiny_study import TinyStudy


def test_tables_are_read_once_and_joined_in_the_order_of_the_plan(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, names = tiny.study, ["c", "a", "d", "b"]
    for at_once in (2, 100):  # joined while some are missing, and all at the end
        monkeypatch.setattr(pipeline, "_JOINED_AT_ONCE", at_once)
        tables = TrialTables(study, "curve.parquet", CURVE_COLUMNS)
        for name in names:
            study.trial_folder(name).mkdir(parents=True, exist_ok=True)
            rows = ({**dict.fromkeys(CURVE_COLUMNS, 0), "trial": name, "step": step} for step in range(3))
            write_table(study.trial_folder(name) / "curve.parquet", to_frame(rows, CURVE_COLUMNS))
            tables.add(name, needed=True)
        for name in (*names, "without one"):
            (study.trial_folder(name) / "curve.parquet").unlink(missing_ok=True)
            tables.add(name)
        for _ in range(2):
            joined = tables.of(["a", "failed", "b", "c", "d"])
            assert joined["trial"].tolist() == [name for each in "abcd" for name in repeat(each, 3)]
            assert joined["step"].tolist() == [0, 1, 2] * 4
        with pytest.raises(ValueError, match="no such table"):
            tables.add("failed", needed=True)
    assert TrialTables(study, "curve.parquet", CURVE_COLUMNS).of(["a"]).empty
