"""A study distils a trial of another one, beside strategies with other captions and state by pair."""

import shutil
from pathlib import Path

import pytest

from runners.data.pool.pool import Pool
from tests.study.conftest import Run
from tests.study.tiny_study import TinyStudy

pytestmark = pytest.mark.slow


def test_students_of_a_trial_train_on_two_ranks_and_the_report_counts_their_teacher(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    mine = Pool.open(shutil.copytree(pool, tmp_path / "pool"))
    teacher = TinyStudy(tmp_path / "first", mine.path, "teacher")
    teacher.run()
    (trial,) = teacher.plan.trials
    table = mine.frame[["key"]].assign(recaption=mine.frame["caption"].str.upper())
    table.to_csv(tmp_path / "recaptions.csv", index=False)
    score = f"data score {mine.path} --workers 1"
    run(f"{score} --with column:recaption --metadata {tmp_path / 'recaptions.csv'} --column recaption")
    run(f"{score} --with {teacher.folder / 'trials' / trial.trial_id} --column teacher --device cpu")

    students = TinyStudy(
        tmp_path / "second", mine.path, "students", strategies="clip, fastclip, reinforced, recaptions",
        resources="ranks: 2", training="  accumulation: 2\n", seeds="0",
    )  # fmt: skip
    said = students.says("plan")
    assert f"quality score teacher by trial {trial.trial_id}: " in said
    students.run()
    students.says("report")

    results = students.table()
    assert results.groupby("strategy")["status"].unique().explode().to_dict() == dict.fromkeys(
        ("clip", "fastclip", "recaptions", "reinforced"), "finished"
    )
    (cost,) = students.table("scores").to_dict("records")
    assert (cost["quality"], cost["model"]) == ("reinforced", f"trial {trial.trial_id}")
    assert cost["train_flops"] == trial.train_flops
    assert cost["scoring_flops"] > 0
    assert "FastCLIP" in (students.folder / "report" / "report.html").read_text()
