"""Damaged files of a study: each reader names the file and the remedy."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runners.results import CURVE_COLUMNS, read_table, to_frame, write_table
from runners.store.files import read_json
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


def finished(folder: Path) -> Path:
    """Write the result of a trial with a curve of one point."""
    folder.mkdir(parents=True)
    seen = {"trial": folder.name, "samples_seen": 80}
    point = {**seen, "step": 5, "train_flops": 560.0, "loss": 4.1, "lr": 1e-3}
    write_table(folder / "curve.parquet", to_frame([point], CURVE_COLUMNS))
    row = {**seen, "status": "finished", "reason": "", "train_loss": 4.1, "held-out/top1": 0.125}
    write_outcome(folder, Outcome(row=row, timing={"wall_s": 0.25}))
    return folder


@pytest.mark.parametrize(
    ("found", "put", "what"),
    [
        ("", "{", "JSONDecodeError"),
        ("", "[]", "a list in place of an object"),
        ("", '{"row": {}}', "its digest does not fit"),
        ("0.125", "0.225", "its digest does not fit"),
        ('"finished"', '"diverged"', "its digest does not fit"),
        ("0.25", "0.26", "its digest does not fit"),
        ('"digest"', '"tigest"', "its digest does not fit"),
        ('"trial": "a', '"trial": "b', "its digest does not fit"),
    ],
)
def test_a_result_that_was_damaged_or_edited_is_refused_and_named(
    tmp_path: Path, found: str, put: str, what: str
) -> None:
    path = finished(tmp_path / "a") / "result.json"
    text = path.read_text()
    assert found in text
    path.write_text(text.replace(found, put) if found else put)

    with pytest.raises(ValueError, match=rf"result.json .*{what}.*; delete {path.parent}"):
        read_outcome(path.parent)


def test_a_result_is_read_with_its_own_curve_alone(tmp_path: Path) -> None:
    one, other = finished(tmp_path / "one"), finished(tmp_path / "other")
    outcome = read_outcome(one)
    assert outcome is not None
    assert outcome.row["held-out/top1"] == 0.125
    (one / "curve.parquet").write_bytes((other / "curve.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"one/curve.parquet"):
        read_outcome(one)
    (other / "curve.parquet").unlink()
    with pytest.raises(ValueError, match=rf"curve.parquet .*; delete {other}"):
        read_outcome(other)


def test_a_changed_byte_of_a_table_is_found_and_the_remedy_named(tmp_path: Path) -> None:
    trial = finished(tmp_path / "trials" / "0123456789ab")
    path = trial / "curve.parquet"
    content = path.read_bytes()
    place = content.index(np.float64(4.1).tobytes())
    path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
    (tmp_path / "results.parquet").write_bytes(b"PAR1")
    (tmp_path / "failed.json").write_text("{")

    with pytest.raises(ValueError, match=rf"curve.parquet .*CRC.*; delete {trial}"):
        read_table(path)
    with pytest.raises(ValueError, match=r"results.parquet .*run the study again"):
        read_table(tmp_path / "results.parquet")
    with pytest.raises(ValueError, match=r"failed.json .*; delete it"):
        read_failure(tmp_path)


def test_a_table_with_other_rows_another_name_or_another_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    write_table(path, pd.DataFrame({"trial": ["a", None], "top1": [0.1, np.nan]}), source="one study")
    sound, table = read_table(path), pq.read_table(path)
    assert sound["top1"].tolist()[0] == 0.1

    better = table.set_column(1, "top1", pa.array([0.99, np.nan]))
    for other in (
        better,
        table.slice(0, 1),
        table.rename_columns(["trial", "top5"]),
        pa.concat_tables([table] * 2),
    ):
        pq.write_table(other.replace_schema_metadata(table.schema.metadata), path)
        with pytest.raises(ValueError, match=r"results.parquet .*digest does not fit its rows"):
            read_table(path)
    sound.to_parquet(path)
    with pytest.raises(ValueError, match=r"results.parquet has schema version none"):
        read_table(path)
    pq.write_table(table, tmp_path / "curves.parquet")
    with pytest.raises(ValueError, match=r"curves.parquet .*digest does not fit"):
        read_table(tmp_path / "curves.parquet")
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=r"derived from one study, not from another"):
        read_table(path, source="another")
    assert read_table(path, source="one study").equals(sound)
    write_table(path, pd.DataFrame({"reason": ["a\x1b[2J\nb", None]}))
    assert read_table(path)["reason"].tolist()[0] == r"a\x1b[2J\nb"


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "device.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "circle.json").symlink_to("circle.json")
    for name in ("pipe", "device", "folder", "circle"):
        path = tmp_path / f"{name}.json"
        with pytest.raises(ValueError, match=f"{path} is not a regular file"):
            read_table(path)
        with pytest.raises(ValueError, match=rf"{path} is damaged \(.*not a regular file.*; try again"):
            read_json(path, "try again")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "list.json").write_text("[]")
    for name in ("deep", "list"):
        with pytest.raises(ValueError, match=rf"{name}.json is damaged .*; try again"):
            read_json(tmp_path / f"{name}.json", "try again")


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
