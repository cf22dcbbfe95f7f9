"""A stranger's strategy, one file beside the declaration, is planned, trained, reported, and run again."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from budgets.planning.planned_trial import Trial
from runners.training import check_strategy
from runners.trials.trial import run_trial
from study.state.study import trial_job
from tests.root import ROOT
from tests.study.tiny_study import TinyStudy

PAGE = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
FILES = "strategy_files: smooth.py\n"


@pytest.fixture
def smooth(tmp_path: Path, pool: Path) -> TinyStudy:
    """A study of clip and of the strategy that the documentation shows."""
    study = TinyStudy(tmp_path, pool, strategies="clip, smooth", more=FILES)
    shown = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    (tmp_path / "smooth.py").write_text(shown[1])
    return study


def version(trial: Trial) -> str:
    return trial.strategy_file.version if trial.strategy_file else ""


def change(study: TinyStudy, old: str, new: str) -> None:
    file = study.place / "smooth.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.slow
def test_it_trains_is_reported_and_runs_anew_after_an_edit(smooth: TinyStudy) -> None:
    clip, first = smooth.plan.trials
    smooth.run()
    before = smooth.table()
    curve = smooth.table("curves")

    assert before["strategy_version"].tolist() == ["", version(first)]
    assert (before["status"] == "finished").all()
    losses = [group["loss"].iloc[-1] for _, group in curve.groupby("trial", sort=False)]
    assert losses[1] > losses[0]  # a smoothed target cannot be met
    kept = smooth.folder / f"smooth-{version(first)}.py"
    assert kept.read_text() == (smooth.place / "smooth.py").read_text()
    assert "changed since" not in smooth.says("plan")

    change(smooth, "smoothing: float = 0.1", "smoothing: float = 0.3")
    second = smooth.plan.trials[1]
    said = " ".join(smooth.says("plan").split())
    assert f"changed since 1 trial ended as version {version(first)};" in said
    assert second.trial_id != first.trial_id
    assert smooth.plan.trials[0].trial_id == clip.trial_id
    smooth.run()

    after = smooth.table()
    assert after["trial"].tolist() == [clip.trial_id, second.trial_id, first.trial_id]
    pd.testing.assert_frame_equal(after.iloc[[0, 2]].reset_index(drop=True), before, check_dtype=False)
    assert "changed since" not in smooth.says("plan")
    # What only reads results executes no file.
    change(smooth, "smoothing: float", "raise SystemExit('executed')\n    smoothing: float")
    for command in ("report", "status", "recommend --flops 3e9 --pairs 2000"):
        said = smooth.says(command)
    assert "CLIP, smoothed labels" in said


def test_mistakes_name_declaration_file_and_nearest_name(smooth: TinyStudy) -> None:
    smooth.edit(("clip, smooth", "clip, smoth"))
    assert "tiny.yaml:9: unknown strategy 'smoth'; did you mean 'smooth'?" in smooth.says("plan", code=2)
    smooth.edit(("smoth", "smooth"))
    change(smooth, "from runners.strategies.clip import", "from runners.strategies.clap import")
    where = f"tiny.yaml:17: {smooth.place / 'smooth.py'}, line 6: ModuleNotFoundError: No module named"
    assert where in smooth.says("plan", code=2)
    smooth.edit(("smooth.py", "losses.py"))
    said = smooth.says("plan", code=2)
    assert f"tiny.yaml:17: {smooth.place / 'losses.py'} is no Python file" in said


def test_a_plan_checks_costs_and_a_step_once_for_each_text_and_model(
    smooth: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_CACHE", str(smooth.place / "cache"))
    change(
        smooth, 'STRATEGIES = (Smooth(name="smooth",', 'STRATEGIES = (Smooth(name="smooth", image_views=2,'
    )
    said = smooth.says("plan", code=2)
    assert re.search(r"tiny.yaml:17: .*smooth.py: smooth: torch counts [\d,]+ MACs .* state [\d,]+", said)
    change(smooth, "image_views=2,", "")
    # Of one that reads columns too, with values of their kinds.
    change(smooth, "(2 * len(image))", "(2 * len(images))")
    change(smooth, 'name="smooth",', 'name="smooth", columns=("score", "caption"),')
    assert re.search(r"smooth.py, line \d+: smooth fails: NameError", smooth.says("plan", code=2))
    change(smooth, "(2 * len(images))", "(2 * len(image))")
    clip, stated = smooth.plan.trials
    # One that states no costs has those that torch counts: here a matrix of width 64 less.
    change(smooth, "+ cross_entropy(scale * text[rows] @ image.T, rows, **how)", "")
    counted = smooth.plan.trials[1]
    assert stated.train_flops_per_sample == clip.train_flops_per_sample
    assert clip.train_flops_per_sample - counted.train_flops_per_sample == 6 * clip.batch_size * 64

    monkeypatch.setattr(check_strategy, "check_strategy", lambda *_: pytest.fail("checked twice"))
    assert smooth.plan.trials[1] == counted


@pytest.mark.slow
def test_it_trains_alike_at_once_in_parts_and_on_two_ranks(smooth: TinyStudy) -> None:
    losses = []
    for parts, ranks in ((1, 1), (4, 1), (2, 2)):
        trial = smooth.plan.trials[1]
        recipe = replace(trial.recipe, accumulation=parts)
        job = trial_job(smooth.study, replace(trial, recipe=recipe))
        folder = smooth.place / f"{parts}-{ranks}"
        assert run_trial(replace(job, folder=folder, ranks=ranks, cpus=ranks)).row["status"] == "finished"
        losses.append(pd.read_parquet(folder / "curve.parquet")["loss"].to_numpy())

    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)
    assert losses[2] == pytest.approx(losses[0], rel=2e-5)
