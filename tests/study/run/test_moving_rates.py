"""Learning rates that move, from the declaration to the report, with made-up training."""

import math
import re
import shutil
from typing import Any

import pandas as pd
import pytest

from budgets.planning.planned_trial import Trial
from budgets.planning.tuning import Scores
from budgets.quantity import format_flops
from runners.scheduling.backend import Ended
from runners.trials.meter import FlopCount, read_meter, write_meter
from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from study import Study
from study.run import execution, run_context
from tests.root import ROOT
from tests.study.one_slot import OneSlot
from tests.study.run.test_adaptive import MadeUpTraining
from tests.study.tiny_study import TRUNK, TinyStudy, read_json

pytestmark = pytest.mark.slow


class BestRateFalls(MadeUpTraining):
    """Training whose best peak learning rate falls with the root of the compute."""

    def row(self, trial: Trial) -> dict[str, Any]:
        off = math.log(trial.lr_peak / (2e-3 * (trial.train_flops / 5e9) ** -0.5))
        top1 = {f"{name}/top1": 0.6 - 0.1 * off**2 for name in ("held-out", "validation")}
        return super().row(trial) | top1 | {"validation/count": 2000.0}


RATES = "fields: {lr_peak: [1e-3, 2e-3, 4e-3]}"
TUNING_SEED, TOP, LOST = 1000, 20_000_000_000, 12_000_000_000


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_rates_are_tuned_carried_on_checked_and_reported(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, *, carried: bool
) -> None:
    monkeypatch.setattr(run_context, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", BestRateFalls())
    places = "levels: [5 GFLOP, 10 GFLOP], " if carried else ""
    tuning = f"tuning: {{share: 20%, {RATES}, {places}check: true}}\n"
    tiny.declare(levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1", more=tuning)

    planned, agenda = tiny.says("plan"), tiny.says("run --dry-run")
    assert "tuned rates: 3 trials\n" in agenda
    (cost,) = re.findall(r"^(.* \S*FLOP) to run, ", agenda, re.MULTILINE)
    assert f" of the tuning, {cost}" in planned
    ran = tiny.run()

    results = tiny.table().groupby("level_flops")["lr_peak"].first()
    (check,) = read_json(tiny.folder / "tuning.json")["checks"]
    assert check["cell"]["level_flops"] == 20e9
    assert ran.count("check of the tuned rates: 3 trials, ") == 1
    if carried:
        assert results.tolist() == pytest.approx([2e-3, 1.41e-3, 1e-3], rel=0.05)
        assert not check["moved"]
    else:
        assert results.tolist() == [2e-3] * 3
        assert check["moved"]
        assert check["winner"]["values"]["lr_peak"] == pytest.approx(1e-3)
    said = tiny.says("plan")
    assert ("clip: exponent -0.5" in said) is carried
    assert ("the tuned rate 0.0009" in said or "the tuned rate 0.001" in said) is carried
    assert ("lr_peak 0.001 (60.0 %)" in said) is not carried

    level = format_flops(booked_of(tiny, near(tiny))["spent"])
    assert f" at 20 GFLOP: 3 trials, {level}; 1 TFLOP of the " in said

    tiny.says("report")
    report = tiny.folder / "report"
    page = " ".join((report / "report.html").read_text(encoding="utf-8").split())
    assert f"{level} of 1 TFLOP" in page
    assert ("(at 20 GFLOP another rate was better for 1" in page) is not carried
    checked = (report / "tables" / "checked-rates.md").read_text(encoding="utf-8")
    row = "0.002 | 44.8 | 0.001 | 40.0 | moved"
    row = "0.0009974 | 40.0 | 0.0009974 | 40.0 | still the best" if carried else row
    assert f"| mini-ViT-XXS-8 | CLIP | 20 GFLOP | {row} |" in checked
    if carried:
        of_line = pd.read_csv(report / "tables" / "carried-rates.csv")
        assert of_line["Tuned here"].tolist() == ["yes", "yes", "no"]


@pytest.mark.usefixtures("undrawn")
def test_ladder_of_a_users_own_catalogue_is_one_family_in_tuning_and_report(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", BestRateFalls())
    (tiny.place / "nets").mkdir()
    kinds = {"small-vit": "mini-ViT-XXS-8", "base-vit": "mini-ViT-XS-8", "conv": "mini-ConvNeXt"}
    for name, source in kinds.items():
        config = ROOT / "budgets" / "cost" / "catalogue" / f"{source}.json"
        shutil.copy(config, tiny.place / "nets" / f"{name}.json")
    sizes = "tuning: {sizes: [small-vit, base-vit], share: 40%, " + RATES + "}"
    tiny.declare(
        levels="5 GFLOP, 10 GFLOP", seeds="0, 1", architectures=", ".join(kinds),
        more=f"catalogue: nets\n{sizes}\n",
    )  # fmt: skip
    tiny.run()

    (line,) = read_json(tiny.folder / "tuning.json")["carried"]
    assert [each["architecture"] for each in line["rates"]] == ["small-vit", "base-vit"]
    opened = Study("tiny", results=tiny.place)
    cells = opened.analysis.draws.cells
    assert dict(zip(cells["architecture"], cells["family"], strict=True)) == {
        "small-vit": "ViT", "base-vit": "ViT", "conv": "ConvNeXt"
    }  # fmt: skip
    assert {profile.identity["family"] for profile in opened.analysis.profiles} == {"ViT"}
    assert len(opened.analysis.profiles) == 2
    assert "small-vit" in tiny.says("recommend --flops '20 GFLOP' --pairs 2k")

    tiny.edit(("sizes: [small-vit, base-vit]", "sizes: [small-vit]"))
    tiny.run()
    of_family, _ = read_json(tiny.folder / "tuning.json")["winners"]
    assert (of_family["architecture"], of_family["serves"]) == ("small-vit", ["base-vit"])
    assert (
        tiny.table().groupby("architecture")["lr_peak"].first()["base-vit"] == of_family["values"]["lr_peak"]
    )
    assert "tuned: small-vit clip (also for base-vit): lr_peak " in tiny.says("plan")
    tiny.says("report")
    page = (tiny.folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "learning rates were tuned for each" in " ".join(page.split())
    of_report = pd.read_csv(tiny.folder / "report" / "tables" / "tuning.csv").set_index("Architecture")
    assert of_report["Note"].str.contains("also for base-vit").tolist() == [True, False]


class DiedError(Exception):
    """A made-up trial's process has died."""


class DiesAtTheTop(BestRateFalls):
    """Training of a check whose trials die once, after three fifths of their steps."""

    def __init__(self) -> None:
        super().__init__()
        self.died: set[str] = set()

    def __call__(self, job: TrialJob) -> Outcome:
        trial = job.trial
        job.folder.mkdir(parents=True, exist_ok=True)
        lost = read_meter(job.folder) or FlopCount()
        if trial.seed == TUNING_SEED and trial.cell.level_flops == TOP and trial.trial_id not in self.died:
            self.died.add(trial.trial_id)
            write_meter(job.folder, FlopCount(train_flops=LOST))
            raise DiedError
        write_meter(job.folder, FlopCount(train_flops=lost.train_flops + trial.train_flops))
        return super().__call__(job)


class FragileSlot(OneSlot):
    """A slot whose jobs may die."""

    def wait(self, timeout_s: float) -> list[Ended]:
        jobs = list(self._jobs)
        try:
            return super().wait(timeout_s)
        except DiedError:
            return [Ended(trial=job.trial, how="crashed", reason="its process died") for job in jobs]


def test_check_pays_no_more_than_its_share_and_the_grid_goes_on_without_what_is_left_out(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "open_backend", lambda *_, **__: FragileSlot())
    training = DiesAtTheTop()
    monkeypatch.setattr(execution, "run_trial", training)
    # 80 GFLOP pay for three trials and one that is lost.
    check = f"tuning: {{share: 20%, {RATES}, check: 0.8%}}\n"
    resources = "checkpoint: 0.2 s, backoff: 0.01 s"
    tiny.declare(levels="5 GFLOP, 20 GFLOP", resources=resources, more=check)
    assert "80 GFLOP of the study budget" in tiny.says("plan")

    first, again = tiny.run(), tiny.run()

    ids = near(tiny)
    booked = booked_of(tiny, ids)
    results = {each: tiny.folder / "trials" / each / "result.json" for each in ids}
    trained = [read_json(path)["row"]["train_flops"] for path in results.values() if path.exists()]
    assert booked == {"spent": sum(trained), "wasted": len(training.died) * LOST}
    assert sum(booked.values()) <= 80_000_000_000
    assert read_json(tiny.folder / "tuning.json")["checks"] == []
    assert [said.count("left out, since crashes used up its share") for said in (first, again)] == [1, 1]
    assert len(tiny.table()) == 2
    assert not tiny.reserved()

    def of_tuning() -> tuple[int, int]:
        level, *_ = tiny.status()["levels"]
        assert level["name"] == "tuning"
        return level["waiting"], level["left_out"]

    left_out = len(ids) - len(trained)
    assert left_out
    assert of_tuning() == (0, left_out)
    # The share of the tuning pays for no check; a larger share of the check does.
    tiny.edit(("share: 20%, ", "share: 30%, "))
    assert of_tuning() == (0, left_out)
    tiny.edit(("share: 30%, ", "share: 20%, "), ("check: 0.8%", "check: 3%"))
    assert of_tuning() == (left_out, 0)


def near(tiny: TinyStudy) -> set[str]:
    """Return the trials of a study's check."""
    return {*read_json(tiny.folder / "tuning.json")["neighbours"]}


def booked_of(tiny: TinyStudy, ids: set[str]) -> dict[str, int]:
    """Return the training FLOPs that some trials spent and wasted."""
    accounts = [account for trial, account in tiny.book().trials.items() if trial in ids]
    return {kind: sum(getattr(each, f"{kind}_flops") for each in accounts) for kind in ("spent", "wasted")}


def test_rates_tuned_per_level_train_and_pay_each_level_without_a_trunk(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scores, "at_chance", lambda *_: "")  # these trials are too short to beat it
    tuning = "tuning: {share: 20%, fields: {lr_peak: [1e-3, 2e-3]}, levels: [2 GFLOP, 3 GFLOP], check: 1%}\n"
    tiny.declare(levels="2 GFLOP, 3 GFLOP, 4 GFLOP", training=f"{TRUNK}  cooldown: 25%\n", more=tuning)

    tiny.run()

    results, tried = tiny.table(), tiny.table("tuning")
    both = pd.concat([results, tried])
    assert set(tried["level_flops"]) == {2e9, 3e9, 4e9}
    assert (both["status"] == "finished").all()
    assert (both["paid_flops"] == both["train_flops"]).all()
    assert both["trunk"].ne("").all()
    assert results["trunk"].nunique() == 3, "each level has its own rate"
    spent = {trial: account.spent_flops for trial, account in tiny.book().trials.items()}
    assert spent == dict(zip(both["trial"], both["train_flops"].astype(int), strict=True))
    counted = {name: read_meter(tiny.folder / "trials" / name) for name in spent}
    assert {name: count and count.train_flops for name, count in counted.items()} == spent
    assert f"{format_flops(sum(spent.values()))} of training" in tiny.says("plan")
