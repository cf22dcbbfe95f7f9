"""A run repeats only what changed or failed; finished trials stay as they are."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from budgets.book import Book
from budgets.ledger import read_entries
from runners.trials.run_on_node import run_trial
from runners.trials.trial_files import Outcome, kept_steps
from runners.trials.trial_job import TrialJob
from study.run import execution
from tests.holding import hold, let_go
from tests.study.conftest import write_declaration
from tests.study.run.faults.local_study import (
    Said,
    at_work,
    booked,
    finished,
    logged,
    run,
    start,
    statuses,
    wait_for,
)

pytestmark = pytest.mark.slow


def test_a_changed_declaration_runs_only_changed_trials_and_reports_the_old_ones(
    pool: Path, tmp_path: Path, capsys: Said
) -> None:
    declaration, folder = write_declaration(tmp_path, pool, seeds="0, 1"), tmp_path / "tiny"
    assert run(declaration) == 0
    first = finished(folder)

    # A level, a seed and a strategy more.
    write_declaration(tmp_path, pool, seeds="0, 1, 2", levels="3 GFLOP, 4 GFLOP", strategies="clip, slip")
    capsys.readouterr()
    assert run(declaration, "--dry-run") == 0
    assert "12 trials: 2 finished, 10 to run" in capsys.readouterr().out
    assert run(declaration, "--only", "slipp") == 2
    assert "'slipp' matches no trial of this plan" in capsys.readouterr().err
    assert finished(folder) == first
    assert run(declaration, "--only", "slip 4", "--only", "clip 3") == 0
    results = pd.read_parquet(folder / "results.parquet")
    assert results.value_counts(["strategy", "level_flops"]).to_dict() == {("slip", 4e9): 3, ("clip", 3e9): 3}
    assert {path: state for path, state in finished(folder).items() if path in first} == first

    # Another learning rate, and the second level gone: new trials, and old ones that no cell asks for.
    text = declaration.read_text().replace("ViT-XXS-8: 2e-3", "ViT-XXS-8: 3e-3")
    declaration.write_text(text.replace("3 GFLOP, 4 GFLOP", "3 GFLOP"))
    spent = booked(folder, "spent")
    capsys.readouterr()
    assert run(declaration, "--only", "clip") == 0
    assert "belong to trials that are not in this declaration" in capsys.readouterr().out
    assert pd.read_parquet(folder / "results.parquet")["lr_peak"].tolist() == [3e-3] * 3
    assert {path: state for path, state in finished(folder).items() if path in first} == first
    assert booked(folder, "spent") > spent


def test_a_failed_and_a_diverged_trial_do_not_stop_the_others(
    pool: Path, tmp_path: Path, capsys: Said
) -> None:
    buggy = json.loads(Path("budgets/cost/catalogue/mini-ViT-XXS-8.json").read_text())
    buggy["vision_cfg"]["act_kwargs"] = {"slope": 1}  # nothing checks it before the model is built
    (tmp_path / "catalogue").mkdir()
    (tmp_path / "catalogue" / "buggy.json").write_text(json.dumps(buggy))
    architectures = "buggy, mini-ViT-XXS-8, mini-ViT-XS-8"
    declaration = write_declaration(tmp_path, pool, architectures=architectures)
    text = declaration.read_text().replace("mini-ViT-XXS-8: 2e-3", "buggy: 1e-3, mini-ViT-XXS-8: 10")
    text = text.replace("batch_size: 16", "batch_size: 16\n  weight_decay: 1000\n  warmup: 0%")
    declaration.write_text(text + f"catalogue: {tmp_path / 'catalogue'}\n")
    folder = tmp_path / "tiny"

    assert run(declaration) == 1
    assert "FAILED buggy clip" in capsys.readouterr().out
    expected = {"buggy": "failed", "mini-ViT-XXS-8": "diverged", "mini-ViT-XS-8": "finished"}
    assert statuses(folder) == expected
    reasons = pd.read_parquet(folder / "results.parquet").set_index("architecture")["reason"]
    assert "TypeError" in reasons["buggy"]
    assert "the loss is not finite" in reasons["mini-ViT-XXS-8"]
    first, entries = finished(folder), read_entries(folder / "ledger.jsonl")
    assert not Book.of(entries).open

    assert run(declaration) == 1
    assert "1 failed in an earlier run; --retry-failed runs them again" in capsys.readouterr().out
    assert read_entries(folder / "ledger.jsonl") == entries

    assert run(declaration, "--only", "mini-ViT-XS-8") == 0, "the failed trial is not selected"
    assert "--retry-failed" not in capsys.readouterr().out
    assert statuses(folder) == expected

    assert run(declaration, "--retry-failed") == 1
    assert statuses(folder) == expected
    assert finished(folder) == first
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("trial-started") == 4
    assert "trial-retried" not in {event["event"] for event in events}


def test_a_trial_without_retries_left_keeps_checkpoint_and_log_for_retry_failed(
    pool: Path, tmp_path: Path
) -> None:
    declaration, folder = write_declaration(tmp_path, pool, levels="25 GFLOP"), tmp_path / "tiny"
    text = declaration.read_text().replace("checkpoint: 0.2 s", "checkpoint: 0.1 s, retries: 0")
    declaration.write_text(text + "loggers: [tensorboard]\n")
    hold(folder, step=100)
    with start(declaration) as process:
        wait_for(lambda: at_work(folder) and logged(folder))
        (trial,) = at_work(folder)
        os.kill(json.loads((trial / "progress.json").read_text())["pid"], signal.SIGKILL)
        output, errors = process.communicate(timeout=240)

    assert process.returncode == 1, output + errors
    assert statuses(folder) == {"mini-ViT-XXS-8": "failed"}
    lost, entries = booked(folder, "wasted"), read_entries(folder / "ledger.jsonl")
    assert list(Book.of(entries).open) == [trial.name]
    kept = logged(folder)

    let_go(folder)
    assert run(declaration, "--retry-failed") == 0
    assert statuses(folder) == {"mini-ViT-XXS-8": "finished"}
    assert booked(folder, "wasted") == lost
    assert booked(folder, "spent") == Book.of(entries).open[trial.name].left
    curve = pd.read_parquet(folder / "curves.parquet")
    assert logged(folder) == pytest.approx(dict(zip(curve["samples_seen"], curve["loss"], strict=True)))
    assert kept.items() <= logged(folder).items()
    assert len(kept) < len(curve)


def _with_little_memory(job: TrialJob) -> Outcome:
    from runners.trials.trial import Watch  # noqa: PLC0415 - in the trial's process alone

    before = Watch.before_step

    def before_step(self: Watch) -> None:
        if job.trial.recipe.accumulation == 1 and self._done == 15:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")
        before(self)

    Watch.before_step = before_step  # type: ignore[method-assign]
    return run_trial(job)


def test_a_trial_out_of_gpu_memory_goes_on_from_its_checkpoint_with_accumulation(
    pool: Path, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "run_trial", _with_little_memory)
    declaration, folder = write_declaration(tmp_path, pool), tmp_path / "tiny"
    text = declaration.read_text().replace("checkpoint: 0.2 s", "checkpoint_steps: 10")
    declaration.write_text(text)

    assert run(declaration) == 1
    assert "training.accumulation, training.gradient_checkpointing" in capsys.readouterr().out
    assert statuses(folder) == {"mini-ViT-XXS-8": "failed"}
    (trial,) = at_work(folder)
    assert kept_steps(trial) == 10
    lost, entries = booked(folder, "wasted"), read_entries(folder / "ledger.jsonl")
    assert list(Book.of(entries).open) == [trial.name]
    assert lost > 0

    declaration.write_text(text.replace("batch_size: 16", "batch_size: 16\n  accumulation: 2"))
    assert run(declaration, "--retry-failed") == 0
    assert statuses(folder) == {"mini-ViT-XXS-8": "finished"}
    assert booked(folder, "wasted") == lost, "no step was repeated"
