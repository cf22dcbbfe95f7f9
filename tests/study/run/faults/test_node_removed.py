"""Removal of a cluster node at work: its trials continue elsewhere and give the same rows."""

import time
from pathlib import Path

import pandas as pd
import pytest

from budgets.book import Book
from budgets.ledger import read_entries
from runners.results import read_json_lines
from runners.scheduling.ray_backend.core import kill_node
from runners.trials.trial_files import checkpoints
from study.cli import main
from tests.holding import hold, let_go
from tests.study.conftest import start_study, write_declaration
from tests.study.ray_head import Head

pytestmark = pytest.mark.ray

LONG = {"levels": "30 GFLOP", "seeds": "0, 1"}


def test_the_trials_of_a_removed_node_continue_elsewhere(pool: Path, tmp_path: Path, on_ray: Head) -> None:
    declaration, folder = write_declaration(tmp_path, pool, **LONG), tmp_path / "tiny"
    hold(folder, step=60)
    with on_ray.joined() as node, start_study("run", declaration, "--results", tmp_path) as process:
        deadline = time.monotonic() + 120
        while sum(bool(checkpoints(path)) for path in folder.glob("trials/*")) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline, "no trial began"
            time.sleep(0.05)
        started = read_json_lines(folder / "events.jsonl").dropna(subset=["nodes"])
        victim = node.node_id
        assert [victim] in started["nodes"].tolist()
        kill_node(node)
        let_go(folder)
        output, errors = process.communicate(timeout=200)

    assert process.returncode == 0, output + errors
    assert "retrying from its last checkpoint" in output
    quiet = tmp_path / "quiet"
    assert main(["run", str(declaration), "--results", str(quiet), "--backend", "local"]) == 0
    for table in ("results.parquet", "curves.parquet"):
        assert (folder / table).read_bytes() == (quiet / "tiny" / table).read_bytes()
    events = read_json_lines(folder / "events.jsonl")
    again = events[(events["event"] == "trial-started") & events["trial"].duplicated()]
    assert victim not in {node for each in again["nodes"].iloc[1:] for node in each}
    entries = read_entries(folder / "ledger.jsonl")
    assert not Book.of(entries).open
    spent = sum(entry.train_flops for entry in entries if entry.entry == "spent")
    plan = pd.read_parquet(folder / "plan.parquet")
    assert spent == (plan["samples_seen"] * plan["train_flops_per_sample"]).sum()
