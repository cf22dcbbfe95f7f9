"""What every way of running trials writes down: jobs, events, and what trials spend, lose and give."""

import json
import time
from pathlib import Path

from budgets.book.ledger import Ledger, append_whole
from budgets.planning.plan import Trial
from runners.scheduling.nodes import Amounts
from runners.trials.meter import FlopCount, read_count
from runners.trials.trial_files import Outcome, drop_damaged, drop_scaffolding, kept_steps, read_outcome
from runners.trials.trial_setup import TrialJob
from study.state.study import Study


def trial_folder(study: Study, trial_id: str) -> Path:
    """Gives a trial's own folder."""
    return study.folder / "trials" / trial_id


def needs(study: Study, trial: Trial) -> Amounts:
    """Says what a trial occupies on each of its nodes."""
    resources = trial.resources
    shares = {"cpus": resources.cpus, "gpus": resources.gpus} | study.declaration.resources.custom
    return {name: amount / resources.nodes for name, amount in shares.items()}


def trial_job(study: Study, trial: Trial) -> TrialJob:
    """Says where a trial finds its pool and evaluation sets, and what it may take."""
    resources, declared = trial.resources, study.declaration.resources
    return TrialJob(
        trial=trial,
        pool=study.pool.resolve(),
        evaluation={name: path.resolve() for name, path in study.evaluation.items()},
        probes=study.declaration.probes,
        folder=trial_folder(study, trial.trial_id).resolve(),
        cpus=resources.cpus // resources.nodes,
        gpus=resources.gpus // resources.nodes,
        ranks=resources.ranks_per_node,
        checkpoint_s=declared.checkpoint_s,
        checkpoint_steps=declared.checkpoint_steps,
        damage_tolerance=study.declaration.limits.damage,
    )


def add_event(study: Study, event: str, **facts: object) -> None:
    """Appends a line to the study's ``events.jsonl``."""
    line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
    append_whole(study.folder / "events.jsonl", line)


def book_outcome(ledger: Ledger, trial: Trial, folder: Path, outcome: Outcome) -> None:
    """Books what a trial with a result has spent, and what it computed beside that."""
    finished = outcome.row["status"] == "finished"
    spent = FlopCount(
        train_flops=trial.train_flops_after(outcome.row["samples_seen"]),
        evaluation_flops=trial.evaluation_flops if finished else 0,
    )
    _book_waste(ledger, trial.trial_id, folder, kept=spent)
    ledger.settle(trial.trial_id, train_flops=spent.train_flops, evaluation_flops=spent.evaluation_flops)


def book_lost(ledger: Ledger, trial: Trial, folder: Path) -> list[Path]:
    """Books what a trial did beyond its last sound checkpoint.

    Returns:
        Damaged checkpoints, which it removed.
    """
    damaged = drop_damaged(folder)
    kept = trial.train_flops_after(kept_steps(folder) * trial.batch_size)
    _book_waste(ledger, trial.trial_id, folder, kept=FlopCount(train_flops=kept))
    return damaged


def book_given_up(ledger: Ledger, trial_id: str, folder: Path) -> None:
    """Books a trial that gave no result; a later run starts it anew."""
    drop_scaffolding(folder)
    _book_waste(ledger, trial_id, folder, kept=FlopCount())
    ledger.settle(trial_id, train_flops=0, evaluation_flops=0)


def book_left_behind(ledger: Ledger, trial_id: str, folder: Path) -> None:
    """Closes the reservation of a trial that an earlier declaration began and the plan does not have."""
    outcome = read_outcome(folder)
    if outcome is None:
        book_given_up(ledger, trial_id, folder)
        return
    row = outcome.row  # it finished, and its driver died before that was booked
    spent = FlopCount(
        train_flops=row["samples_seen"] * row["train_flops_per_sample"],
        evaluation_flops=int(row["evaluation_flops"]) if row["status"] == "finished" else 0,
    )
    _book_waste(ledger, trial_id, folder, kept=spent)
    ledger.settle(trial_id, train_flops=spent.train_flops, evaluation_flops=spent.evaluation_flops)


def _book_waste(ledger: Ledger, trial_id: str, folder: Path, *, kept: FlopCount) -> None:
    """Books all that a trial ever computed and that is not kept; what is booked is not booked again."""
    count = read_count(folder)
    if count is not None:
        ledger.waste(
            trial_id,
            count.train_flops - kept.train_flops,
            count.evaluation_flops - kept.evaluation_flops,
        )
