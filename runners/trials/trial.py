"""A trial in the calling process: data, model, training, evaluation, one result row.

The folder of a trial holds ``progress.json`` and its checkpoints while it runs; then ``result.json`` (its row
and timing), ``curve.parquet``, ``weights.pt`` and, if pairs were damaged, ``damage.jsonl``; and always
``meter``, its compute over all attempts. A trial with a result is never run again.
"""

import errno
import json
import resource
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from budgets.planning.planned_trial import Trial
from runners.data.pool.damage import Damage
from runners.evaluate.evaluate import evaluate
from runners.evaluate.features import Encoder, NotFiniteError, encode_set
from runners.host.faults import Notice, owned
from runners.host.files import new_file
from runners.models.model import compute_context
from runners.results import (
    CURVE_COLUMNS,
    EVALUATION_PRECISION,
    EVALUATION_VERSION,
    plan_row,
    to_frame,
    write_table,
)
from runners.training.divergence import Diverged
from runners.training.ranks import decided_by_first, rank, run_ranks
from runners.training.train import to_float, train
from runners.trials.checkpoints.checkpoint import Notes, save
from runners.trials.evaluation_data import EvaluationData
from runners.trials.midway import Midway
from runners.trials.records.curve import curve_rows, mean_losses
from runners.trials.records.meter import FlopCount, Meter
from runners.trials.records.trial_files import Outcome, drop_scaffolding, read_outcome, write_outcome
from runners.trials.trial_job import TrialJob
from runners.trials.trial_setup import RankTraining, set_up
from runners.trials.watch import Watch


def run_trial(job: TrialJob) -> Outcome:
    """Train and evaluate a trial, or return the result that it already has.

    A second process that runs the same trial waits for the first. The parent of the trial's folder must
    exist: creating it would hide that the storage is not mounted.

    Raises:
        Left: The process was asked to leave, see `runners.host.faults.Notice`.
        ProcessEnded: One of several ranks did not finish.
        OSError: The storage is unreachable.
    """
    if job.ranks == 1:
        return _run_first(job)
    outcome = run_ranks(partial(take_part, job), count=job.ranks, gpus=bool(job.gpus))
    assert outcome is not None, "rank 0 returns the result"
    return outcome


def take_part(job: TrialJob) -> Outcome | None:
    """Run a trial as one of several ranks; rank 0 returns its outcome, the others None."""
    if rank() == 0:
        return _run_first(job)
    if _earlier_result(job) is not None:
        return None
    setup = set_up(job)
    with suppress(Diverged):  # rank 0 reports it
        train(setup.learner, setup.data, setup.schedule, first_step=setup.first_step, context=setup.context)
    return None


def _run_first(job: TrialJob) -> Outcome:
    notice = Notice()
    with notice.listening():
        job.folder.mkdir(exist_ok=True)
        with owned(job.folder / ".lock", notice):
            for torn in job.folder.glob(".*.partial-*"):
                torn.unlink()
            finished = _earlier_result(job)
            if finished is not None:
                return finished
            try:
                with Meter(job.folder) as meter:
                    return _run(job, meter, notice)
            except ValueError as error:
                for place in (*job.pools, *job.evaluation.values(), job.folder):
                    if not place.exists():  # the storage is gone, its content is not at fault
                        raise FileNotFoundError(errno.ENOENT, "storage is unreachable", str(place)) from error
                raise


def _earlier_result(job: TrialJob) -> Outcome | None:
    """Return the result of an earlier attempt, as rank 0 finds it."""
    return decided_by_first(partial(read_outcome, job.folder, job.trial.trial_id))


def _run(job: TrialJob, meter: Meter, notice: Notice) -> Outcome:
    started = time.monotonic()
    trial = job.trial
    setup = set_up(job)
    if "metered" in setup.notes:
        meter.raise_to(FlopCount(**setup.notes["metered"]))
    sets = EvaluationData(job)
    learner = setup.learner
    measure = partial(_evaluate, job, setup, sets)
    midway = Midway(
        job.folder, trial, job.evaluate_at, first_step=setup.first_step, measure=measure, meter=meter
    )

    def notes() -> Notes:
        midway.write()  # a checkpoint of a step implies its row
        return {
            "precision": setup.precision,
            "metered": asdict(meter.count),
            "damage": setup.data.noted_damage(),
        }

    watch = Watch(
        job.folder,
        trial,
        learner,
        checkpoint_s=job.checkpoint_s,
        checkpoint_steps=job.checkpoint_steps,
        first_step=setup.first_step,
        meter=meter,
        notice=notice,
        notes=notes,
    )
    metrics: dict[str, float] = {}
    with sets.decoding():
        began = time.monotonic()
        steps, reason = _train(setup, sets, watch, midway)
        train_s = time.monotonic() - began - midway.took_s
        if not reason:
            watch.before_evaluation()
            try:
                metrics = measure()
            except NotFiniteError as error:  # by the last step, after the loss that would have shown it
                reason = str(error)
    row = {
        **plan_row(trial),
        **_done(trial, steps, meter.count.train_flops),
        "precision": setup.precision,
        "evaluation_version": EVALUATION_VERSION,
        "status": "diverged" if reason else "finished",
        "reason": reason,
        "train_loss": learner.losses[steps - max(1, steps // 10) : steps].mean().item(),
        **metrics,
    }
    outcome = Outcome(
        row=row,
        timing={
            "wall_s": time.monotonic() - started,
            "train_s": train_s,
            "samples_per_s": (steps - setup.first_step) * trial.batch_size / max(train_s, 1e-9),
            "waited_s": watch.waited_s,
            "memory_bytes": _peak_memory(job),
            "damaged_pairs": len(setup.data.damage),
        },
    )
    write = partial(_write_result, job, setup, midway, outcome, steps=steps)
    notice.patiently(write)
    return outcome


def _train(setup: RankTraining, sets: EvaluationData, watch: Watch, midway: Midway) -> tuple[int, str]:
    """Train to the end; return the steps done, and the reason if the trial has diverged."""

    def after_step(done: int) -> None:
        sets.check()
        midway.after_step(done)  # first, so that a checkpoint of this step has its row
        watch.after_step(done, evaluated_s=midway.took_s)

    try:
        train(
            setup.learner,
            setup.data,
            setup.schedule,
            first_step=setup.first_step,
            context=setup.context,
            before_step=watch.before_step,
            after_step=after_step,
        )
    except Diverged as diverged:
        return diverged.steps, str(diverged)
    finally:
        watch.settle()
    return setup.schedule.steps, ""


def _evaluate(job: TrialJob, setup: RankTraining, sets: EvaluationData) -> dict[str, float]:
    """Return the metrics of the model as trained so far."""
    learner = setup.learner
    encoder = Encoder(
        model=learner.evaluated.eval(),
        tokenize=setup.tokenize,
        normalise=to_float,
        device=learner.losses.device,
        context=partial(compute_context, EVALUATION_PRECISION, learner.losses.device),
    )
    try:
        # Evaluation has batches of many sizes, for which compiling does not pay off.
        with torch.compiler.set_stance("force_eager") if job.trial.recipe.compile else nullcontext():
            features = {
                name: encode_set(encoder, data, probe=name in job.probes)
                for name, data in sets.readers.items()
            }
            return evaluate(features, context=encoder.context)
    finally:
        learner.model.train()


def _write_result(
    job: TrialJob, setup: RankTraining, midway: Midway, outcome: Outcome, *, steps: int
) -> None:
    """Write the result files of a trial after ``steps`` steps."""
    midway.write()
    _write_damage(job.folder / "damage.jsonl", setup.data.damage)
    losses = mean_losses(setup.learner.losses[:steps].cpu(), steps=steps)
    curve = curve_rows(job.trial, losses, steps=steps)
    write_table(job.folder / "curve.parquet", to_frame(curve, CURVE_COLUMNS))
    with new_file(job.folder / "weights.pt") as file:
        # From the CPU, so that a machine without GPU can read them.
        save({name: value.cpu() for name, value in setup.learner.evaluated.state_dict().items()}, file)
    # Last of the result files: a folder with result.json is complete.
    write_outcome(job.folder, outcome)
    drop_scaffolding(job.folder)


def _peak_memory(job: TrialJob) -> int:
    """Return the most bytes that torch had allocated on the GPU, or that this process had in memory."""
    if job.gpus:
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write_damage(path: Path, damage: Sequence[Damage]) -> None:
    """Write the damaged pairs that were replaced in training, one JSON object per line; no file if none."""
    if damage:
        with new_file(path) as file:
            lines = (json.dumps(asdict(each)) + "\n" for each in damage)
            file.write_text("".join(lines), encoding="utf-8")


def _done(trial: Trial, steps: int, metered: int) -> dict[str, float]:
    """Return the columns of what was actually done, which is less than planned if a trial diverged."""
    samples = steps * trial.batch_size
    return {
        "steps": steps,
        "samples_seen": samples,
        "epochs": samples / trial.cell.subset_size,
        "train_flops": float(trial.train_flops_after(samples)),
        # An integer, so that the ledger stays exact. The meter is lower if the trial started from a milestone
        # whose trial is no longer in the plan.
        "paid_flops": min(trial.paid_flops_after(samples), metered),
    }
