"""A trial that continues from a shorter one's milestone equals the same trial run alone."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from open_clip import CLIP

from budgets.declaration.recipe import Recipe
from budgets.machine_cache import CACHE
from budgets.planning.planned_trial import Trial, continued_from, share_trunks, with_trunks
from runners.host import faults
from runners.models.load_model import Encoder
from runners.models.model import clamp_logit_scale
from runners.results import read_table
from runners.store.location import Location
from runners.training import train
from runners.training.ranks import rank, run_ranks
from runners.trials import trial_evaluation
from runners.trials.trial import run_trial, take_part
from runners.trials.trial_evaluation import Midway
from runners.trials.trial_files import MIDWAY, Outcome, drop_milestone, milestone
from study.storage.bucket_storage import BucketStorage
from tests.runners.tiny import RESULT_FILES, counted_flops, stop_at, tiny_job, tiny_trial

pytestmark = pytest.mark.slow

PLAIN = Recipe(schedule="trunk", warmup_samples=64, precision="fp32")
LENGTHS = (15, 26, 40)
STEP = 16 * 7  # FLOPs of a tiny trial's step


def trunk_of(recipe: Recipe = PLAIN, strategy: str = "clip") -> tuple[Trial, ...]:
    trials = [
        replace(tiny_trial(strategy=strategy, recipe=recipe, steps=steps), tail_flops_per_sample=9)
        for steps in LENGTHS
    ]
    return share_trunks(trials)


def run(trial: Trial, pool: Path, folder: Path, *shorter: Trial, ranks: int = 1) -> Outcome:
    folder.mkdir(exist_ok=True)
    job = tiny_job(trial, pool, folder / trial.trial_id, ranks=ranks)
    return run_trial(dataclasses.replace(job, trunk=tuple(folder / each.trial_id for each in shorter)))


def metrics_of(outcome: Outcome) -> dict[str, float]:
    return {name: value for name, value in outcome.row.items() if "/" in name or name == "train_loss"}


def same(one: Path, other: Path, trial: Trial) -> bool:
    """Return whether weights and curve of a trial are equal in two folders."""
    first, second = (torch.load(folder / trial.trial_id / "weights.pt") for folder in (one, other))
    curves = ((folder / trial.trial_id / "curve.parquet").read_bytes() for folder in (one, other))
    return all(torch.equal(value, second[name]) for name, value in first.items()) and len({*curves}) == 1


@pytest.mark.parametrize(
    ("recipe", "strategy", "ranks"),
    [
        (PLAIN, "clip", 1),
        (replace(PLAIN, ema=0.9, accumulation=2), "slip", 1),
        (replace(PLAIN, optimizer="adafactor", unmasked_tail=0.3, cooldown=0.1), "flip-50", 1),
        (PLAIN, "clip-randaugment", 2),
    ],
    ids=["plain", "EMA and accumulation", "Adafactor and tail", "two ranks"],
)
def test_each_trial_of_a_trunk_equals_the_trial_run_alone(
    pool: Path, tmp_path: Path, recipe: Recipe, strategy: str, ranks: int
) -> None:
    first, second, third = trunk_of(recipe, strategy)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    run(first, pool, shared, ranks=ranks)
    run(second, pool, shared, first, ranks=ranks)

    outcome = run(third, pool, shared, second, first, ranks=ranks)
    expected = run(replace(third, previous="", shared_samples=0), pool, alone, ranks=ranks)

    assert same(shared, alone, third)
    assert metrics_of(outcome) == metrics_of(expected)
    assert expected.row["paid_flops"] == third.train_flops == outcome.row["train_flops"]
    assert outcome.row["paid_flops"] == third.train_flops - second.milestone_step * STEP
    assert counted_flops(shared / third.trial_id) == third.paid_flops


@pytest.mark.parametrize(
    ("recipe", "strategy", "ranks"),
    [
        (PLAIN, "clip", 1),
        (replace(PLAIN, ema=0.9, optimizer="adafactor", unmasked_tail=0.3), "flip-50", 1),
        (PLAIN, "clip-randaugment", 2),
    ],
    ids=["plain", "EMA and tail", "two ranks"],
)
def test_a_branch_of_an_evaluated_trunk_equals_the_trial_run_alone(
    pool: Path, tmp_path: Path, recipe: Recipe, strategy: str, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, trial, _ = trunk_of(recipe, strategy)
    first, _, second, branch, *_ = share_trunks(list(with_trunks(trunk_of(recipe, strategy))))
    assert first.of_trunk
    assert (second.previous, branch.previous) == (first.trial_id, second.trial_id)
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    run(first, pool, shared, ranks=ranks)
    if ranks == 1:  # among the steps whose mean is taken
        assert recipe.averaged_from(second.steps) < second.steps - 2 > first.steps
        stop_at(monkeypatch, partial(run, second, pool, shared, first), second.steps - 2)
    at_milestone = run(second, pool, shared, second, first, ranks=ranks)

    outcome = run(branch, pool, shared, second, first, ranks=ranks)
    expected = run(replace(trial, previous="", shared_samples=0), pool, alone, ranks=ranks)

    assert same(shared, alone, branch)
    assert metrics_of(outcome) == metrics_of(expected)
    assert (
        counted_flops(shared / branch.trial_id) == branch.paid_flops == trial.train_flops - second.train_flops
    )
    restarted = run(replace(second, previous="", shared_samples=0), pool, alone, ranks=ranks)
    assert metrics_of(restarted) == metrics_of(at_milestone)
    assert {"held-out/top1", "held-out/top1_average", "held-out/top1_average_se"} < at_milestone.row.keys()
    assert not any("/count_" in name for name in at_milestone.row)


def test_a_trunk_is_evaluated_at_its_last_weights_and_at_the_mean_of_its_last_fifth(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, trial = trunk_of()[0], next(with_trunks(trunk_of()[-1:]))
    assert (trial.steps, trial.recipe.averaged_from(trial.steps)) == (32, 26)
    weights, measured = [], []

    def evaluated(encoder: Encoder, *_: object) -> dict[str, float]:
        measured.append(encoder.model.visual.proj.detach().clone())
        return {}

    def stepped(model: CLIP) -> None:
        clamp_logit_scale(model)
        weights.append(model.visual.proj.detach().clone())

    run(short, pool, tmp_path)  # whose milestone has no average
    monkeypatch.setattr(trial_evaluation, "evaluate", evaluated)
    monkeypatch.setattr(train, "clamp_logit_scale", stepped)
    run(continued_from(trial, short), pool, tmp_path, short)

    last, mean = measured
    assert torch.equal(last, weights[-1])
    torch.testing.assert_close(mean, torch.stack(weights[-6:]).mean(0))
    stored = torch.load(tmp_path / trial.trial_id / "weights.pt")
    assert torch.equal(stored["visual.proj"], last)


def test_a_trial_leaves_one_milestone_and_takes_the_longest_sound_one(pool: Path, tmp_path: Path) -> None:
    first, second, third = trunk_of()
    run(first, pool, tmp_path)
    run(second, pool, tmp_path, first)
    left = milestone(tmp_path / second.trial_id)
    assert left is not None
    assert {path.name for path in left.parent.iterdir()} == RESULT_FILES | {left.name}
    left.write_bytes(left.read_bytes()[:-7])

    outcome = run(third, pool, tmp_path, second, first)

    # The damaged milestone is computed again, from the one before it, and is no part of what was paid.
    assert counted_flops(tmp_path / third.trial_id) == (40 - first.milestone_step) * STEP
    assert outcome.row["paid_flops"] == (40 - second.milestone_step) * STEP
    run(third, pool, tmp_path / "alone")
    assert same(tmp_path, tmp_path / "alone", third)
    assert milestone(tmp_path / second.trial_id) is None


@pytest.mark.parametrize("at", [11, 12, 13])
def test_a_trial_stopped_around_its_milestone_goes_on_and_keeps_it(
    pool: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = trunk_of()
    assert first.milestone_step == 12
    stop_at(monkeypatch, partial(run, first, pool, tmp_path), at)
    if at == 12:
        drop_milestone(tmp_path / first.trial_id)  # as if it had been killed before it was there
    run(first, pool, tmp_path)
    assert counted_flops(tmp_path / first.trial_id) == 15 * STEP

    run(second, pool, tmp_path, first)
    run(second, pool, tmp_path / "alone")
    assert same(tmp_path, tmp_path / "alone", second)


def test_a_milestone_waits_for_unreachable_storage_with_the_metrics_on_the_way(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = trunk_of()
    write, failures = Midway.write, [OSError("after the evaluation"), OSError("before the milestone")]

    def fail_at_first(midway: Midway) -> None:
        if failures:
            raise failures.pop(0)
        write(midway)

    monkeypatch.setattr(faults, "_PAUSES_S", (0.01,))
    monkeypatch.setattr(Midway, "write", fail_at_first)
    job = tiny_job(first, pool, tmp_path / first.trial_id)
    run_trial(replace(job, evaluate_at=(first.milestone_step / first.steps,)))

    assert not failures
    assert milestone(tmp_path / first.trial_id) is not None
    assert read_table(tmp_path / first.trial_id / MIDWAY)["step"].tolist() == [first.milestone_step]


def on_own_node(cache: Path, call: Callable[[], object]) -> object:
    os.environ[CACHE] = str(cache / str(rank()))
    return call()


def test_nodes_with_copies_of_their_own_continue_from_the_milestone_below_a_url(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = trunk_of()
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    study, there = (
        BucketStorage(Location(f"file://{tmp_path}"), "study", tmp_path / "driver"),
        tmp_path / "study",
    )
    job = tiny_job(first, pool, tmp_path / "driver" / "trials" / first.trial_id)
    study.share(job, lambda _line: None)
    study.call(run_trial, job)()
    longer = tiny_job(second, pool, job.folder.with_name(second.trial_id))
    call = study.call(take_part, replace(longer, trunk=(job.folder,)), nodes=2)

    run_ranks(partial(on_own_node, tmp_path / "nodes", call), count=2, gpus=False)

    assert counted_flops(there / "trials" / second.trial_id) == second.paid_flops < second.train_flops
    run(first, pool, tmp_path / "shared")
    run(second, pool, tmp_path / "shared", first, ranks=2)
    assert same(there / "trials", tmp_path / "shared", second)
    assert not list((tmp_path / "nodes").rglob("*milestone*"))
