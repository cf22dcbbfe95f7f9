"""Embedded pools of a run: built once, also if several runs need the same one."""

import threading
from pathlib import Path

import pytest
import torch

from runners.embedded import scorer
from runners.results import plan_row
from runners.trials.trial_files import Outcome, file_digest, write_outcome
from study.run.ensure_pools import ensure_pools
from study.run.export_trial import export_trial
from study.state.plan_study import plan_study
from study.state.study import Study
from tests import waiting
from tests.study.tiny_study import study_of

STUDY = """
study: tiny
pool: {embedded: {pairs: 512, seed: 3}}
metric: held-out/top1
budget: {levels: [5 GFLOP], study: 10 TFLOP}
seeds: [0]
grid: [{architectures: [mini-ViT-XXS-8]}]
training: {batch_size: 16, lr_peak: {mini-ViT-XXS-8: 2e-3}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Return a study whose pool is not built."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    return study_of(tmp_path / "tiny.yaml")


def test_a_second_run_waits_for_the_pool_that_the_first_one_builds(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = next(iter(study.declaration.sources.values())).embedded
    assert pool is not None
    building, go_on = threading.Event(), threading.Event()

    def build(folder: Path, **_options: int) -> None:
        assert not building.is_set(), "built twice"
        building.set()
        assert go_on.wait(60)
        folder.mkdir()
        (folder / "pool.json").touch()

    monkeypatch.setattr(scorer, "build_scored_pool", build)
    said: tuple[list[str], list[str]] = ([], [])
    runs = [threading.Thread(target=ensure_pools, args=(study, each.append)) for each in said]
    runs[0].start()
    assert building.wait(60)
    runs[1].start()
    waiting.wait_for(lambda: said[1], seconds=60)
    go_on.set()
    for each in runs:
        each.join()

    assert said[1] == [f"another run is building the pool {pool.name}; waiting for it"]
    assert "building the pool" in said[0][0]


def test_the_export_of_a_trial_builds_the_pool_whose_words_it_needs(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trial,) = plan_study(study).trials
    folder = study.trial_folder(trial.trial_id)
    folder.mkdir(parents=True)
    row = plan_row(trial) | {"status": "finished", "reason": ""}
    (folder / "curve.parquet").touch()
    torch.save({"logit_scale": torch.ones(1)}, folder / "weights.pt")
    write_outcome(folder, Outcome(row=row, timing={}, weights=file_digest(folder / "weights.pt")))

    def build(_folder: Path, **_options: int) -> None:
        raise ValueError("it is built")

    monkeypatch.setattr(scorer, "build_scored_pool", build)
    with pytest.raises(ValueError, match="it is built"):
        export_trial(study, trial, tmp_path / "exported")
