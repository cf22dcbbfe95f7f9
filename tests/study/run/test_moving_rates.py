"""Learning rates that move, from the declaration to the report, with made-up training."""

import json
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from budgets.book import Book
from budgets.ledger import read_entries
from budgets.quantity import format_flops
from runners.scheduling.backend import Ended
from runners.trials.meter import FlopCount, read_meter, write_meter
from runners.trials.trial_files import Outcome, write_outcome
from runners.trials.trial_job import TrialJob
from study import Study
from study.run import execution, site
from tests.root import ROOT
from tests.study.conftest import Run, write_declaration
from tests.study.run.test_adaptive import MadeUpTraining, OneSlot

pytestmark = pytest.mark.slow


class BestRateFalls(MadeUpTraining):
    """Training whose best peak learning rate falls with the root of the compute."""

    def __call__(self, job: TrialJob) -> Outcome:
        found = super().__call__(job)
        off = math.log(job.trial.lr_peak / (2e-3 * (job.trial.train_flops / 5e9) ** -0.5))
        row = dict(found.row) | {
            f"{name}/top1": 0.6 - 0.1 * off**2 for name in ("held-out", "validation")
        } | {"validation/count": 2000.0}  # fmt: skip
        outcome = Outcome(row=row, timing=found.timing)
        write_outcome(job.folder, outcome)
        return outcome


RATES = "fields: {lr_peak: [1e-3, 2e-3, 4e-3]}"
TUNING_SEED, TOP, LOST = 1000, 20_000_000_000, 12_000_000_000


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.usefixtures("undrawn")
def test_rates_are_tuned_carried_on_checked_and_reported(
    pool: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, *, carried: bool
) -> None:
    monkeypatch.setattr(site, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", BestRateFalls())
    path = write_declaration(tmp_path, pool, levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1")
    with path.open("a", encoding="utf-8") as file:
        places = "levels: [5 GFLOP, 10 GFLOP], " if carried else ""
        file.write(f"tuning: {{share: 20%, {RATES}, {places}check: true}}\n")

    planned = run(f"plan {path} --results {tmp_path}")
    agenda = run(f"run {path} --results {tmp_path} --dry-run")
    assert "then the check of the tuned rates: 3 trials\n" in agenda
    (cost,) = re.findall(r"^(.* \S*FLOP) to run, ", agenda, re.MULTILINE)
    assert f" of the tuning, {cost}" in planned
    ran = run(f"run {path} --results {tmp_path} --backend local")

    folder = tmp_path / "tiny"
    results = pd.read_parquet(folder / "results.parquet").groupby("level_flops")["lr_peak"].first()
    tuned = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
    (check,) = tuned["checks"]
    assert check["cell"]["level_flops"] == 20e9
    assert ran.count("check of the tuned rates: 3 trials, ") == 1
    if carried:
        assert results.tolist() == pytest.approx([2e-3, 1.41e-3, 1e-3], rel=0.05)
        assert not check["moved"]
    else:
        assert results.tolist() == [2e-3] * 3
        assert check["moved"]
        assert check["winner"]["values"]["lr_peak"] == pytest.approx(1e-3)
    said = run(f"plan {path} --results {tmp_path}")
    assert ("carried along levels: clip: exponent -0.5" in said) is carried
    assert ("the tuned rate 0.0009" in said or "the tuned rate 0.001" in said) is carried
    assert ("lr_peak 0.001 (60.0%) is better than the tuned 0.002" in said) is not carried

    entries = read_entries(folder / "ledger.jsonl")
    ids = near(folder)
    level = format_flops(
        sum(each.train_flops for each in entries if each.what in ids and each.entry == "spent")
    )
    assert (
        f"check of the tuned rates and their neighbours at 20 GFLOP: 3 trials, {level}; 1 TFLOP of the "
        in said
    )

    run(f"report {path} --results {tmp_path}")
    report = folder / "report"
    page = " ".join((report / "report.html").read_text(encoding="utf-8").split())
    assert f"{level} of 1 TFLOP set aside were paid" in page
    worse = "0.001 has an error of 40.0 %, the tuned 0.002 one of 44.8 %"
    moved = f"no longer the best for mini-ViT-XXS-8 with CLIP at 20 GFLOP: {worse}"
    assert (moved in page) is not carried
    assert ("tuned for each (at 20 GFLOP a neighbour of 1 of them was better)" in page) is not carried
    verdict = pd.read_csv(report / "tables" / "checked-rates.csv")["Verdict"].tolist()
    assert verdict == ["still the best" if carried else "moved"]
    if carried:
        of_line = pd.read_csv(report / "tables" / "carried-rates.csv")
        assert of_line["Tuned here"].tolist() == ["yes", "yes", "no"]


@pytest.mark.usefixtures("undrawn")
def test_ladder_of_a_users_own_catalogue_is_one_family_in_tuning_and_report(
    pool: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", BestRateFalls())
    (tmp_path / "nets").mkdir()
    kinds = {"small-vit": "mini-ViT-XXS-8", "base-vit": "mini-ViT-XS-8", "conv": "mini-ConvNeXt"}
    for name, source in kinds.items():
        config = ROOT / "budgets" / "cost" / "catalogue" / f"{source}.json"
        shutil.copy(config, tmp_path / "nets" / f"{name}.json")
    path = write_declaration(
        tmp_path, pool, levels="5 GFLOP, 10 GFLOP", seeds="0, 1", architectures=", ".join(kinds)
    )
    sizes = "tuning: {sizes: [small-vit, base-vit], share: 40%, " + RATES + "}"
    path.write_text(f"{path.read_text(encoding='utf-8')}catalogue: nets\n{sizes}\n", encoding="utf-8")
    run(f"run {path} --results {tmp_path} --backend local")

    tuned = json.loads((tmp_path / "tiny" / "tuning.json").read_text(encoding="utf-8"))
    (line,) = tuned["carried"]
    assert [each["architecture"] for each in line["rates"]] == ["small-vit", "base-vit"]
    opened = Study.open("tiny", results=tmp_path)
    cells = opened.analysis.draws.cells
    assert dict(zip(cells["architecture"], cells["family"], strict=True)) == {
        "small-vit": "ViT", "base-vit": "ViT", "conv": "ConvNeXt"
    }  # fmt: skip
    assert {profile.identity["family"] for profile in opened.analysis.profiles} == {"ViT"}
    assert len(opened.analysis.profiles) == 2
    assert "small-vit" in run(f"recommend {path} --results {tmp_path} --flops '20 GFLOP' --pairs 2k")


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
    pool: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "open_backend", lambda *_, **__: FragileSlot())
    training = DiesAtTheTop()
    monkeypatch.setattr(execution, "run_trial", training)
    path = write_declaration(tmp_path, pool, levels="5 GFLOP, 20 GFLOP")
    path.write_text(
        path.read_text(encoding="utf-8").replace("0.5 s", "0.5 s, backoff: 0.01 s"), encoding="utf-8"
    )
    with path.open("a", encoding="utf-8") as file:  # 80 GFLOP pay for three trials and one that is lost
        file.write(f"tuning: {{share: 20%, {RATES}, check: 0.8%}}\n")
    planned = run(f"plan {path} --results {tmp_path}")
    assert "80 GFLOP of the study budget are set aside" in planned

    first = run(f"run {path} --results {tmp_path} --backend local")
    again = run(f"run {path} --results {tmp_path} --backend local")

    folder = tmp_path / "tiny"
    entries = read_entries(folder / "ledger.jsonl")
    ids = near(folder)
    booked = {
        kind: sum(each.train_flops for each in entries if each.what in ids and each.entry == kind)
        for kind in ("spent", "wasted")
    }
    trained = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
    assert booked["wasted"] == len(training.died) * LOST
    assert booked["spent"] == sum(
        json.loads((folder / "trials" / each / "result.json").read_text())["row"]["train_flops"]
        for each in ids if (folder / "trials" / each / "result.json").exists()
    )  # fmt: skip
    assert booked["spent"] + booked["wasted"] <= 80_000_000_000
    assert trained["checks"] == []
    for said in (first, again):
        assert (
            said.count("of the check of the tuned rates are left out, since crashes used up its share") == 1
        )
    assert len(pd.read_parquet(folder / "results.parquet")) == 2
    assert not Book.of(entries).open
    left_out = [each for each in ids if not (folder / "trials" / each / "result.json").exists()]
    tuning, *_ = json.loads(run(f"status {path} --results {tmp_path} --json"))["levels"]
    assert left_out
    assert (tuning["name"], tuning["waiting"], tuning["left_out"]) == ("tuning", 0, len(left_out))
    output = run(f"status {path} --results {tmp_path}").splitlines()
    assert output[0].split() == ["level", "done", "running", "failed", "waiting", "left", "out"]
    assert output[-1] == "no run is active, and no trial is waiting"

    text = path.read_text(encoding="utf-8")
    # The share of the tuning pays for no check; a larger share of the check does.
    for raised, waiting in (("share: 30%, ", 0), ("share: 20%, ", len(left_out))):
        check = "check: 3%" if waiting else "check: 0.8%"
        path.write_text(text.replace("share: 20%, ", raised).replace("check: 0.8%", check), encoding="utf-8")
        tuning, *_ = json.loads(run(f"status {path} --results {tmp_path} --json"))["levels"]
        assert (tuning["waiting"], tuning["left_out"]) == (waiting, len(left_out) - waiting)


def near(folder: Path) -> set[str]:
    """Return the trials of a study's check."""
    return {*json.loads((folder / "tuning.json").read_text(encoding="utf-8"))["neighbours"]}


def test_rates_tuned_per_level_train_and_pay_each_level_without_a_trunk(
    pool: Path, tmp_path: Path, run: Run
) -> None:
    path = write_declaration(tmp_path, pool, levels="2 GFLOP, 3 GFLOP, 4 GFLOP")
    text = path.read_text(encoding="utf-8")
    trunk = "training:\n  schedule: trunk\n  cooldown: 25%\n  warmup: 64 samples"
    path.write_text(
        text.replace("training:", trunk)
        + "tuning: {share: 20%, fields: {lr_peak: [1e-3, 2e-3]}, levels: [2 GFLOP, 3 GFLOP], check: 1%}\n",
        encoding="utf-8",
    )

    run(f"run {path} --results {tmp_path} --backend local")

    folder = tmp_path / "tiny"
    results, tried = (pd.read_parquet(folder / f"{name}.parquet") for name in ("results", "tuning"))
    both = pd.concat([results, tried])
    assert set(tried["level_flops"]) == {2e9, 3e9, 4e9}
    assert (both["status"] == "finished").all()
    assert (both["paid_flops"] == both["train_flops"]).all()
    assert both["trunk"].ne("").all()
    assert results["trunk"].nunique() == 3, "each level has its own rate"
    entries = read_entries(folder / "ledger.jsonl")
    spent = {each.what: each.train_flops for each in entries if each.entry == "spent"}
    assert spent == dict(zip(both["trial"], both["train_flops"].astype(int), strict=True))
    counted = {name: read_meter(folder / "trials" / name) for name in spent}
    assert {name: count and count.train_flops for name, count in counted.items()} == spent
    assert f"{format_flops(sum(spent.values()))} of training in all" in run(
        f"plan {path} --results {tmp_path}"
    )
