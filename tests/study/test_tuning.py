"""A study that tunes its learning rate first: real Ray Tune, real trials, a driver that is killed."""

import json
import signal
from pathlib import Path

import pandas as pd

from budgets.ledger import read_entries, reserved
from budgets.reconcile import reconcile
from runners.results import read_table
from study.load import load_declaration
from study.study import Study, plan_study
from tests.study.conftest import start_study, study, write_declaration
from tests.study.events import require_documented
from tests.study.test_run import wait_for

TUNING = "tuning: {share: 5%, fields: {lr_peak: [1e-5, 1e-3]}, seeds: [1000]}\n"


def test_tuning_widens_its_values_at_the_edge_goes_on_after_a_kill_and_decides_the_grid(
    pool: Path, tmp_path: Path
) -> None:
    declaration = write_declaration(tmp_path, pool, levels="25 GFLOP, 30 GFLOP")
    declaration.write_text(declaration.read_text() + TUNING)
    folder = tmp_path / "tiny"
    with start_study("run", declaration, "--results", tmp_path) as first:
        wait_for(lambda: list(folder.glob("trials/*/result.json")))
        first.send_signal(signal.SIGKILL)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}

    ended = study("run", declaration, "--results", tmp_path)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished work was done again"
    tried = read_table(folder / "tuning.parquet")
    assert tried["tuned_lr_peak"].tolist() == [1e-5, 1e-3, 1e-1], "the higher one won at the edge"
    assert set(tried["level_flops"]) == {25e9}
    (winner,) = json.loads((folder / "tuning.json").read_text())["winners"]
    assert (winner["values"], winner["widened"], winner["at_edge"]) == ({"lr_peak": 1e-3}, ["lr_peak"], [])
    assert pd.read_parquet(folder / "results.parquet")["lr_peak"].tolist() == [1e-3, 1e-3]

    entries = read_entries(folder / "ledger.jsonl")
    assert reserved(entries) == {}
    spent = [entry.what for entry in entries if entry.entry == "spent"]
    assert len(spent) == len(set(spent)) == 5
    loaded = Study(declaration=load_declaration(declaration), folder=folder, pools=tmp_path)
    assert reconcile(plan_study(loaded), entries).holds
    require_documented(folder / "events.jsonl")
    assert "tuning selects by held-out/top1, which is also what the study reports" in ended.stdout


def test_the_pools_validation_set_selects_where_it_has_one(tmp_path: Path) -> None:
    declaration = tmp_path / "tuned.yaml"
    declaration.write_text(
        "study: tuned\npool: {embedded: {pairs: 1024}}\nbudget: {levels: [25 GFLOP], study: 9 TFLOP}\n"
        "grid: [{architectures: [mini-ViT-XXS-8]}]\ntraining: {batch_size: 16}\n" + TUNING
    )

    ended = study("plan", declaration, "--results", tmp_path)

    assert "tuning: 2 trials, 49.81 GFLOP, at most 74.72 GFLOP where values are widened" in ended.stdout
    assert "450 GFLOP of the study budget are set aside; validation/top1 selects" in ended.stdout
    assert "1 trials wait for it" in ended.stdout
