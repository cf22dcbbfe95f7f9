"""A pool and a trial small enough to train in a test."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import Batch, Strategy
from budgets.declaration.recipe import Recipe
from budgets.planning.planned_trial import Cell, Trial
from runners.embedded.embedded_pool import build_embedded_pool
from runners.host.faults import Left
from runners.training.check_strategy import column_of
from runners.trials.meter import read_meter
from runners.trials.trial import Watch
from runners.trials.trial_job import TrialJob

RESULT_FILES = {".lock", "curve.parquet", "meter", "result.json", "weights.pt"}
"""Files of a trial that has ended, without damage, midway metrics or a milestone."""


def tiny_pool(path: Path) -> Path:
    """Build a pool of 128 pairs, and 100 drawings to evaluate on."""
    build_embedded_pool(path, pairs=128, seed=0, score=None, evaluation_sizes={"held-out": 100})
    return path


def made_up_widths(strategy: Strategy) -> dict[str, int]:
    """Return widths of a strategy's columns: arrays for the embeddings of a teacher, else texts."""
    return {name: 64 if name.startswith("teacher") else 0 for name in strategy.columns}


def batch_of(strategy: Strategy, images: Tensor, tokens: Tensor) -> Batch:
    """Return a batch with the columns of a strategy, of made-up values."""
    columns = {name: column_of(tokens, width) for name, width in made_up_widths(strategy).items()}
    return Batch(images=images, tokens=tokens, ids=torch.arange(len(tokens)), columns=columns)


def tiny_trial(*, strategy: str = "clip", recipe: Recipe | None = None, steps: int = 30) -> Trial:
    """Return a trial with steps of 16 pairs and recognisable round costs."""
    return Trial(
        cell=Cell(
            regime="equal-samples",
            subset_size=100,
            quality="all",
            architecture="mini-ViT-XXS-8",
            strategy=strategy,
            level_flops=None,
        ),
        seed=0,
        pool="tiny",
        evaluation_sets=("held-out",),
        architecture_config=load_architecture("mini-ViT-XXS-8").config,
        samples_seen=steps * 16,
        batch_size=16,
        lr_peak=1e-3,
        recipe=recipe or Recipe(precision="fp32"),
        train_flops_per_sample=7,
        evaluation_flops=11,
        parameters=13,
    )


def tiny_job(
    trial: Trial, pool: Path, folder: Path, *, checkpoint_steps: int = 0, ranks: int = 1
) -> TrialJob:
    """Return the trial's job on the processor, with one thread per rank and no checkpoints by time."""
    return TrialJob(
        trial=trial,
        pools=(pool,),
        evaluation={"held-out": pool / "evaluation" / "held-out"},
        folder=folder,
        cpus=ranks,
        gpus=0,
        checkpoint_s=1000,
        loader_bytes=2**28,
        checkpoint_steps=checkpoint_steps,
        ranks=ranks,
    )


def counted_flops(folder: Path) -> int:
    """Return the training FLOPs that a trial's meter has counted."""
    count = read_meter(folder)
    assert count is not None
    return count.train_flops


def stop_at(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], step: int) -> None:
    """Run a trial in this process up to a step, after which it is asked to leave."""
    after = Watch.after_step

    def stop(self: Watch, done: int, **seconds: float) -> None:
        if done == step:
            signal.raise_signal(signal.SIGTERM)
        after(self, done, **seconds)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "after_step", stop)
        with pytest.raises(Left):
            run()
