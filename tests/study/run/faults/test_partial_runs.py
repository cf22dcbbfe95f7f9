"""A run repeats only what changed or failed; finished trials stay as they are."""

import json
import os
import re
import signal

import pytest
import torch

from budgets.planning.plan import TOO_LARGE
from runners.host.workers import usable_cores
from runners.scheduling.backend import Ended, Job
from runners.scheduling.nodes import Amounts
from runners.trials.run_on_node import run_trial
from runners.trials.trial_files import Outcome, kept_steps
from runners.trials.trial_job import TrialJob
from study.run import execution, run_context
from tests.holding import hold, let_go
from tests.root import ROOT
from tests.runners.trials.test_loggers import scalars
from tests.study.one_slot import OneSlot
from tests.study.tiny_study import TinyStudy, ended, read_json
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def test_a_changed_declaration_runs_only_changed_trials_and_reports_the_old_ones(done: TinyStudy) -> None:
    tiny, first = done, done.finished()

    # A level, a seed and a strategy more.
    tiny.declare(seeds="0, 1, 2", levels="3 GFLOP, 4 GFLOP", strategies="clip, slip")
    assert "12 trials: 2 finished, 10 to run" in tiny.says("run --dry-run")
    assert "'slipp'" in tiny.run("--only slipp", code=2)
    assert tiny.finished() == first
    tiny.run("--only 'slip 4' --only 'clip 3'")
    results = tiny.table()
    assert results.value_counts(["strategy", "level_flops"]).to_dict() == {("slip", 4e9): 3, ("clip", 3e9): 3}
    assert {path: state for path, state in tiny.finished().items() if path in first} == first

    # Another learning rate, and the second level gone: new trials, and old ones that no cell asks for.
    tiny.edit(("ViT-XXS-8: 2e-3", "ViT-XXS-8: 3e-3"), ("3 GFLOP, 4 GFLOP", "3 GFLOP"))
    spent = tiny.booked("spent")
    assert "trials that are not in this declaration" in tiny.run("--only clip")
    assert tiny.table()["lr_peak"].tolist() == [3e-3] * 3
    assert {path: state for path, state in tiny.finished().items() if path in first} == first
    assert tiny.booked("spent") > spent


def test_a_failed_and_a_diverged_trial_do_not_stop_the_others(tiny: TinyStudy) -> None:
    buggy = read_json(ROOT / "budgets" / "cost" / "catalogue" / "mini-ViT-XXS-8.json")
    buggy["vision_cfg"]["act_kwargs"] = {"slope": 1}  # nothing checks it before the model is built
    (tiny.place / "catalogue").mkdir()
    (tiny.place / "catalogue" / "buggy.json").write_text(json.dumps(buggy))
    tiny.declare(
        architectures="buggy, mini-ViT-XXS-8, mini-ViT-XS-8", lr_peak="10, buggy: 1e-3",
        training="  weight_decay: 1000\n  warmup: 0%\n", more="catalogue: catalogue\n",
    )  # fmt: skip

    assert "FAILED buggy clip" in tiny.run(code=1)
    expected = {"buggy": "failed", "mini-ViT-XXS-8": "diverged", "mini-ViT-XS-8": "finished"}
    assert tiny.statuses() == expected
    reasons = tiny.table().set_index("architecture")["reason"]
    assert "TypeError" in reasons["buggy"]
    assert "not finite" in reasons["mini-ViT-XXS-8"]
    assert not tiny.reserved()
    first, book = tiny.finished(), tiny.book()

    assert re.search("1 failed .*--retry-failed", tiny.run(code=1))
    assert tiny.book() == book

    assert "--retry-failed" not in tiny.run("--only mini-ViT-XS-8"), "the failed trial is not selected"
    assert tiny.statuses() == expected

    tiny.run("--retry-failed", code=1)
    assert tiny.statuses() == expected
    assert tiny.finished() == first
    assert tiny.event_names().count("trial-started") == 4
    assert "trial-retried" not in tiny.event_names()


def test_a_trial_without_retries_left_keeps_checkpoint_and_log_for_retry_failed(tiny: TinyStudy) -> None:
    changes = {"resources": "checkpoint: 0.1 s, retries: 0", "more": "loggers: [tensorboard]\n"}
    tiny.declare(levels="25 GFLOP", **changes)
    hold(tiny.folder, step=100)
    with tiny.start("--backend", "local") as process:
        wait_for(tiny.at_work)
        (trial,) = tiny.at_work()
        os.kill(read_json(trial / "progress.json")["pid"], signal.SIGKILL)
        ended(process, code=1)

    assert tiny.statuses() == {"mini-ViT-XXS-8": "failed"}
    lost = tiny.booked("wasted")
    assert tiny.reserved() == {trial.name}

    let_go(tiny.folder)
    tiny.run("--retry-failed")
    assert tiny.statuses() == {"mini-ViT-XXS-8": "finished"}
    assert tiny.settled() == {"spent": tiny.planned_flops(), "wasted": lost}
    curve, logged = tiny.table("curves"), scalars(tiny.folder, trial.name)["train/loss"]
    assert [samples for samples, _ in logged] == curve["samples_seen"].tolist(), "each step once"
    assert [loss for _, loss in logged] == pytest.approx(curve["loss"].tolist())


def _with_little_memory(job: TrialJob) -> Outcome:
    from runners.trials.trial import Watch  # noqa: PLC0415 - in the trial's process alone

    before = Watch.before_step

    def before_step(self: Watch) -> None:
        recipe = job.trial.recipe
        if not recipe.gradient_checkpointing and recipe.accumulation == 1 and self._done == 15:
            raise torch.OutOfMemoryError("CUDA out of memory. SweepPoint to allocate 2.00 GiB. GPU 0 has")
        before(self)

    Watch.before_step = before_step  # type: ignore[method-assign]
    return run_trial(job)


def test_a_trial_out_of_gpu_memory_goes_on_with_the_next_settings_and_others_start_with_them(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "run_trial", _with_little_memory)
    alone = f"checkpoint_steps: 10, cpus: {usable_cores()}"  # one after the other
    tiny.declare(resources=alone, seeds="0, 1")
    before = [trial.trial_id for trial in tiny.plan.trials]

    said = " ".join(tiny.run().split())
    assert said.count("too large with 1; it continues") == 1
    assert "with 1, recomputed" in said
    assert {*tiny.statuses().values()} == {"finished"}
    assert [trial.trial_id for trial in tiny.plan.trials] == before
    assert all(trial.recipe.gradient_checkpointing for trial in tiny.plan.trials)


class SmallGpu(OneSlot):
    """A node with one GPU, which has no memory for any trial, and other cores than a plan assumes."""

    def nodes(self) -> dict[str, Amounts]:
        return {"here": {"cpus": 4.0, "gpus": 1.0}}

    def _ended(self, job: Job) -> Ended:
        return Ended(trial=job.trial, how="full", reason="CUDA out of memory")


def test_a_trial_for_which_no_settings_have_the_memory_is_given_up(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "open_backend", lambda *_, **__: SmallGpu())
    tiny.declare(resources="gpus: 1")

    tiny.run(code=1)
    assert tiny.statuses() == {"mini-ViT-XXS-8": "failed"}
    assert len(tiny.events(TOO_LARGE)) < 8


def test_a_trial_out_of_gpu_memory_goes_on_from_its_checkpoint_with_accumulation(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "run_trial", _with_little_memory)
    tiny.declare(resources="checkpoint_steps: 10, rules: [{gradient_checkpointing: false}]")

    assert "training.accumulation" in tiny.run(code=1)
    assert tiny.statuses() == {"mini-ViT-XXS-8": "failed"}
    (trial,) = tiny.at_work()
    assert kept_steps(trial) == 10
    lost = tiny.booked("wasted")
    assert tiny.reserved() == {trial.name}
    assert lost > 0

    tiny.edit(("batch_size: 16", "batch_size: 16\n  accumulation: 2"))
    tiny.run("--retry-failed")
    assert tiny.statuses() == {"mini-ViT-XXS-8": "finished"}
    assert tiny.booked("wasted") == lost, "no step was repeated"
