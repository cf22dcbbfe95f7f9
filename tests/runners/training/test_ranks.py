"""Ranks: two give the result of one, leave and resume together, and report which one died."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from budgets.declaration.recipe import Recipe
from runners.data.pool.pool import Pool
from runners.data.reading import training_set
from runners.host.faults import Notice, ProcessEnded, fault_of
from runners.host.process import Exit, FreshProcess, first_cause
from runners.models import model
from runners.store.shard_reader import ShardReader
from runners.training import ranks as ranks_module
from runners.training.learner import batch_norm_of_all_ranks
from runners.training.ranks import decided_by_first, gather, rank, rank_count, run_ranks
from runners.trials import checkpoint
from runners.trials.trial import Watch, run_trial
from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import load_subset, set_up
from tests.fresh import in_fresh_process
from tests.runners.data.pool.test_damage import flip_byte
from tests.runners.tiny import stop_at, tiny_job, tiny_trial

pytestmark = pytest.mark.slow


Jobs = Callable[[str, Recipe, int], TrialJob]


@pytest.fixture
def jobs(pool: Path, tmp_path: Path) -> Jobs:
    def make(strategy: str, recipe: Recipe, count: int) -> TrialJob:
        trial = tiny_trial(strategy=strategy, recipe=recipe)
        return tiny_job(trial, pool, tmp_path / f"{trial.trial_id}-{count}", ranks=count)

    return make


@pytest.mark.parametrize(
    ("strategy", "recipe"),
    [
        ("clip", Recipe(precision="fp32")),
        ("fastclip", Recipe(precision="fp32", accumulation=2, eps=1e-3)),
        # The gradient of a key's bias is nothing but rounding; a small epsilon would make steps of it.
        ("siglip", Recipe(precision="fp32", accumulation=2, ema=0.9, gradient_clip=None, eps=1e-3)),
    ],
)
def test_two_ranks_equal_one_in_losses_and_weights(jobs: Jobs, strategy: str, recipe: Recipe) -> None:
    one, two = (replace(jobs(strategy, recipe, count), evaluate_at=(0.5,)) for count in (1, 2))

    alone, together = run_trial(one), run_trial(two)

    losses = [pd.read_parquet(job.folder / "curve.parquet")["loss"] for job in (one, two)]
    assert len(losses[0]) == 30
    assert losses[1].to_numpy() == pytest.approx(losses[0].to_numpy(), rel=2e-5)
    assert losses[0].iloc[-1] < losses[0].iloc[0]
    weights = [torch.load(job.folder / "weights.pt", weights_only=True) for job in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=2e-5, msg=name)
    same = {"samples_seen", "train_flops", "evaluation_flops", "steps", "held-out/count"}
    assert {key: together.row[key] for key in same} == {key: alone.row[key] for key in same}
    midway = [pd.read_parquet(job.folder / "midway.parquet") for job in (one, two)]
    assert [list(rows["step"]) for rows in midway] == [[15], [15]]
    assert midway[1]["held-out/top5"].tolist() == pytest.approx(midway[0]["held-out/top5"].tolist(), abs=0.03)
    assert together.row["held-out/top5"] == pytest.approx(alone.row["held-out/top5"], abs=0.03)


def _joined() -> tuple[int, list[float]]:
    return rank_count(), gather(torch.tensor([float(rank()), 10.0 + rank()])).tolist()


def test_features_are_joined_in_the_order_of_ranks() -> None:
    assert run_ranks(_joined, count=3, gpus=False) == (3, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0])


def _one_dies(how: str, died: Path) -> None:
    if rank() == 1:
        died.touch()
        if how != "failed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("its shard is damaged")
    if how == "killed while the other computes":
        time.sleep(300)
    dist.barrier()


@pytest.mark.parametrize(
    ("how", "reason", "fault"),
    [
        ("killed", "SIGKILL", "crashed"),
        ("killed while the other computes", "SIGKILL", "crashed"),
        ("failed", "ValueError: its shard is damaged", "failed"),
    ],
)
def test_rank_that_dies_or_fails_ends_the_others_within_seconds_and_is_named_with_its_own_reason(
    tmp_path: Path, how: str, reason: str, fault: str
) -> None:
    died = tmp_path / "died"
    with pytest.raises(ProcessEnded, match=f"rank 1 of 2: .*{reason}") as raised:
        run_ranks(partial(_one_dies, how, died), count=2, gpus=False)

    assert raised.value.fault == fault
    assert time.time() - died.stat().st_mtime < 20  # 2 s on an idle machine; the other would take 300 s


def test_lost_connection_is_reported_after_its_cause() -> None:
    lost = Exit(how="crashed", reason="NCCL error", lost_connection=True)
    failed = Exit(how="failed", reason="its shard is damaged")

    class Ended:
        def __init__(self, end: Exit) -> None:
            self.connection, sender = multiprocessing.Pipe(duplex=False)
            sender.close()
            self.wait = lambda: end

    found = ranks_module.wait_for_ends([Ended(lost), Ended(failed)], Notice())  # type: ignore[list-item]
    assert first_cause(found.values()) == failed


def test_the_first_cause_is_a_request_to_leave_then_a_crash_then_a_failure_then_an_abort() -> None:
    aborted = FreshProcess(pickle.dumps(os.abort)).wait()  # as NCCL's watchdog does in the other ranks
    full, left, crashed, failed = (Exit(how=how, reason="") for how in ("full", "left", "crashed", "failed"))

    assert "SIGABRT" in aborted.reason
    assert first_cause([aborted, full]) == full
    assert first_cause([aborted]) == aborted
    assert first_cause([failed, crashed, left]) == left
    assert first_cause([failed, crashed]) == crashed
    assert first_cause([Exit(how="finished")]) is None


@pytest.mark.parametrize("gpus", [False, True])
def test_process_group_has_the_declared_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, gpus: bool
) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: given.update(how, backend=backend))
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: given.update(device=number))
    for name in ranks_module.INTERFACES:
        monkeypatch.setenv(name, "lo")

    ranks_module.join_group(f"file://{tmp_path}/store", 3, 1, count=4, gpus=gpus)

    assert given["timeout"] == timedelta(seconds=ranks_module.GROUP_TIMEOUT_S)
    assert given["backend"] == ("nccl" if gpus else "gloo")
    assert given.get("device") == (1 if gpus else None)


def test_ranks_of_nodes_that_do_not_reach_each_other_are_a_crash_and_not_an_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranks_module, "_JOIN_S", 0.2)
    with pytest.raises(TimeoutError, match=r"127.0.0.1:0 within 0 s") as error:
        ranks_module.join_group("tcp://127.0.0.1:0", 0, 0, count=2, gpus=False)
    assert fault_of(error.value) == "crashed"


def _chosen(folder: Path) -> list[float]:
    def stale(folder: Path) -> list[Path]:
        return list(folder.glob("nothing"))

    if rank():  # its view of a shared file system is older
        pytest.MonkeyPatch().setattr(checkpoint, "checkpoints", stale)
    name, step = decided_by_first(lambda: checkpoint.newest_checkpoint(folder)) or ("", 0)
    return gather(torch.tensor([float(step), float(name.split("-")[1])])).tolist()


def test_first_rank_chooses_the_checkpoint_of_all(tmp_path: Path) -> None:
    content = b"state"
    digest = hashlib.sha256(content).hexdigest()[:16]
    (tmp_path / f"checkpoint-{20:010d}-{digest}.pt").write_bytes(content)
    (tmp_path / f"checkpoint-{30:010d}-{digest}.pt").write_bytes(b"damaged")

    assert run_ranks(partial(_chosen, tmp_path), count=2, gpus=False) == [20, 20, 20, 20]
    assert len(list(tmp_path.iterdir())) == 1


def _precisions(job: TrialJob) -> list[float]:
    pytest.MonkeyPatch().setattr(model, "_processor_has_bf16", lambda: rank() > 0)
    return gather(torch.tensor([float(set_up(job).precision == "fp32")])).tolist()


def test_first_rank_chooses_the_automatic_precision_of_all(jobs: Jobs) -> None:
    job = jobs("clip", Recipe(precision="auto"), 2)

    assert run_ranks(partial(_precisions, job), count=2, gpus=False) == [1, 1]


def _opened(job: TrialJob, looked: Path) -> list[float]:
    sizes = ShardReader.sizes

    def look(place: ShardReader, shards: Sequence[str]) -> Mapping[str, int]:
        with looked.open("a") as file:
            file.write("x")
        return sizes(place, shards)

    pytest.MonkeyPatch().setattr(ShardReader, "sizes", look)
    load_subset(job)
    return gather(torch.tensor([float(rank())])).tolist()


def test_the_first_rank_alone_looks_at_the_shards(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs("clip", Recipe(), 2)

    assert run_ranks(partial(_opened, job, tmp_path / "looked"), count=2, gpus=False) == [0, 1]
    assert (tmp_path / "looked").read_text() == "x"


def test_damage_is_that_of_all_ranks_and_of_all_starts(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streaming = {"runners.data.reading.training_set.IN_MEMORY_BYTES": 0}
    monkeypatch.setattr(training_set, "IN_MEMORY_BYTES", 0)
    damaged = Pool.open(shutil.copytree(pool, tmp_path / "damaged"))
    for row in damaged.subset(size=100, quality="all")[np.arange(0, 100, 14)]:
        flip_byte(damaged, int(row))
    damage = []
    for name, count in (("one", 1), ("resumed", 1), ("two", 2)):
        job = tiny_job(tiny_trial(steps=6), damaged.path, tmp_path / name, ranks=count)
        job = replace(job, damage_tolerance=0.08)
        if name == "resumed":
            stop_at(monkeypatch, partial(run_trial, job), 4)
        outcome = in_fresh_process(partial(run_trial, job), streaming)
        lines = sorted((job.folder / "damage.jsonl").read_text().splitlines())
        damage.append((outcome.timing["damaged_pairs"], lines))

    assert damage[0] == damage[1] == damage[2]
    assert damage[0][0] == len(damage[0][1]) > 4
    with pytest.raises(ProcessEnded, match=r"of 100 pairs .* 5\.00 %"):  # of both ranks together
        in_fresh_process(
            partial(run_trial, replace(job, folder=tmp_path / "strict", damage_tolerance=0.05)), streaming
        )


def _run_and_tell(job: TrialJob) -> Outcome:
    """Run a trial, and ask it to leave once it has begun; it waits for that after step 75."""

    def tell() -> None:
        while not list(job.folder.glob("progress.json")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    after = Watch.after_step

    def stay(self: Watch, done: int, **seconds: float) -> None:
        after(self, done, **seconds)
        while done == 75 and not self._notice.by:  # a trial that ended before it was told would end the tests
            time.sleep(0.01)

    pytest.MonkeyPatch().setattr(Watch, "after_step", stay)
    threading.Thread(target=tell).start()
    return run_trial(job)


def test_ranks_asked_to_leave_resume_together(jobs: Jobs) -> None:
    job = jobs("clip", Recipe(precision="fp32"), 2)
    job = replace(job, trial=replace(job.trial, samples_seen=2400))
    quiet, left = run_trial(job), replace(job, folder=job.folder.with_name("left"))

    with pytest.raises(ProcessEnded, match="rank 0 of 2: Left: SIGTERM") as raised:
        in_fresh_process(partial(_run_and_tell, left))

    assert raised.value.fault == "left"
    assert list(left.folder.glob("checkpoint-*.pt"))
    resumed = run_trial(left)
    assert json.dumps(resumed.row) == json.dumps(quiet.row)
    assert run_trial(left).timing == resumed.timing  # measured, so never twice the same: it is not run again


def _listens_late() -> str:
    if rank():
        return ""
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(0.5)
    notice = Notice()
    with notice.listening():
        end = time.monotonic() + 20
        while not notice.by and time.monotonic() < end:
            time.sleep(0.01)
    return notice.by


def test_a_rank_that_is_asked_to_leave_before_it_listens_is_asked_again() -> None:
    assert in_fresh_process(partial(run_ranks, _listens_late, count=2, gpus=False)) == "SIGTERM"


@pytest.mark.parametrize(
    ("strategy", "count", "why"), [("clip", 3, "a batch of 16 .* 3"), ("slip", 2, "batch norm .* GPUs")]
)
def test_what_ranks_cannot_train_together_is_refused(jobs: Jobs, strategy: str, count: int, why: str) -> None:
    with pytest.raises(ProcessEnded, match=why):
        run_trial(jobs(strategy, Recipe(precision="fp32"), count))


def test_batch_norm_of_all_ranks_keeps_the_activations_of_timms_layers() -> None:
    tower = timm.create_model("mobilenetv3_small_050", num_classes=8).eval()
    images = torch.randn(2, 3, 32, 32)
    alone = tower(images)

    synchronised = batch_norm_of_all_ranks(tower)

    assert any(isinstance(each, nn.SyncBatchNorm) for each in synchronised.modules())
    torch.testing.assert_close(synchronised(images), alone)
