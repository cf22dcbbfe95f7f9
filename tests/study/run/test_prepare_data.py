"""Data of a run: pools are built once; copies of subsets are planned, made by the run, and read by trials."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from budgets.machine_cache import CACHE
from runners.data.build.rescore import set_score
from runners.data.pool import pool as pool_file
from runners.data.pool.pool import Pool, Scorer
from runners.embedded import scorer
from runners.embedded.embedded_pool import build_embedded_pool
from runners.results import plan_row
from runners.store.location import Location
from runners.trials.trial_files import Outcome, file_digest, write_outcome
from study.run.export_trial import export_trial
from study.run.prepare_data import ensure_pools, share_data
from study.state.plan_study import plan_study
from study.state.study import Study, trial_job
from tests.root import ROOT
from tests.runners.store.bucket import Bucket
from tests.study.conftest import Run
from tests.study.tiny_study import TinyStudy, study_of
from tests.waiting import wait_for

TOP = ("quality: [top50]", "quality: [top10 by mine, all]")


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a pool whose shards are in the order of another score than ``mine``."""
    path = tmp_path_factory.mktemp("pools") / "web"
    drawn = np.random.default_rng(0)
    build_embedded_pool(
        path, pairs=1024, seed=5, evaluation_sizes={"held-out": 100, "retrieval": 32},
        score=lambda images, _: images.mean(axis=(1, 2, 3), dtype=np.float32),
    )  # fmt: skip
    set_score(Pool.open(path), drawn.normal(size=1024).astype(np.float32), Scorer(name="mine"))
    return path


def results(study: TinyStudy) -> dict[str, bytes]:
    weights = {str(path.relative_to(study.folder)): path.read_bytes() for path in study.trials("weights.pt")}
    return study.tables() | weights


KILLED = """
import os, signal, sys
from runners.data.build import subset_copy
from study.cli import main
from study.show.progress import Progress
subset_copy._SHARD_BYTES = 100_000
Progress.step = lambda _view, _text, share: share and os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[1:])
"""
"""A command that kills itself when the first shard of a copy is written."""


@pytest.mark.slow
def test_trials_on_a_copy_have_the_same_ids_and_weights_and_a_killed_copy_continues(
    tmp_path: Path, scattered: Path
) -> None:
    plain = TinyStudy(tmp_path / "plain", scattered)
    plain.edit(TOP)
    plain.run()
    study = TinyStudy(tmp_path / "copied", scattered, more="materialise_from: 1\n")
    study.edit(TOP)
    words = ("run", study.declaration, "--results", study.place, "--pools", study.place, "--backend", "local")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *words], cwd=ROOT, check=False, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    said = study.says("status")
    assert "of 103 pairs of the pool web (10 % of it); `run` continues it" in said

    said = study.run(f"--pools {study.place}")

    assert "copied pairs of web: 103 (top10 by mine); to " in said
    assert results(study) == results(plain)
    (copy,) = study.place.glob("web-copy-*")
    jobs = [trial_job(study.study, trial).pools for trial in study.plan.trials]
    assert sorted(jobs) == sorted([(copy,), (scattered,)])
    assert study.status()["copying"] == ""
    assert "copied pairs" not in study.run(f"--pools {study.place}"), "made once"


@pytest.mark.slow
def test_resized_images_are_other_trials_on_a_copy_in_the_bucket_that_a_command_can_make(
    tmp_path: Path, scattered: Path, bucket: Bucket, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    for path in scattered.rglob("*.*"):
        Location(bucket.url).put(path, f"web/{path.relative_to(scattered)}")
    plain = TinyStudy(tmp_path / "plain", scattered, more="materialise_from: off\n")
    study = TinyStudy(tmp_path, scattered, training="  resized_images: 16\n", more=f"storage: {bucket.url}\n")
    for each in (plain, study):
        each.edit((str(scattered), f"{bucket.url}/web"), ("[top50]", "[top50 by mine]"))
    said = plain.says(f"plan --pools {plain.place}")
    assert "(top50 by mine) fetches" in said
    assert "they are not copied: materialise_from is off" in said
    plain.edit(("materialise_from: off", "materialise_from: 2"))
    assert "the run copies them first, once for all trials" in plain.says(f"plan --pools {plain.place}")
    plain.edit(("materialise_from: 2", "materialise_from: off"))
    assert not {trial.trial_id for trial in plain.plan.trials} & {t.trial_id for t in study.plan.trials}
    assert "below the 32 pixels of mini-ViT-XXS-8, which sees enlarged images" in study.says("plan")
    command = f"data materialise {study.declaration} --results {study.place} --workers 1"
    assert f"copied pairs of web: 512 (top50 by mine); to {bucket.url}/copies/web-copy-" in run(command)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache of another machine"))
    assert "nothing to copy" in run(command)

    assert "copied pairs" not in study.run()

    assert any(name.startswith("pools/web-copy-") for name in Location(bucket.url).list()), "nodes have it"
    assert study.table()["resized_images"].tolist() == [16.0]
    assert study.statuses() == {"mini-ViT-XXS-8": "finished"}
    refused = run(f"data materialise {plain.declaration} --results {plain.place}", code=2)
    assert "tiny declares no copies: materialise_from and" in refused


@pytest.mark.slow
@pytest.mark.parametrize("in_bucket", [False, True])
def test_subsets_of_large_pools_are_chosen_by_the_driver_for_all_nodes(
    tmp_path: Path, scattered: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, in_bucket: bool
) -> None:
    monkeypatch.setattr(pool_file, "_FEW", 0)
    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))
    study = TinyStudy(tmp_path, scattered, more=f"storage: {bucket.url}\n" if in_bucket else "")
    trial = study.plan.trials[0]
    (part,) = trial.components
    for _ in range(2):
        share_data(study.study, [trial], lambda _line: None)
    monkeypatch.setenv(CACHE, str(tmp_path / "node"))
    monkeypatch.setattr(pool_file, "select", lambda *_, **__: pytest.fail("the whole index would be read"))

    shared = trial_job(study.study, trial).subsets
    chosen = Pool.open(scattered).subset(size=part.pairs, quality=part.quality, shared=shared)

    assert len(chosen) == part.pairs


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
    wait_for(lambda: said[1], seconds=60)
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
