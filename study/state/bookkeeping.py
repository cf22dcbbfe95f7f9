"""Shared bookkeeping of tuning and grid: jobs, events, and ledger entries of trials."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from budgets.book.ledger import Ledger, append_whole
from budgets.planning.levels.trunks import before
from budgets.planning.plan import Trial
from budgets.quantity import format_flops
from runners.host.progress_file import read_progress
from runners.scheduling.nodes import Amounts
from runners.trials.records.meter import METER, FlopCount, read_count, write_count
from runners.trials.records.trial_files import (
    Outcome,
    drop_damaged,
    drop_scaffolding,
    kept_steps,
    read_outcome,
)
from runners.trials.trial_job import TrialJob
from study.state.study import Study


def trial_folder(study: Study, trial_id: str) -> Path:
    """Return the folder of a trial."""
    return study.folder / "trials" / trial_id


def needs(study: Study, trial: Trial) -> Amounts:
    """Return the resources that a trial needs on each of its nodes."""
    resources = trial.resources
    shares = {"cpus": resources.cpus, "gpus": resources.gpus} | study.declaration.resources.custom
    return {name: amount / resources.nodes for name, amount in shares.items()}


def trial_job(study: Study, trial: Trial, trials: Mapping[str, Trial] = MappingProxyType({})) -> TrialJob:
    """Return a trial's job: the paths of its data and its resources on one node.

    Args:
        study: The study.
        trial: The trial.
        trials: The trials whose milestones it may continue from, by id.
    """
    resources, declared = trial.resources, study.declaration.resources
    return TrialJob(
        trial=trial,
        pools=tuple(study.pool_folders[each.name].resolve() for each in trial.components),
        evaluation={name: path.resolve() for name, path in study.evaluation.items()},
        probes=study.declaration.probes,
        evaluate_at=study.declaration.evaluate_at,
        folder=trial_folder(study, trial.trial_id).resolve(),
        cpus=resources.cpus // resources.nodes,
        gpus=resources.gpus // resources.nodes,
        ranks=resources.ranks_per_node,
        checkpoint_s=declared.checkpoint_s,
        checkpoint_steps=declared.checkpoint_steps,
        loader_bytes=declared.loader_memory,
        damage_tolerance=study.declaration.limits.damage,
        trunk=tuple(trial_folder(study, each.trial_id).resolve() for each in before(trial, trials)),
    )


def add_event(study: Study, event: str, **facts: object) -> None:
    """Append a line to the study's ``events.jsonl``."""
    line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
    append_whole(study.folder / "events.jsonl", line)


Say = Callable[[str], None]


def paid_by(outcome: Outcome, trial: Trial | None) -> int:
    """Return the training FLOPs that a result cost the study; ``trial`` is None if the plan lacks it.

    With a trunk the row decides: the plan may share other trunks by now than when the trial ran.
    """
    row = outcome.row
    if row["trunk"]:
        return int(row["paid_flops"])
    samples = int(row["samples_seen"])
    return samples * int(row["train_flops_per_sample"]) if trial is None else trial.train_flops_after(samples)


def book_outcome(  # noqa: PLR0913 - a trial, and what is known of it
    ledger: Ledger, trial: Trial, folder: Path, outcome: Outcome, say: Say, *, starts: int = 1
) -> None:
    """Book a trial's result as spent, and the compute that did not contribute to it as wasted.

    Args:
        ledger: The ledger.
        trial: The trial.
        folder: The trial's folder.
        outcome: Its result.
        say: Called with a line about a meter that can't be read.
        starts: Most starts of the trial of which no lost work is booked yet.

    Raises:
        ValueError: The ledger has another number of FLOPs as spent.
    """
    finished = outcome.row["status"] == "finished"
    spent = FlopCount(
        train_flops=paid_by(outcome, trial), evaluation_flops=trial.evaluation_flops if finished else 0
    )
    booked = ledger.spent_by(trial.trial_id)
    if booked not in {None, spent.train_flops}:
        raise ValueError(
            f"{ledger.path} has {booked:,} FLOP spent by trial {trial.trial_id}, but by "
            f"{folder / 'result.json'} it spent {spent.train_flops:,}; `run --repair` rebuilds the ledger "
            "from results and meters"
        )
    most = (starts - 1) * trial.train_flops  # the last start has the result, and lost nothing
    _book_waste(ledger, trial.trial_id, folder, kept=spent, most=most, say=say)
    ledger.settle(trial.trial_id, train_flops=spent.train_flops, evaluation_flops=spent.evaluation_flops)


def book_lost(ledger: Ledger, trial: Trial, folder: Path, say: Say) -> list[Path]:
    """Book the compute of a trial beyond its last sound checkpoint as wasted.

    Returns:
        Damaged checkpoints, which were removed.
    """
    damaged = drop_damaged(folder)
    kept = trial.paid_flops_after(kept_steps(folder) * trial.batch_size)
    most = trial.train_flops - kept
    _book_waste(ledger, trial.trial_id, folder, kept=FlopCount(train_flops=kept), most=most, say=say)
    return damaged


def book_given_up(ledger: Ledger, trial_id: str, folder: Path, say: Say) -> None:
    """Book all compute of a trial as wasted and close its reservation; a later run starts it anew."""
    _book_waste(ledger, trial_id, folder, kept=FlopCount(), most=ledger.reserved_by(trial_id), say=say)
    drop_scaffolding(folder)
    ledger.settle(trial_id, train_flops=0, evaluation_flops=0)


def book_left_behind(ledger: Ledger, trial_id: str, folder: Path, say: Say) -> None:
    """Close the reservation of a trial that was started by an earlier declaration and is not in the plan."""
    outcome = read_outcome(folder)
    if outcome is None:
        book_given_up(ledger, trial_id, folder, say)
        return
    row = outcome.row  # the trial ended, but its driver died before booking it
    spent = FlopCount(
        train_flops=paid_by(outcome, None),
        evaluation_flops=int(row["evaluation_flops"]) if row["status"] == "finished" else 0,
    )
    _book_waste(ledger, trial_id, folder, kept=spent, most=0, say=say)
    ledger.settle(trial_id, train_flops=spent.train_flops, evaluation_flops=spent.evaluation_flops)


def has_begun(folder: Path) -> bool:
    """Return whether a trial's files show that it has computed something."""
    if (folder / "result.json").exists() or kept_steps(folder):
        return True
    progress = read_progress(folder.parents[1], [folder.name]).get(folder.name)
    return progress is not None and progress["samples_seen"] > 0


def _book_waste(  # noqa: PLR0913 - a trial, and what is known of it
    ledger: Ledger, trial_id: str, folder: Path, *, kept: FlopCount, most: int, say: Say
) -> None:
    """Book all compute of a trial that is not kept as wasted; the ledger books only what is new.

    Args:
        ledger: The ledger.
        trial_id: The trial's id.
        folder: The trial's folder.
        kept: Compute that the trial's result or newest checkpoint needed.
        most: Most training FLOPs that it can have lost since the last booking, if its meter can't be read.
        say: Called with a line about such a meter.
    """
    count = read_count(folder)
    if count is None and _is_lost(folder) and ledger.has_reserved(trial_id):
        say(
            f"the meter of trial {trial_id} is missing or damaged; {format_flops(most)} are booked as "
            "wasted, the most that it can have lost since the last booking"
        )
        lost = ledger.wasted_by(trial_id) + most
        count = FlopCount(train_flops=kept.train_flops + lost, evaluation_flops=kept.evaluation_flops)
        write_count(folder, count)  # the next start counts on from here
    if count is not None:
        ledger.waste(
            trial_id, count.train_flops - kept.train_flops, count.evaluation_flops - kept.evaluation_flops
        )


def _is_lost(folder: Path) -> bool:
    """Return whether a meter that can't be read held a count: an empty one without work did not."""
    meter = folder / METER
    return has_begun(folder) or (meter.exists() and meter.stat().st_size > 0)
