"""Preparation of a trial before its first step: data, model and last checkpoint, on each rank."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from budgets.cost.architecture import Architecture
from budgets.cost.strategy_files import strategy_of
from budgets.planning.planned_trial import Trial
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import Tokenize, mixed_words
from runners.data.reading.training_data import Source, Tokens, TrainingData
from runners.data.reading.training_set import StreamedSet, open_data
from runners.host.faults import ProcessEnded
from runners.host.process import set_gpu_arithmetic
from runners.host.seeds import derive_seed
from runners.models.count_by_torch import ensure_counted
from runners.models.model import (
    build_model,
    compute_context,
    has_precision,
    model_tokenizer,
    resolve_precision,
)
from runners.training.backward import Context
from runners.training.learner import Learner, make_learner
from runners.training.ranks import decided_by_first, rank, rank_count
from runners.training.train import StepSchedule, train
from runners.trials.checkpoint import Notes, SavedState, read_start, restore_state
from runners.trials.trial_job import TrialJob


@dataclass(frozen=True, kw_only=True, slots=True)
class RankTraining:
    """A trial's training on one rank, at its last checkpoint."""

    learner: Learner
    data: TrainingData  # yields this rank's part of each batch
    schedule: StepSchedule
    first_step: int
    context: Context
    precision: str  # fp32, bf16 or fp16
    tokenize: Tokens
    notes: Notes  # those of the trial's own checkpoint; empty if it starts from another one's or from nothing

    def train(self, **hooks: Callable[..., None]) -> None:
        """Train to the end, with the hooks and errors of `runners.training.train.train`."""
        train(
            self.learner, self.data, self.schedule, first_step=self.first_step, context=self.context, **hooks
        )


def set_up(job: TrialJob) -> RankTraining:
    """Prepare everything that training needs, on any rank.

    Raises:
        ValueError: The pool cannot be read, has too much damage, or cannot be trained on as declared.
        ProcessEnded: This device does not compute in the trial's precision.
    """
    trial = job.trial
    device = torch.device("cuda", torch.cuda.current_device()) if job.gpus else torch.device("cpu")
    set_gpu_arithmetic(device.type)
    torch.set_num_threads(max(1, job.cpus // job.ranks))
    data, tokenize = load_subset(job)
    start = read_start(job.folder, device, job.trunk)
    precision = _precision(trial.recipe.precision, device, start)
    # After all that may draw numbers, so that every rank and every attempt has the same initial weights.
    torch.manual_seed(derive_seed(trial.seed, "initial weights"))
    strategy = strategy_of(trial.cell.strategy, trial.strategy_file).configured(trial.recipe)
    model = build_model(trial.architecture_config, strategy).to(device)
    learner = make_learner(
        model,
        strategy,
        strategy.head(architecture_of(trial)),
        recipe=trial.recipe,
        lr_peak=trial.lr_peak,
        steps=trial.steps,
        pairs=sum(part.pairs for part in trial.components),
        precision=precision,
    )
    if start is not None:
        data.remember(start.notes["damage"])
    first_step = restore_state(learner, start)
    return RankTraining(
        learner=learner,
        data=data,
        schedule=StepSchedule(
            seed=trial.seed,
            steps=trial.steps,
            batch_size=trial.batch_size,
            lr_peak=trial.lr_peak,
            recipe=trial.recipe,
        ),
        first_step=first_step,
        context=partial(compute_context, precision, device),
        precision=precision,
        tokenize=tokenize,
        notes=start.notes if start is not None and start.own else {},
    )


def _precision(declared: str, device: torch.device, start: SavedState | None) -> str:
    """Return a trial's precision: with ``auto`` that of its start, else what rank 0's device has.

    A device that does not have it is a ProcessEnded, since another node may.
    """
    if declared != "auto":
        return declared
    if start is not None:
        precision: str = start.notes["precision"]
    else:
        precision = decided_by_first(partial(resolve_precision, declared, device))
    if not has_precision(precision, device):
        raise ProcessEnded(
            "crashed",
            f"the trial began in {precision}, which this node's devices do not compute in; it continues on a "
            "node that does (training.precision: auto)",
        )
    return precision


def architecture_of(trial: Trial) -> Architecture:
    """Return the architecture of a trial; one without closed form is counted once on each machine."""
    return ensure_counted(Architecture(name=trial.cell.architecture, config=trial.architecture_config))


def _opened(job: TrialJob, path: Path, pairs: str) -> Pool:
    """Open a pool; rank 0 alone looks at its shards, of which there may be very many."""

    def open_pool() -> Pool:
        return Pool.open(path, tolerance=job.damage_tolerance, holding=pairs).at(path)

    return decided_by_first(open_pool).at(path)


def _tensor_of(to_ids: Tokenize, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(to_ids(texts))


def load_subset(job: TrialJob) -> tuple[TrainingData, Tokens]:
    """Open a trial's pairs and build its tokenizer; ValueError for an unreadable pool or too much damage."""
    trial, architecture = job.trial, architecture_of(job.trial)
    pools = [
        _opened(job, path, component.pool)
        for path, component in zip(job.pools, trial.components, strict=True)
    ]
    to_ids = model_tokenizer(architecture, mixed_words([pool.vocabulary for pool in pools]))
    sources = [
        Source(
            pool=pool,
            rows=pool.subset(size=component.pairs, quality=component.quality, shared=job.subsets),
            share=component.share,
        )
        for pool, component in zip(pools, trial.components, strict=True)
    ]

    tokenize = partial(_tensor_of, to_ids)
    data = StreamedSet(
        sources=sources,
        image_size=architecture.costs.image_size,
        tokens=tokenize,
        columns=strategy_of(trial.cell.strategy, trial.strategy_file).columns,
        workers=job.cpus // job.ranks if job.gpus else 0,
        rank=rank(),
        ranks=rank_count(),
        tolerance=job.damage_tolerance,
        loader_bytes=job.loader_bytes,
    )
    return open_data(data, threads=job.cpus), tokenize
