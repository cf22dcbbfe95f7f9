"""Runs a plan: trials on Ray within the budget, every result kept, nothing that is finished done again."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from budgets.architecture import load_architecture
from budgets.ledger import Ledger, spent_flops
from budgets.plan import Plan, Trial
from budgets.strategy import strategy
from runners.data.cache import drop_idle
from runners.files import new_file, write_json
from runners.ray_backend import Ended, RayBackend
from runners.results import CURVE_COLUMNS, RESULT_COLUMNS, plan_row, read_table, to_frame, write_table
from runners.schedule import Schedule, State, Task
from runners.strategies.build import build_strategy
from runners.throughput import predict_s
from runners.trial import Outcome, TrialJob, read_outcome
from study.dump import dump_declaration
from study.progress import Progress
from study.study import Study, ensure_pool, measured_throughput, only_run, plan_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAIT_S = 0.5
_WRITE_TABLES_S = 5.0
_PACKAGES = ("torch", "open_clip_torch", "timm", "ray", "numpy", "pandas", "scipy")


class Run:
    """One run of a study.

    Args:
        study: The study.
        plan: Its plan.
        progress: Where progress is shown.
        address: Address of a running Ray cluster, or None.
    """

    def __init__(self, study: Study, plan: Plan, progress: Progress, *, address: str | None = None) -> None:
        self._study, self._plan, self._progress, self._address = study, plan, progress, address
        self._trials = {trial.trial_id: trial for trial in plan.trials}
        self._outcomes: dict[str, Outcome] = {}
        self._failures: dict[str, str] = {}
        self._started_at: dict[str, tuple[int, float]] = {}
        self._tables_at = 0.0

    def execute(self) -> dict[str, str]:
        """Runs every trial of the plan that has no result yet.

        Returns:
            Trial id → reason, for the trials that gave none.

        Raises:
            ValueError: Another run of the study is under way.
        """
        folder = self._study.folder
        folder.mkdir(parents=True, exist_ok=True)
        with only_run(folder):
            for trial in self._plan.trials:
                build_strategy(strategy(trial.cell.strategy), load_architecture(trial.cell.architecture))
            ensure_pool(self._study, self._progress.say)
            self._write_inputs()
            self._ledger = Ledger(folder / "ledger.jsonl", self._plan.study_flops)
            self._ledger.charge(self._plan)
            self._take_finished()
            waiting = [trial for trial in self._plan.trials if trial.trial_id not in self._outcomes]
            self._progress.begin(
                self._plan, finished=len(self._outcomes), spent_flops=spent_flops(self._ledger.entries)
            )
            if waiting:
                self._run(waiting)
            self._write_tables()
        return self._failures

    def _run(self, waiting: list[Trial]) -> None:
        resources = self._study.declaration.resources
        measured = measured_throughput(self._study, self._plan)
        schedule = Schedule(
            (Task(trial=trial.trial_id, predicted_s=predict_s(trial, measured)) for trial in waiting),
            retries=resources.retries,
        )
        with RayBackend(cpus=resources.cpus, gpus=resources.gpus, address=self._address) as backend:
            if backend.slots < 1:
                raise ValueError(
                    f"no node has room for a trial of {resources.cpus} cpus and {resources.gpus} gpus; "
                    "see resources: in the declaration"
                )
            self._event("study-started", slots=backend.slots)
            while not schedule.over:
                for trial_id in schedule.start_next(backend.slots - schedule.count(State.RUNNING)):
                    self._start(trial_id, schedule, backend)
                if schedule.count(State.RUNNING):
                    for ended in backend.wait(_WAIT_S):
                        self._end(ended, schedule)
                self._progress.tick(self._study.folder)
            self._event("study-ended")
        drop_idle()

    def _start(self, trial_id: str, schedule: Schedule, backend: RayBackend) -> None:
        trial = self._trials[trial_id]
        try:
            self._ledger.reserve(trial_id, trial.train_flops)
        except ValueError as refusal:
            schedule.drop(trial_id)
            self._failures[trial_id] = str(refusal)
            self._progress.failed(trial, str(refusal))
            return
        resources = self._study.declaration.resources
        taken = {slot for slot, _ in self._started_at.values()}
        slot = next(number for number in range(len(taken) + 1) if number not in taken)
        self._started_at[trial_id] = (slot, time.monotonic())
        self._event("trial-started", trial=trial_id, slot=slot)
        backend.start(
            TrialJob(
                trial=trial,
                pool=self._study.pool.resolve(),
                evaluation={name: path.resolve() for name, path in self._study.evaluation.items()},
                folder=self._folder(trial_id).resolve(),
                cpus=resources.cpus,
                gpus=resources.gpus,
                checkpoint_s=resources.checkpoint_s,
            )
        )

    def _end(self, ended: Ended, schedule: Schedule) -> None:
        trial = self._trials[ended.trial]
        slot, started_at = self._started_at.pop(ended.trial)
        span = {"trial": ended.trial, "slot": slot, "wall_s": time.monotonic() - started_at}
        if ended.outcome is not None:
            schedule.finish(ended.trial)
            self._event(
                "trial-finished", **span, **{k: v for k, v in ended.outcome.timing.items() if k != "wall_s"}
            )
            self._take(trial, ended.outcome)
            self._progress.finished(trial, ended.outcome, spent_flops=spent_flops(self._ledger.entries))
        elif ended.how == "crashed" and schedule.crash(ended.trial):
            self._event("trial-retried", **span, reason=ended.reason)
            self._progress.say(f"{trial.cell}: {ended.reason}; it goes on from its last checkpoint")
        else:
            if ended.how == "failed":
                schedule.fail(ended.trial)
            self._event("trial-failed", **span, reason=ended.reason)
            self._ledger.settle(
                ended.trial, train_flops=0, evaluation_flops=0, wasted_flops=self._lost_flops(trial)
            )
            self._failures[ended.trial] = ended.reason
            self._progress.failed(trial, ended.reason)
        if time.monotonic() - self._tables_at > _WRITE_TABLES_S:
            self._write_tables()

    def _take(self, trial: Trial, outcome: Outcome) -> None:
        self._outcomes[trial.trial_id] = outcome
        self._ledger.settle(
            trial.trial_id,
            train_flops=trial.train_flops,
            evaluation_flops=trial.evaluation_flops,
            wasted_flops=int(outcome.timing["wasted_flops"]),
        )

    def _take_finished(self) -> None:
        """Takes the results of earlier runs; one that a crash kept out of the ledger is booked now."""
        for trial in self._plan.trials:
            outcome = read_outcome(self._folder(trial.trial_id))
            if outcome is not None:
                booked = any(e.entry == "spent" and e.what == trial.trial_id for e in self._ledger.entries)
                if not booked:
                    self._ledger.reserve(trial.trial_id, trial.train_flops)
                self._take(trial, outcome)

    def _lost_flops(self, trial: Trial) -> int:
        path = self._folder(trial.trial_id) / "progress.json"
        if not path.exists():
            return 0
        progress = json.loads(path.read_text(encoding="utf-8"))
        samples: int = progress["samples_seen"] + progress["wasted_samples"]
        return samples * trial.train_flops_per_sample

    def _write_inputs(self) -> None:
        folder = self._study.folder
        with new_file(folder / "study.yaml") as file:
            file.write_text(dump_declaration(self._study.declaration), encoding="utf-8")
        planned, left_out = plan_tables(self._study, self._plan)
        write_table(folder / "plan.parquet", planned)
        write_table(folder / "left-out.parquet", left_out)
        write_json(folder / "environment.json", environment())

    def _write_tables(self) -> None:
        """Writes results and curves anew in the plan's order: the same trials give the same bytes."""
        self._tables_at = time.monotonic()
        rows: list[Mapping[str, Any]] = []
        curves: list[pd.DataFrame] = []
        for trial in self._plan.trials:
            if trial.trial_id in self._outcomes:
                rows.append(self._outcomes[trial.trial_id].row)
                curves.append(read_table(self._folder(trial.trial_id) / "curve.parquet"))
            elif trial.trial_id in self._failures:
                rows.append(_failed_row(trial, self._failures[trial.trial_id]))
        write_table(self._study.folder / "results.parquet", to_frame(rows, RESULT_COLUMNS))
        joined = pd.concat(curves, ignore_index=True) if curves else to_frame([], CURVE_COLUMNS)
        write_table(self._study.folder / "curves.parquet", joined)

    def _event(self, event: str, **facts: object) -> None:
        line = json.dumps({"time": time.time(), "event": event, **facts}) + "\n"
        with (self._study.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line)

    def _folder(self, trial_id: str) -> Path:
        return self._study.folder / "trials" / trial_id


def environment() -> dict[str, str]:
    """Gives the versions and the hardware that results depend on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "python": platform.python_version(),
        "processor": processor,
        "cores": str(os.cpu_count()),
        "system": platform.system(),
    } | {package: version(package) for package in _PACKAGES}


def _failed_row(trial: Trial, reason: str) -> dict[str, Any]:
    return {
        **plan_row(trial),
        "precision": trial.recipe.precision,
        "status": "failed",
        "reason": reason,
        "train_loss": float("nan"),
    }
