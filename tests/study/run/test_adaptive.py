"""An adaptive study from its declaration to its report, with made-up training."""

import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import pytest

from budgets.ledger import read_entries
from budgets.quantity import format_flops
from runners.results import CURVE_COLUMNS, plan_row, to_frame, write_table
from runners.scheduling.backend import Ended, Job
from runners.scheduling.nodes import Amounts
from runners.trials.trial_files import Outcome, write_outcome
from runners.trials.trial_job import TrialJob
from study.run import execution, site
from study.state.design import chosen_trials
from tests.study.conftest import Run, write_declaration

pytestmark = pytest.mark.slow

EXIT_STOPPED = 4


class OneSlot:
    """A backend that runs one job at a time, in this process."""

    binds = True
    name = "one slot"

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def nodes(self) -> dict[str, Amounts]:
        return {"here": {"cpus": 1.0}}

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def ask_to_leave(self, trial: str) -> None:
        """Jobs are short."""

    def wait(self, timeout_s: float) -> list[Ended]:  # noqa: ARG002
        jobs, self._jobs = self._jobs, []
        return [Ended(trial=job.trial, how="finished", value=job.run()) for job in jobs]

    def announce(self, waiting: Sequence[tuple[Amounts, int]]) -> None:
        """Nothing grows."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class MadeUpTraining:
    """Training whose error falls with compute, with the noise of a trial's seed."""

    def __init__(self, *, stop_after: int = 0) -> None:
        self.stop_after, self.trials = stop_after, 0

    def __call__(self, job: TrialJob) -> Outcome:
        trial = job.trial
        self.trials += 1
        if self.trials == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        noise = np.random.default_rng(int(trial.trial_id, 16)).standard_normal()
        better = 0.1 * (trial.cell.strategy == "clip") + 0.02 * (trial.cell.architecture == "mini-ConvNeXt")
        error = 0.3 + 0.5 * (trial.train_flops / 1e9) ** -0.4 - better + 0.01 * noise
        row = plan_row(trial) | {
            "paid_flops": trial.paid_flops, "precision": "fp32", "evaluation_version": 1,
            "status": "finished", "reason": "", "train_loss": error,
            "held-out/top1": 1 - error, "held-out/count": 2000.0,
        }  # fmt: skip
        timing = {"wall_s": 0.1, "train_s": 0.1, "samples_per_s": 1000.0, "damaged_pairs": 0}
        job.folder.mkdir(parents=True, exist_ok=True)
        write_table(job.folder / "curve.parquet", to_frame([], CURVE_COLUMNS))
        write_outcome(job.folder, Outcome(row=row, timing=timing))
        return Outcome(row=row, timing=timing)


@pytest.fixture
def declaration(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(site, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", MadeUpTraining())
    path = write_declaration(
        tmp_path, pool, levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1, 2",
        strategies="clip, clip-crop-flip",
        architectures="mini-ViT-XXS-8, mini-ConvNeXt",
    )  # fmt: skip
    with path.open("a", encoding="utf-8") as file:
        file.write("design: adaptive\n")
    return path


def events(folder: Path, kind: str) -> list[dict[str, object]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == kind]


def chosen(folder: Path) -> list[object]:
    return [event["trial"] for event in events(folder, "trial-chosen")]


@pytest.mark.usefixtures("undrawn")
def test_design_chooses_from_the_grid_until_its_questions_are_answered(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    planned = run(f"plan {declaration} --results {tmp_path}")
    assert "adaptive design: the first round has 12 trials, " in planned
    assert "it will probably cost " in planned
    assert "8 rehearsals on simulated curves cost " in planned

    dry = run(f"run {declaration} --results {tmp_path} --dry-run")
    assert dry.startswith("36 trials: 24 not selected, 12 to run\n")
    assert dry.endswith("the design chooses further trials by the results of these\n")

    output = run(f"run {declaration} --results {tmp_path} --backend local")
    assert "\n[ 1/12] mini-ViT-XXS-8 " in output

    folder = tmp_path / "tiny"
    results = pd.read_parquet(folder / "results.parquet")
    assert f"\n[{len(results)}/{len(results)}] mini-" in output
    assert 12 < len(results) < 36
    assert set(results["trial"]) == set(chosen(folder))
    last = events(folder, "design")[-1]
    assert last["stop"] in {"every question is answered", "no further trial is worth its cost"}
    spent = sum(
        entry.train_flops for entry in read_entries(folder / "ledger.jsonl") if entry.entry == "spent"
    )
    assert last["spent_flops"] == spent == results["train_flops"].sum()

    dry = run(f"run {declaration} --results {tmp_path} --dry-run")
    assert dry.startswith(f"36 trials: {len(results)} finished, {36 - len(results)} not selected, 0 to run\n")
    assert f"no further trial is chosen: {last['stop']}" in dry

    said = run(f"status {declaration} --results {tmp_path}")
    assert "best at 20 GFLOP: " in said
    assert f"not chosen: {36 - len(results)} trials, " in said
    assert "no run is active, and no trial is waiting" in said

    run(f"report {declaration} --results {tmp_path}")
    report = folder / "report"
    course = pd.read_csv(report / "tables" / "design.csv")
    assert course["Asked"].unique().tolist() == [f"best at {level} GFLOP" for level in (5, 10, 20)]
    assert course["Leader"].iloc[-1].split(", ")[1] == "CLIP"
    assert pd.read_csv(report / "tables" / "choices.csv")["Trial"].tolist() == chosen(folder)
    assert "Course of the adaptive design" in (report / "report.html").read_text(encoding="utf-8")
    assert not (report / "tables" / "missing.csv").read_text(encoding="utf-8").strip()


def test_a_design_whose_tuning_has_just_begun_has_chosen_no_trial(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"time": 0.0, "event": "tuning-started", "slots": 0}\n')
    assert chosen_trials(tmp_path) == set()


@pytest.mark.usefixtures("undrawn")
def test_design_with_a_forecast_alone_asks_for_nothing_else(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    text = declaration.read_text(encoding="utf-8")
    forecast = "design: {adaptive: true, forecast: 60 GFLOP, width: 10%}"
    declaration.write_text(text.replace("design: adaptive", forecast), encoding="utf-8")

    run(f"run {declaration} --results {tmp_path} --backend local")

    said = run(f"status {declaration} --results {tmp_path}")
    assert "forecast at 60 GFLOP: answered: error " in said
    assert "best at " not in said
    run(f"report {declaration} --results {tmp_path}")
    course = pd.read_csv(tmp_path / "tiny" / "report" / "tables" / "design.csv")
    assert course["Asked"].unique().tolist() == ["forecast at 60 GFLOP"]


def test_study_that_stops_and_goes_on_makes_the_same_choices(
    declaration: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(f"run {declaration} --results {tmp_path / 'whole'} --backend local")
    whole, parts = tmp_path / "whole" / "tiny", tmp_path / "parts" / "tiny"

    for after in (5, 8):  # within the first round, and in the second trial after it
        monkeypatch.setattr(execution, "run_trial", MadeUpTraining(stop_after=after))
        run(f"run {declaration} --results {tmp_path / 'parts'} --backend local", code=EXIT_STOPPED)
        dry = run(f"run {declaration} --results {tmp_path / 'parts'} --dry-run")
        done = len(pd.read_parquet(parts / "results.parquet"))
        assert f"36 trials: {done} finished, " in dry
        assert f", {max(1, 12 - done)} to run\n" in dry
    run(f"run {declaration} --results {tmp_path / 'parts'} --backend local")

    assert len(chosen(whole)) > 13
    assert chosen(parts) == chosen(whole)
    assert (parts / "results.parquet").read_bytes() == (whole / "results.parquet").read_bytes()


def test_design_stays_within_the_study_budget_of_a_grid_that_costs_more(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("study: 10 TFLOP", "study: 130 GFLOP"), encoding="utf-8")
    planned = run(f"plan {declaration} --results {tmp_path}")
    assert "the study costs 130 GFLOP at most" in planned
    assert " of training in all; at most 130 GFLOP, the study budget, is spent" in planned
    assert re.search(r"about \d+ s of one slot, if the whole grid ran \(", planned)
    exported = json.loads(run(f"plan {declaration} --results {tmp_path} --format json"))
    assert exported["most_flops"] == 130e9 < exported["train_flops"]
    priced = (
        text.replace("study: 10 TFLOP", "study: 130 GFLOP")
        + "cluster: {device: h100-sxm, price_per_hour: 2}\n"
    )
    declaration.write_text(priced, encoding="utf-8")
    assert run(f"plan {declaration} --results {tmp_path}").count(" within the study budget\n") == 2
    declaration.write_text(text.replace("study: 10 TFLOP", "study: 30 GFLOP"), encoding="utf-8")
    assert "the first round has 6 trials, 29." in run(f"plan {declaration} --results {tmp_path}")
    declaration.write_text(text.replace("study: 10 TFLOP", "study: 130 GFLOP"), encoding="utf-8")

    said = run(f"run {declaration} --results {tmp_path} --backend local")
    assert " spent, 130 GFLOP planned\n" in said

    results = pd.read_parquet(tmp_path / "tiny" / "results.parquet")
    assert 100e9 < results["train_flops"].sum() <= 130e9
    stop = events(tmp_path / "tiny", "design")[-1]["stop"]
    assert stop == "the budget has no room for a trial that is worth its cost"


@pytest.mark.usefixtures("undrawn")
def test_a_budget_that_ends_in_the_first_round_leaves_nothing_clear(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("study: 10 TFLOP", "study: 30 GFLOP"), encoding="utf-8")

    run(f"run {declaration} --results {tmp_path} --backend local")

    status = run(f"status {declaration} --results {tmp_path}")
    assert "best at 20 GFLOP: open: " in status
    assert "the design stopped: the budget has no room for a trial that is worth its cost" in status
    best = [
        line
        for line in run(f"report {declaration} --results {tmp_path}").splitlines()
        if "GFLOP: mini-" in line
    ]
    assert best
    assert all(" of the grid's 4 not run here" in line and ", clear: " not in line for line in best)
    advice = run(f"recommend {declaration} --results {tmp_path} --flops 5e9 --pairs 1024")
    assert "; 1 configuration of the grid that might be best not run here\n" in advice


def test_design_whose_budget_pays_for_no_trial_is_refused(declaration: Path, run: Run) -> None:
    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("study: 10 TFLOP", "study: 4 GFLOP"), encoding="utf-8")

    said = run(f"plan {declaration}", code=2)

    assert "the study budget of 4 GFLOP has no room for a trial: the cheapest one costs 4.849 GFLOP. " in said


def test_keys_of_a_design_go_with_adaptive(declaration: Path, run: Run) -> None:
    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("design: adaptive", "design: {best: [20 GFLOP]}"), encoding="utf-8")
    assert "design.best needs adaptive" in run(f"plan {declaration}", code=2)

    declaration.write_text(
        text.replace("design: adaptive", "design: {adaptive: true, best: [7 GFLOP]}"), encoding="utf-8"
    )
    assert "design.best: 7 GFLOP is not a level of the study: 5 GFLOP, 10 GFLOP, 20 GFLOP" in run(
        f"plan {declaration}", code=2
    )

    for far in ("20 GFLOP", "700 GFLOP"):
        declaration.write_text(
            text.replace("design: adaptive", f"design: {{adaptive: true, forecast: {far}}}"), encoding="utf-8"
        )
        assert (
            f"design.forecast: {far} must be beyond the largest level, 20 GFLOP, and at most 30 times that"
            in run(f"plan {declaration}", code=2)
        )

    declaration.write_text(text.replace("design: adaptive", "design: full"), encoding="utf-8")
    assert "adaptive design" not in run(f"plan {declaration}")


def test_chosen_branch_brings_the_shorter_trials_of_its_trunk_and_costs_what_they_cost(
    declaration: Path, tmp_path: Path, run: Run
) -> None:
    text = declaration.read_text(encoding="utf-8")
    trunk = "  batch_size: 16\n  schedule: trunk\n  cooldown: 20%\n  warmup: 160 samples\n"
    declaration.write_text(text.replace("  batch_size: 16\n", trunk), encoding="utf-8")

    run(f"run {declaration} --results {tmp_path} --backend local")

    results = pd.read_parquet(tmp_path / "tiny" / "results.parquet")
    levels = results.groupby(["architecture", "strategy", "seed"])["level_flops"].agg(["max", "size"])
    assert (levels["size"] == levels["max"].map({5e9: 1, 10e9: 2, 20e9: 3})).all()
    costs = [event["cost_flops"] for event in events(tmp_path / "tiny", "trial-chosen")]
    assert sum(map(float, map(str, costs))) == results["paid_flops"].sum() < results["train_flops"].sum()
    left = pd.read_parquet(tmp_path / "tiny" / "plan.parquet")["paid_flops"].sum() - sum(
        results["paid_flops"]
    )
    said = run(f"status {declaration} --results {tmp_path}")
    assert f"not chosen: {36 - len(results)} trials, {format_flops(int(left))}\n" in said
