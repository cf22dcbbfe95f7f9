"""Damaged files of a study: each reader names the file and the remedy."""

from pathlib import Path

import pytest

from runners.results import read_table
from runners.trials.trial_files import read_failure, read_outcome


@pytest.mark.parametrize(
    ("content", "what"),
    [("{", "JSONDecodeError"), ("[]", "TypeError"), ('{"row": {}}', "KeyError: 'timing'")],
)
def test_damaged_result_and_failure_files_raise_and_are_named(
    tmp_path: Path, content: str, what: str
) -> None:
    for name in ("result.json", "failed.json"):
        (tmp_path / name).write_text(content)

    with pytest.raises(
        ValueError, match=rf"result.json is damaged .{what}.*; delete {tmp_path} to run the trial again"
    ):
        read_outcome(tmp_path)
    with pytest.raises(ValueError, match=r"failed.json is damaged .*; delete it to run the trial again"):
        read_failure(tmp_path)


def test_result_without_its_curve_raises_instead_of_rerunning(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"row": {}, "timing": {}}')

    with pytest.raises(ValueError, match=rf"curve.parquet beside it is missing; delete {tmp_path} to run"):
        read_outcome(tmp_path)


def test_damaged_table_error_advises_rerun_or_deletion_of_the_trial(tmp_path: Path) -> None:
    trial = tmp_path / "trials" / "0123456789ab"
    trial.mkdir(parents=True)
    for path in (tmp_path / "results.parquet", trial / "curve.parquet"):
        path.write_bytes(b"PAR1")

    with pytest.raises(ValueError, match=r"results.parquet is damaged .*run the study again to rewrite it"):
        read_table(tmp_path / "results.parquet")
    with pytest.raises(ValueError, match=rf"curve.parquet is damaged .*; delete {trial} to run the trial"):
        read_table(trial / "curve.parquet")
