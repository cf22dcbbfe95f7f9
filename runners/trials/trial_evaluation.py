"""Evaluation of a trial, at its end and at shares of its steps, on sets decoded beside the training."""

import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from open_clip import CLIP

from budgets.planning.planned_trial import evaluated_steps
from runners.data.evaluation.set_reader import SetReader
from runners.evaluate.evaluate import NotFiniteError, evaluate
from runners.host.faults import ProcessEnded, shield
from runners.host.process import FreshProcess
from runners.host.watchdog import position
from runners.models.load_model import Encoder
from runners.models.model import compute_context
from runners.results import (
    AVERAGE,
    EVALUATION_PRECISION,
    MIDWAY_COLUMNS,
    read_table,
    step_row,
    to_frame,
    write_table,
)
from runners.store.cache import local_cache
from runners.training.ranks import rank, rank_count
from runners.training.train import to_float
from runners.trials.meter import Meter
from runners.trials.trial_files import MIDWAY
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import RankTraining, architecture_of

_THREADS_EACH = 8  # decoding threads of a process: more of them wait for Python's lock
_LOWEST_PRIORITY = 19
_ERROR = "_se"  # end of the names of standard errors


class EvaluationData:
    """Readers of a trial's sets, and the processes that decode them ahead.

    On a GPU, training needs few cores: processes of the lowest priority decode meanwhile, so that they take
    what loader workers leave. On the processor, training takes every core, and decoding comes first. Trials
    of a node share the work: no two processes decode the same split.
    """

    def __init__(self, job: TrialJob) -> None:
        size, cache = architecture_of(job.trial).costs.image_size, local_cache()
        self.readers = {
            name: SetReader(
                path=path,
                decode=size,
                threads=max(1, job.cpus // job.ranks),
                cache=cache,
                rank=rank(),
                ranks=rank_count(),
            )
            for name, path in job.evaluation.items()
        }
        self._beside, self._threads = bool(job.gpus), max(1, job.cpus)
        self._splits = [(reader, "test") for reader in self.readers.values()]
        self._splits += [(self.readers[name], "train") for name in self.readers if name in job.probes]
        if rank() % job.ranks:  # the node's first rank has them decoded
            self._splits = []
        self._processes: list[FreshProcess] = []

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Context manager: sets are decoded meanwhile, or on the processor before it begins."""
        todo = [(reader, split) for reader, split in self._splits if not reader.is_filled(split)]
        several = min(len(todo), max(1, self._threads // _THREADS_EACH)) if self._beside else 1
        threads = max(1, self._threads // max(1, several))
        todo = [(replace(reader, threads=threads), split) for reader, split in todo]
        if not self._beside:
            _fill(todo)
        else:
            call = pickle.dumps(partial(_fill, todo, beside=True))
            self._processes = [FreshProcess(call) for _ in range(several)]
        try:
            yield
        finally:
            for process in self._processes:
                process.kill()
                process.wait()

    def check(self) -> None:
        """Raise the error of a set that can't be decoded, so that it does not cost a whole training.

        Raises:
            ValueError: The set is damaged.
            ProcessEnded: A process that decodes was killed, or the storage is unreachable.
        """
        for process in [process for process in self._processes if process.ended(0)]:
            self._processes.remove(process)
            end = process.wait()
            if end.how == "failed":
                raise ValueError(end.reason.removeprefix("ValueError: "))
            if end.how != "finished":
                raise ProcessEnded(end.how, f"decoding of evaluation sets ended early: {end.reason}")


def _fill(todo: Sequence[tuple[SetReader, str]], *, beside: bool = False) -> None:
    if beside:
        shield()  # a signal to the whole run is for the trial, which ends this process when it leaves
        os.nice(_LOWEST_PRIORITY)
    for reader, split in todo:
        reader.fill(split, wait=not beside)


def evaluate_trial(job: TrialJob, setup: RankTraining, sets: EvaluationData) -> dict[str, float]:
    """Return the metrics of the model as trained so far; NotFiniteError if its features are not finite.

    Those of a trial of a trunk are followed by those of its weight average, with `AVERAGE` in their names.
    Every rank takes part, and has the metrics.
    """
    learner = setup.learner
    device = learner.losses.device

    def measured(model: CLIP) -> dict[str, float]:
        encoder = Encoder(
            model=model.eval(),
            tokenize=setup.tokenize,
            normalise=to_float,
            device=device,
            context=partial(compute_context, EVALUATION_PRECISION, device),
        )
        return evaluate(encoder, sets.readers, job.probes)

    try:
        # Evaluation has batches of many sizes, for which compiling does not pay off.
        eager = torch.compiler.set_stance("force_eager") if job.trial.recipe.compile else nullcontext()
        with eager, position.evaluating():
            metrics = measured(learner.evaluated)
            if learner.cooled or learner.average is None:
                return metrics
            for name, value in measured(learner.average.module).items():
                of, error = (name[: -len(_ERROR)], _ERROR) if name.endswith(_ERROR) else (name, "")
                metrics.setdefault(name if name.endswith("/count") else f"{of}{AVERAGE}{error}", value)
            return metrics
    finally:
        learner.model.train()


def evaluate_midway(measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """Return the metrics of a model in training, which must not depend on it; none if it has diverged."""
    # By default torch initialises all GPUs for this.
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices), suppress(NotFiniteError):  # the next loss shows it
        return measure()
    return {}


class Midway:
    """Evaluates at shares of a run, and keeps the metrics in the trial's folder, one row an evaluation.

    A resumed run keeps the rows up to its checkpoint, whose step is ``first_step``, and measures later ones
    again. Unreachable storage does not stop the training: the rows are written later. ``took_s`` are the
    seconds that evaluations took in this process, which are not seconds of training.
    """

    def __init__(
        self, job: TrialJob, meter: Meter, measure: Callable[[], Mapping[str, float]], *, first_step: int
    ) -> None:
        self._path, self._trial, self._measure, self._meter = job.folder / MIDWAY, job.trial, measure, meter
        self._steps = evaluated_steps(job.evaluate_at, job.trial.steps)
        self.took_s = 0.0
        self._rows: list[dict[str, Any]] = []
        self._written = True
        if self._path.exists():
            table = read_table(self._path, source=self._trial.trial_id)
            rows = table[table["step"] <= first_step].to_dict("records")
            self._rows = [{str(name): value for name, value in row.items()} for row in rows]

    def after_step(self, done: int) -> None:
        """Evaluate, and write the file if the storage allows it, if that is due after ``done`` steps."""
        if done not in self._steps:
            return
        self._meter.add(evaluation_flops=self._trial.flops_per_evaluation)
        began = time.monotonic()
        metrics = evaluate_midway(self._measure)
        self.took_s += time.monotonic() - began
        if not metrics:
            return
        self._rows.append({**step_row(self._trial, done), **metrics})
        self._written = False
        with suppress(OSError):
            self.write()

    def write(self) -> None:
        """Write the rows that are not in the file yet; call it before a checkpoint and before the result."""
        if not self._written:
            write_table(self._path, to_frame(self._rows, MIDWAY_COLUMNS), source=self._trial.trial_id)
            self._written = True
