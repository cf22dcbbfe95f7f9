"""Declared probes: their cost in the plan, their columns in a row, and refused declarations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from budgets.cost.architecture import load_architecture
from budgets.cost.flops import image_forward_macs, text_forward_macs
from runners.data.evaluation.evaluation_set import write_evaluation_set
from runners.embedded.embedded_pool import evaluation_set
from runners.trials.trial import run_trial
from study.declare.dump import dump_declaration
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import Study, trial_job
from tests.runners.data.whole_set import write_training_split
from tests.study.tiny_study import TinyStudy

TRAIN, TEST = 500, 100


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the embedded pool's seen drawings with a training split of five images per class."""
    path = tmp_path_factory.mktemp("sets") / "seen"
    data = evaluation_set("seen", TRAIN + TEST)
    assert data.labels is not None
    write_evaluation_set(path, replace(data, images=data.images[TRAIN:], labels=data.labels[TRAIN:]))
    write_training_split(path, data.images[:TRAIN], data.labels[:TRAIN])
    return path


def declared(folder: Path, pool: Path, evaluation: str, name: str = "probed") -> Study:
    return TinyStudy(folder, pool, name, more=f"evaluation: {evaluation}\n").study


@pytest.mark.slow
def test_a_probe_costs_its_training_images_and_gives_its_columns(
    pool: Path, probed: Path, tmp_path: Path
) -> None:
    plain = declared(tmp_path, pool, f"{{mine: {probed}}}", "plain")
    study = declared(tmp_path, pool, f"{{mine: {{path: {probed}, probe: true}}}}")
    (trial,), (without,) = plan_study(study).trials, plan_study(plain).trials

    macs = image_forward_macs(load_architecture("mini-ViT-XXS-8"))
    assert trial.evaluation_flops - without.evaluation_flops == 2 * TRAIN * macs
    assert trial.trial_id != without.trial_id
    texts = text_forward_macs(load_architecture("mini-ViT-XXS-8"))
    assert trial.evaluation_flops == 2 * ((200 + 32 + TEST + TRAIN) * macs + (500 + 32 + 500) * texts)

    (study.folder / "trials").mkdir(parents=True)
    row = run_trial(trial_job(study, trial)).row
    assert row["evaluation_flops"] == trial.evaluation_flops
    for metric in ("mine/probe_top1", "mine/few_shot_5_top1", "held-out/probe_top1"):
        assert 0 <= row[metric] <= 1
        assert 0 <= row[f"{metric}_se"] < 0.1
    assert row["mine/probe_top1"] > 0.01, "chance"
    assert not np.isnan(row["mine/mean_per_class"])
    assert "mine/few_shot_10_top1" not in row


def test_a_declared_probe_is_dumped_as_it_was_declared(pool: Path, probed: Path, tmp_path: Path) -> None:
    study = declared(tmp_path, pool, f"{{mine: {{path: {probed}, probe: true}}, other: {probed}}}")
    assert study.declaration.probes == ("mine",)
    again = tmp_path / "again.yaml"
    again.write_text(dump_declaration(study.declaration))
    assert load_declaration(again) == study.declaration


def test_a_probe_can_be_the_metric_of_a_study(pool: Path, probed: Path, tmp_path: Path) -> None:
    study = declared(tmp_path, pool, f"{{mine: {{path: {probed}, probe: true}}}}")
    ranked = replace(study, declaration=replace(study.declaration, metric="mine/probe_top1"))
    assert len(plan_study(ranked).trials) == 1
    with pytest.raises(ValueError, match="'mine/few_shot_10_top1'"):
        plan_study(replace(study, declaration=replace(study.declaration, metric="mine/few_shot_10_top1")))


def test_a_probe_without_a_training_split_is_refused(pool: Path, tmp_path: Path) -> None:
    held_out, retrieval = pool / "evaluation" / "held-out", pool / "evaluation" / "retrieval"
    with pytest.raises(ValueError, match=r"train/nshards\.txt"):
        plan_study(declared(tmp_path, pool, f"{{mine: {{path: {held_out}, probe: true}}}}"))
    with pytest.raises(ValueError, match="is for retrieval"):
        plan_study(declared(tmp_path, pool, f"{{mine: {{path: {retrieval}, probe: true}}}}"))
