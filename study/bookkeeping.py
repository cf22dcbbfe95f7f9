"""What every way of running trials writes down: jobs, events, and what trials spend, lose and give."""

import json
import time
from pathlib import Path

from budgets.ledger import Ledger
from budgets.plan import Trial
from runners.files import write_json
from runners.trial import Outcome, TrialJob
from study.study import Study


def trial_folder(study: Study, trial_id: str) -> Path:
    """Gives a trial's own folder."""
    return study.folder / "trials" / trial_id


def trial_job(study: Study, trial: Trial) -> TrialJob:
    """Says where a trial finds its pool and evaluation sets, and what it may take."""
    resources = study.declaration.resources
    return TrialJob(
        trial=trial,
        pool=study.pool.resolve(),
        evaluation={name: path.resolve() for name, path in study.evaluation.items()},
        folder=trial_folder(study, trial.trial_id).resolve(),
        cpus=resources.cpus,
        gpus=resources.gpus,
        checkpoint_s=resources.checkpoint_s,
        damage_tolerance=study.declaration.limits.damage,
    )


def add_event(study: Study, event: str, **facts: object) -> None:
    """Appends a line to the study's ``events.jsonl``."""
    line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
    with (study.folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


def book_outcome(ledger: Ledger, trial: Trial, outcome: Outcome) -> None:
    """Books what a trial with a result has spent."""
    ledger.settle(
        trial.trial_id,
        train_flops=outcome.row["samples_seen"] * trial.train_flops_per_sample,
        evaluation_flops=trial.evaluation_flops if outcome.row["status"] == "finished" else 0,
    )


def book_lost(ledger: Ledger, trial: Trial, folder: Path) -> None:
    """Books what a dead worker did beyond its last checkpoint, once."""
    path = folder / "progress.json"
    if not path.exists():
        return
    progress = json.loads(path.read_text(encoding="utf-8"))
    kept = progress["checkpoint_samples"] if (folder / "checkpoint.pt").exists() else 0
    ledger.waste(trial.trial_id, max(0, progress["samples_seen"] - kept) * trial.train_flops_per_sample)
    write_json(path, {**progress, "samples_seen": kept})


def book_given_up(ledger: Ledger, trial: Trial, folder: Path) -> None:
    """Books a trial that gave no result; a later run starts it anew."""
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    book_lost(ledger, trial, folder)
    (folder / "progress.json").unlink(missing_ok=True)
    ledger.settle(trial.trial_id, train_flops=0, evaluation_flops=0)
