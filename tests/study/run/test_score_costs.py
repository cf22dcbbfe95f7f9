"""What a score or a teacher of this project cost: in the pool, the plan, the book and the report."""

import html
import re
import shutil
from pathlib import Path

import pytest

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import encoding_flops
from budgets.quantity import format_flops
from runners.data.pool.pool import Pool
from tests.study.conftest import Run
from tests.study.tiny_study import TRUNK, TinyStudy

pytestmark = pytest.mark.slow
STRATEGIES = "clip, clip-crop-flip, flip-50"


def page(tiny: TinyStudy) -> str:
    text = (tiny.folder / "report" / "report.html").read_text(encoding="utf-8")
    return html.unescape(re.sub("<[^>]+>", "", text)).replace("\u00a0%", " %")


def test_a_trial_that_scored_is_named_with_its_flops_from_the_pool_to_the_report(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    path = Path(shutil.copytree(pool, tmp_path / "scored"))
    maker = TinyStudy(tmp_path, path, "maker", levels="3 GFLOP, 5 GFLOP", training=TRUNK)
    maker.run()
    last = maker.plan.trials[-1]
    trained, count = last.train_flops, Pool.open(path).count
    assert last.paid_flops < trained, "the trunk of the shorter trial is part of its training"
    scored = encoding_flops(load_architecture(last.cell.architecture), images=count, texts=count)
    words = f"{format_flops(trained)} to train, {format_flops(scored)} to score 1,024 pairs"

    by, folder = f"trial {last.trial_id}", maker.study.trial_folder(last.trial_id)
    said = run(f"data score {path} --with {folder} --name mine --device cpu")
    assert f"score mine cost {format_flops(trained + scored)}\n" in said
    assert f"  mine by {by}: {words}\n" in said
    run(f"data score {path} --with '=0.5*mine + 0.1*similarity' --name half")
    run(f"data score {path} --with {last.cell.architecture}:{folder}/weights.pt --name other --device cpu")
    run(f"data score {path} --with '=mine WHERE other > -1 AND half > -9' --name some")
    mine, half, some = (Pool.open(path).scores[name].scorer for name in ("mine", "half", "some"))
    assert (mine.model, mine.train_flops, mine.scoring_flops) == (by, trained, scored)
    assert half.sources == (mine,)
    assert {each.name for each in some.sources} == {"mine", "other"}

    tiny = TinyStudy(tmp_path, path, levels="3 GFLOP, 5 GFLOP", strategies=STRATEGIES, study_flops="50 GFLOP")
    tiny.edit(("top50", "top50 by mine, top30 by some"))
    assert f"quality score other by {by}: {words}: outside the budget" in tiny.says("plan")
    tiny.edit(("top50 by mine, top30 by some", "top50 by half"), ("study: 50 GFLOP", "study: 30 GFLOP"))
    assert f"quality score mine by {by}: {words}: outside the budget\n" in tiny.says("plan")
    tiny.run()
    said = tiny.says("report --why")
    share = 100 * (trained + scored) / tiny.booked("spent")
    spent = f"{format_flops(trained + scored)}, {share:.0f} % of the compute spent"
    assert f"; its score cost {spent}\n" in said
    assert f"{spent}, outside the study budget: mine by {by}: {words}" in page(tiny)
    tables = tiny.folder / "report" / "tables"
    assert f"Its score cost {spent}" in (tables / "best.md").read_text(encoding="utf-8")
    rows = (tables / "cost.md").read_text(encoding="utf-8")
    assert f"not in all: training of the scorer {by} | – | – | {format_flops(trained)} |" in rows
    before = tiny.booked("spent")

    tiny.edit(("study: 30 GFLOP", "study: 30 GFLOP, count_scoring: true"))
    assert "of charges), but the study budget is 30 GFLOP" in tiny.says("run --dry-run", code=2)
    tiny.edit(("study: 30 GFLOP", "study: 1 TFLOP"))
    assert f"{words}: charged once\n" in tiny.says("plan")
    tiny.run()
    tiny.run()
    assert tiny.book().charged_flops == trained + scored
    assert tiny.status()["spent_flops"] == before + trained + scored == tiny.plan.train_flops
    tiny.says("report")
    assert f", part of it: mine by trial {last.trial_id}" in page(tiny)
    (tiny.folder / "spent.parquet").write_text("damage")
    assert "spent.parquet is damaged" in tiny.run()
    assert tiny.book().charged_flops == trained + scored


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
