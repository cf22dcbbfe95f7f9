"""Damaged files of a study: each reader names the file and the remedy."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from runners.results import CURVE_COLUMNS, read_table, to_frame, write_table
from runners.trials.trial_files import (
    Outcome,
    checkpoints,
    drop_damaged,
    kept_steps,
    milestone,
    read_failure,
    read_outcome,
    write_outcome,
)


@pytest.mark.parametrize(
    ("content", "what"),
    [("{", "JSONDecodeError"), ("[]", "AttributeError"), ('{"row": {}}', "ValueError: its keys are row")],
)
def test_damaged_result_and_failure_files_raise_and_are_named(
    tmp_path: Path, content: str, what: str
) -> None:
    for name in ("result.json", "failed.json"):
        (tmp_path / name).write_text(content)

    with pytest.raises(ValueError, match=rf"result.json is damaged .{what}.*; delete {tmp_path} to run"):
        read_outcome(tmp_path)
    with pytest.raises(ValueError, match=r"failed.json .*; delete it"):
        read_failure(tmp_path)


def test_result_without_its_curve_raises_instead_of_rerunning(tmp_path: Path) -> None:
    folder = finished(tmp_path / "a")
    (folder / "curve.parquet").unlink()

    with pytest.raises(ValueError, match=rf"curve.parquet .*; delete {folder}"):
        read_outcome(folder)


def test_damaged_table_error_advises_rerun_or_deletion_of_the_trial(tmp_path: Path) -> None:
    trial = tmp_path / "trials" / "0123456789ab"
    trial.mkdir(parents=True)
    for path in (tmp_path / "results.parquet", trial / "curve.parquet"):
        path.write_bytes(b"PAR1")

    with pytest.raises(ValueError, match=r"results.parquet .*run the study again"):
        read_table(tmp_path / "results.parquet")
    with pytest.raises(ValueError, match=rf"curve.parquet .*; delete {trial}"):
        read_table(trial / "curve.parquet")


def finished(folder: Path) -> Path:
    """Write the result of a trial with a curve of one point."""
    folder.mkdir()
    point = {
        "trial": folder.name,
        "step": 5,
        "samples_seen": 80,
        "train_flops": 560.0,
        "loss": 4.1,
        "lr": 1e-3,
    }
    write_table(folder / "curve.parquet", to_frame([point], CURVE_COLUMNS))
    row = {"trial": folder.name, "status": "finished", "reason": "", "samples_seen": 80, "train_loss": 4.1}
    write_outcome(folder, Outcome(row=row | {"held-out/top1": 0.125}, timing={"wall_s": 0.25}))
    return folder


@pytest.mark.parametrize(
    ("found", "put", "what"),
    [
        ("0.125", "0.225", "its digest does not fit"),
        ('"finished"', '"diverged"', "its digest does not fit"),
        ("0.25", "0.26", "its digest does not fit"),
        ('"digest"', '"tigest"', "its keys are curve, row, tigest, timing"),
        ('"trial": "a', '"trial": "b', "it is the result of trial b"),
    ],
)
def test_a_result_that_was_edited_is_refused_and_named(
    tmp_path: Path, found: str, put: str, what: str
) -> None:
    folder = finished(tmp_path / "a")
    outcome = read_outcome(folder)
    assert outcome is not None
    assert outcome.row["held-out/top1"] == 0.125
    path = folder / "result.json"
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put))

    with pytest.raises(ValueError, match=rf"result.json .*{what}.*; delete {folder}"):
        read_outcome(folder)


def test_the_result_or_the_curve_of_another_trial_is_refused(tmp_path: Path) -> None:
    one, other = finished(tmp_path / "one"), finished(tmp_path / "other")
    (one / "curve.parquet").write_bytes((other / "curve.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"one/curve.parquet was changed"):
        read_outcome(one)
    (one / "result.json").write_bytes((other / "result.json").read_bytes())
    with pytest.raises(ValueError, match=r"one/result.json .* trial other"):
        read_outcome(one)


def test_a_byte_changed_in_a_table_is_found(tmp_path: Path) -> None:
    path = finished(tmp_path / "a") / "curve.parquet"
    content = path.read_bytes()
    place = content.index(np.float64(4.1).tobytes())
    path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])

    with pytest.raises(ValueError, match=r"curve.parquet .*CRC"):
        read_table(path)


def test_a_checkpoint_or_milestone_without_its_digest_is_left_aside(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"state").hexdigest()[:16]
    sound = tmp_path / f"checkpoint-0000000010-{digest}.pt"
    for path in (sound, tmp_path / "checkpoint-0000000020.pt", tmp_path / "checkpoint-x-y.pt"):
        path.write_bytes(b"state")
    (tmp_path / "milestone-old.pt").write_bytes(b"state")

    assert checkpoints(tmp_path) == [sound]
    assert kept_steps(tmp_path) == 10
    assert drop_damaged(tmp_path) == []
    assert milestone(tmp_path) is None
