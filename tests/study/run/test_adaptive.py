"""An adaptive study from its declaration to its report, with made-up training."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.cells.table import Trials
from analysis.design.adaptive import Decision, decide
from analysis.design.course import CHOSEN
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops
from runners.results import CURVE_COLUMNS, plan_row, to_frame, write_table
from runners.trials.trial_files import Outcome, write_outcome
from runners.trials.trial_job import TrialJob
from study.run import execution, pipeline, run_context
from study.state.events import trials_of_event
from tests.root import ROOT
from tests.study.events import write_events
from tests.study.one_slot import OneSlot
from tests.study.tiny_study import EVALUATED, TinyStudy

pytestmark = pytest.mark.slow

EXIT_STOPPED = 4


class MadeUpTraining:
    """Training whose error falls with compute, with the noise of a trial's seed."""

    def __init__(self, *, stop_after: int = 0) -> None:
        self.stop_after, self.trials = stop_after, 0

    def __call__(self, job: TrialJob) -> Outcome:
        self.trials += 1
        if self.trials == self.stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        timing = {"wall_s": 0.1, "train_s": 0.1, "samples_per_s": 1000.0, "damaged_pairs": 0}
        outcome = Outcome(row=self.row(job.trial), timing=timing)
        job.folder.mkdir(parents=True, exist_ok=True)
        write_table(job.folder / "curve.parquet", to_frame([], CURVE_COLUMNS))
        write_outcome(job.folder, outcome)
        return outcome

    def row(self, trial: Trial) -> dict[str, Any]:
        """Return the row of a trial's result, or raise ValueError if it fails."""
        noise = np.random.default_rng(int(trial.first_id, 16)).standard_normal()
        better = 0.1 * (trial.cell.strategy == "clip") + 0.02 * (trial.cell.architecture == "mini-ConvNeXt")
        error = 0.3 + 0.5 * (trial.train_flops / 1e9) ** -0.4 - better + 0.01 * noise
        return plan_row(trial) | {
            "paid_flops": trial.paid_flops, "precision": "fp32", "evaluation_version": 1,
            "status": "finished", "reason": "", "train_loss": error,
            "held-out/top1": 1 - error, "held-out/count": 2000.0,
        }  # fmt: skip


def adaptive(tiny: TinyStudy, patch: pytest.MonkeyPatch) -> TinyStudy:
    """Declare an adaptive study of 36 trials, whose training is made up."""
    patch.setattr(run_context, "open_backend", lambda *_, **__: OneSlot())
    patch.setattr(execution, "run_trial", MadeUpTraining())
    tiny.declare(
        levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1, 2", strategies="clip, clip-crop-flip",
        architectures="mini-ViT-XXS-8, mini-ConvNeXt", more="design: adaptive\n",
    )  # fmt: skip
    return tiny


@pytest.fixture
def tiny(tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch) -> TinyStudy:
    return adaptive(tiny, monkeypatch)


@pytest.fixture(scope="module")
def ran(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyStudy, str]:
    """Return that study after its run, and what the run said."""
    with pytest.MonkeyPatch.context() as patch:
        whole = adaptive(TinyStudy(tmp_path_factory.mktemp("ran"), pool), patch)
        return whole, whole.run()


def chosen(tiny: TinyStudy) -> list[object]:
    return [event["trial"] for event in tiny.events("trial-chosen")]


@pytest.mark.usefixtures("undrawn")
def test_design_chooses_from_the_grid_until_its_questions_are_answered(
    tiny: TinyStudy, ran: tuple[TinyStudy, str]
) -> None:
    planned = tiny.says("plan")
    assert "adaptive design: the first round has 12 trials, " in planned
    assert "probably cost" in planned
    assert "8 rehearsals" in planned

    dry = tiny.says("run --dry-run")
    assert dry.startswith("36 trials: 24 not selected, 12 to run\n")

    tiny, output = ran
    assert "\n[ 1/12] mini-ViT-XXS-8 " in output

    results = tiny.table()
    assert f"\n[{len(results)}/{len(results)}] mini-" in output
    assert 12 < len(results) < 36
    assert set(results["trial"]) == set(chosen(tiny))
    last = tiny.events("design")[-1]
    assert last["stop"] in {"every question is answered", "no further trial is worth its cost"}
    assert last["spent_flops"] == tiny.booked("spent") == results["train_flops"].sum()

    dry = tiny.says("run --dry-run")
    assert dry.startswith(f"36 trials: {len(results)} finished, {36 - len(results)} not selected, 0 to run\n")
    assert last["stop"] in dry

    said = tiny.says("status")
    answers = [line for line in output.splitlines() if " GFLOP: mini-" in line]  # as the run has said them
    assert [line.partition(": ")[0] for line in answers] == ["5 GFLOP", "10 GFLOP", "20 GFLOP"]
    assert set(answers) < set(said.splitlines())
    assert f"not chosen: {36 - len(results)} trials, " in said

    tiny.says("report")
    report = tiny.folder / "report"
    assert pd.read_csv(report / "tables" / "choices.csv")["Trial"].tolist() == chosen(tiny)
    assert "Course of the adaptive design" in (report / "report.html").read_text(encoding="utf-8")
    assert not (report / "tables" / "missing.csv").exists()


def test_a_design_whose_tuning_has_just_begun_has_chosen_no_trial(tmp_path: Path) -> None:
    write_events(tmp_path / "events.jsonl", [{"time": 0.0, "event": "tuning-started", "slots": 0}])
    assert trials_of_event(tmp_path, CHOSEN) == []


@pytest.mark.usefixtures("undrawn")
def test_a_forecast_alone_asks_for_nothing_else_and_knows_the_families_of_own_architectures(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tiny.place / "nets").mkdir()
    for name, source in (("small", "mini-ViT-XXS-8"), ("large", "mini-ViT-XS-8")):
        config = ROOT / "budgets" / "cost" / "catalogue" / f"{source}.json"
        shutil.copy(config, tiny.place / "nets" / f"{name}.json")
    tiny.declare(
        levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1, 2", architectures="small, large",
        lr_peak="2e-3, small: 2e-3, large: 2e-3",
        more="catalogue: nets\ndesign: {adaptive: true, forecast: 60 GFLOP, width: 10%}\n",
    )  # fmt: skip
    seen = list[Trials]()

    def watched(trials: Trials, *choices: Any, **more: Any) -> Decision:  # noqa: ANN401 - those of `decide`
        seen.append(trials)
        return decide(trials, *choices, **more)

    monkeypatch.setattr(pipeline, "decide", watched)
    tiny.run()
    assert {*seen[-1].every["family"]} == {"ViT"}

    (line,) = (line for line in tiny.says("status").splitlines() if ": predicted error " in line)
    assert line.startswith("60 GFLOP: ")
    asked = {(one["kind"], one["flops"]) for event in tiny.events("design") for one in event["answers"]}
    assert asked == {("forecast", 60e9)}


def test_study_that_stops_and_goes_on_makes_the_same_choices(
    tiny: TinyStudy, ran: tuple[TinyStudy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, choices = ran[0].tables()["results.parquet"], chosen(ran[0])

    for after in (5, 8):  # within the first round, and in the second trial after it
        monkeypatch.setattr(execution, "run_trial", MadeUpTraining(stop_after=after))
        tiny.run(code=EXIT_STOPPED)
        dry = tiny.says("run --dry-run")
        done = len(tiny.table())
        assert f"36 trials: {done} finished, " in dry
        assert f", {max(1, 12 - done)} to run\n" in dry
    tiny.run()

    assert len(choices) > 13
    assert chosen(tiny) == choices
    assert tiny.tables()["results.parquet"] == whole


def test_design_stays_within_the_study_budget_of_a_grid_that_costs_more(tiny: TinyStudy) -> None:
    tiny.edit(("study: 10 TFLOP", "study: 130 GFLOP"))
    planned = tiny.says("plan")
    assert "130 GFLOP at most" in planned
    assert re.search(r"about \d+ s to \d+ \w+ of", planned)
    exported = json.loads(tiny.says("plan --format json"))
    assert exported["most_flops"] == 130e9 < exported["train_flops"]
    design, priced = "design: adaptive", "cluster: {device: h100-sxm, price_per_hour: 2}"
    tiny.edit((design, f"{design}\n{priced}"))
    assert tiny.says("plan").count(" within the study budget\n") == 2
    tiny.edit((priced, ""))

    said = tiny.run()
    assert " spent, 130 GFLOP planned\n" in said

    results = tiny.table()
    assert 100e9 < results["train_flops"].sum() <= 130e9
    stop = tiny.events("design")[-1]["stop"]
    assert stop == "the budget has no room for a trial that is worth its cost"


@pytest.mark.usefixtures("undrawn")
def test_a_budget_that_ends_in_the_first_round_leaves_nothing_clear(tiny: TinyStudy) -> None:
    tiny.edit(("study: 10 TFLOP", "study: 4 GFLOP"))
    assert "4.849 GFLOP" in tiny.says("plan", code=2), "what the cheapest trial costs"
    tiny.edit(("study: 4 GFLOP", "study: 30 GFLOP"))
    assert " 6 trials, 29." in tiny.says("plan")

    tiny.run()

    status = tiny.says("status --why")
    assert "  open: best with probability" in status
    assert "the budget has no room" in status
    reported = tiny.says("report").splitlines()
    best = [line for line in reported if "GFLOP: mini-" in line]
    assert best
    assert not any(line.endswith(", clear") for line in best)
    advice = tiny.says("recommend --flops 5e9 --pairs 1024")
    assert "run mini-" in advice


@pytest.mark.parametrize("more", ["", EVALUATED], ids=["plain", "evaluated"])
def test_chosen_branch_brings_the_shorter_trials_of_its_trunk_and_costs_what_they_cost(
    tiny: TinyStudy, more: str
) -> None:
    trunk = "  batch_size: 16\n  schedule: trunk\n  cooldown: 20%\n  warmup: 160 samples\n"
    tiny.edit(("  batch_size: 16\n", trunk), ("design: adaptive\n", f"design: adaptive\n{more}"))

    tiny.run()

    results = tiny.table().assign(**{} if more else {"phase": ""})
    level = results["level_flops"].map({5e9: 1, 10e9: 2, 20e9: 3})
    ended = {*zip(results["trunk"], results["phase"], level, strict=True)}
    for trunk_of, _, longest in ended:
        brought = range(1, longest + 1)
        assert {(trunk_of, "trunk" if more else "", shorter) for shorter in brought} <= ended
    if more:  # a trunk goes on without its branches
        assert 0 < (results["phase"] == "").sum() < (results["phase"] == "trunk").sum()
    costs = [event["cost_flops"] for event in tiny.events("trial-chosen")]
    assert sum(map(float, map(str, costs))) == results["paid_flops"].sum() < results["train_flops"].sum()
    plan = tiny.table("plan")
    left = int(plan["paid_flops"].sum() - results["paid_flops"].sum())
    not_chosen = f"not chosen: {len(plan) - len(results)} trials, {format_flops(left)}\n"
    assert not_chosen in tiny.says("status")
