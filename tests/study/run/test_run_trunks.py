"""A study with trunks, without Ray: the same results as without sharing, and every FLOP booked once."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from analysis.answers.cost import totals
from budgets.book import Book
from budgets.ledger import Ledger, read_entries
from budgets.quantity import format_flops
from runners.results import read_json_lines, read_table
from runners.trials.meter import read_meter
from runners.trials.trial_files import milestone
from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from tests.study.conftest import Run, study_in, write_declaration

pytestmark = pytest.mark.slow

LEVELS = "5 GFLOP, 7 GFLOP, 10 GFLOP"


def declare(folder: Path, pool: Path, name: str, levels: str = LEVELS, **changes: str) -> Path:
    path = write_declaration(folder, pool, name, levels=levels)
    text = path.read_text(encoding="utf-8")
    trunk = "training:\n  schedule: trunk\n  warmup: 64 samples"
    text = text.replace("training:", trunk)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


def metered(folder: Path) -> int:
    counts = [read_meter(each) for each in (folder / "trials").iterdir()]
    return sum(each.train_flops for each in counts if each is not None)


def booked(folder: Path) -> dict[str, int]:
    entries = read_entries(folder / "ledger.jsonl")
    assert not Book.of(entries).open
    return {
        kind: sum(entry.train_flops for entry in entries if entry.entry == kind)
        for kind in ("spent", "wasted")
    }


@pytest.fixture(scope="module")
def alone(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Results of each level in a study of its own, by trial."""
    from study.cli import main  # noqa: PLC0415 - as in the run fixture

    folder = tmp_path_factory.mktemp("alone")
    for number, level in enumerate(LEVELS.split(", ")):
        declaration = declare(folder, pool, f"alone-{number}", level)
        assert main(["run", str(declaration), "--results", str(folder), "--backend", "local"]) == 0
    tables = [read_table(folder / f"alone-{number}" / "results.parquet") for number in range(3)]
    return pd.concat(tables).set_index("trial")


def check_against(alone: pd.DataFrame, folder: Path) -> pd.DataFrame:
    results = read_table(folder / "results.parquet").set_index("trial")
    assert len(results) == 3
    pd.testing.assert_frame_equal(
        results.drop(columns="paid_flops"), alone.loc[results.index].drop(columns="paid_flops")
    )
    return results


def test_a_study_with_trunks_has_the_results_of_its_levels_run_alone_and_pays_less(
    pool: Path, tmp_path: Path, run: Run, alone: pd.DataFrame
) -> None:
    declaration = declare(tmp_path, pool, "tiny")
    run(f"run {declaration} --results {tmp_path} --backend local")

    folder = tmp_path / "tiny"
    results = check_against(alone, folder)
    assert len(set(results["trunk"]) - {""}) == 1
    steps = results["steps"].to_numpy()
    step = results["train_flops"].iloc[0] / steps[0]
    milestones = steps - (0.2 * steps).round()
    paid = (steps - [0, *milestones[:-1]]) * step
    assert results["paid_flops"].to_list() == paid.tolist()
    book = booked(folder)
    assert book == {"spent": sum(paid), "wasted": 0}
    assert metered(folder) == sum(paid)

    plan, ledger = read_table(folder / "plan.parquet"), read_json_lines(folder / "ledger.jsonl")
    cost = totals(plan, ledger, pd.DataFrame())
    assert cost.planned_flops == cost.spent_flops == sum(paid)
    # The top level keeps its milestone, from which a further level would continue; the others are gone.
    kept = [milestone(folder / "trials" / trial) is not None for trial in results.index]
    assert kept == [False, False, True]

    # A reservation that is smaller for another reason, as one rebuilt from a meter, is no shared trunk.
    study = study_in(declaration=load_declaration(declaration), folder=tmp_path / "other", pools=tmp_path)
    first = min(plan_study(study).trials, key=lambda trial: trial.samples_seen)
    study.trial_folder(first.trial_id).mkdir(parents=True)
    (study.trial_folder(first.trial_id) / "checkpoint-0000000001-abc.pt").touch()
    Ledger(study.ledger, None).reserve(first.trial_id, first.train_flops_per_sample * first.batch_size)
    assert first in plan_study(study).trials

    for declared, fewer in ((2, "5 GFLOP, 10 GFLOP"), (1, "10 GFLOP")):
        said = run(f"run {declare(tmp_path, pool, 'tiny', fewer)} --results {tmp_path} --backend local")
        assert "the ledger and the plan differ" not in said
        assert read_table(folder / "plan.parquet")["paid_flops"].iloc[-1] == paid[-1]
        assert len(read_table(folder / "results.parquet")) == declared
        assert booked(folder) == book

    (folder / "ledger.jsonl").unlink()
    said = run(f"run {declaration} --results {tmp_path} --backend local --repair")
    assert "the ledger and the plan differ" not in said
    assert booked(folder) == book


def test_levels_added_above_cost_what_they_add_and_a_lost_milestone_is_waste(
    pool: Path, tmp_path: Path, run: Run, alone: pd.DataFrame
) -> None:
    first, second, _ = LEVELS.split(", ")
    folder = tmp_path / "tiny"
    run(f"run {declare(tmp_path, pool, 'tiny', f'{first}, {second}')} --results {tmp_path} --backend local")
    before = booked(folder)
    (top,) = (each for each in (folder / "trials").iterdir() if milestone(each) is not None)
    lost = milestone(top)
    assert lost is not None
    steps = int(lost.name.split("-")[1])
    lost.unlink()

    run(f"run {declare(tmp_path, pool, 'tiny')} --results {tmp_path} --backend local")

    results = check_against(alone, folder)
    step = results["train_flops"].iloc[0] / results["steps"].iloc[0]
    paid = results["paid_flops"].iloc[-1]
    assert paid == (results["steps"].iloc[-1] - steps) * step
    book = booked(folder)
    assert book == {"spent": before["spent"] + paid, "wasted": steps * step}
    assert metered(folder) == sum(book.values())


@pytest.mark.parametrize("ledger", ["sound", "deleted"])
def test_a_level_between_two_that_have_ended_costs_all_of_its_steps_and_wastes_none(
    pool: Path, tmp_path: Path, run: Run, alone: pd.DataFrame, ledger: str
) -> None:
    first, _, last = LEVELS.split(", ")
    run(f"run {declare(tmp_path, pool, 'tiny', f'{first}, {last}')} --results {tmp_path} --backend local")
    before = booked(tmp_path / "tiny")
    declaration = declare(tmp_path, pool, "tiny")
    ((_, missing),) = alone[alone["level_flops"] == 7e9].iterrows()
    needed = before["spent"] + int(missing["train_flops"])

    text = declaration.read_text(encoding="utf-8")
    declaration.write_text(text.replace("study: 10 TFLOP", f"study: {needed - 1}"), encoding="utf-8")
    for command in ("run", "run --dry-run"):
        said = run(f"{command} {declaration} --results {tmp_path} --backend local", code=2)
        assert f"this declaration needs {format_flops(needed)}: more than the study budget of" in said
    declaration.write_text(text.replace("study: 10 TFLOP", f"study: {needed}"), encoding="utf-8")
    said = run(f"plan {declaration} --results {tmp_path}")
    assert "1 trial of trunks, such as " in said
    assert f"{format_flops(needed)} of training in all" in said
    if ledger == "deleted":
        (tmp_path / "tiny" / "ledger.jsonl").unlink()
    repair = "--repair" if ledger == "deleted" else ""
    said = run(f"run {declaration} --results {tmp_path} --backend local {repair}")

    assert "the ledger and the plan differ" not in said
    check_against(alone, tmp_path / "tiny")
    assert booked(tmp_path / "tiny") == {"spent": needed, "wasted": 0}
    assert metered(tmp_path / "tiny") == needed

    # The longest trial continued from the shortest one, also if that is no longer declared.
    paid = read_table(tmp_path / "tiny" / "results.parquet")["paid_flops"].iloc[-1]
    declaration = declare(tmp_path, pool, "tiny", LEVELS.removeprefix(f"{first}, "))
    said = run(f"run {declaration} --results {tmp_path} --backend local")
    assert "the ledger and the plan differ" not in said
    assert read_table(tmp_path / "tiny" / "plan.parquet")["paid_flops"].iloc[-1] == paid


def test_a_trunk_that_diverges_ends_its_longer_trials_once(pool: Path, tmp_path: Path, run: Run) -> None:
    changes = {"warmup: 64": "weight_decay: 1000\n  warmup: 64", "mini-ViT-XXS-8: 2e-3": "mini-ViT-XXS-8: 10"}
    declaration = declare(tmp_path, pool, "tiny", **changes)

    said = run(f"run {declaration} --results {tmp_path} --backend local", code=1)

    folder = tmp_path / "tiny"
    results = read_table(folder / "results.parquet")
    assert results["status"].tolist() == ["diverged", "failed", "failed"]
    assert results["reason"].str.contains("its trunk ended").tolist() == [False, True, True]
    assert Book.of(read_entries(folder / "ledger.jsonl")).spent_flops == metered(folder)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [len(each["branches"]) for each in events if each["event"] == "trunk-ended"] == [2]
    assert len(re.findall("its trunk ended", said)) <= 1

    said = run(f"run {declaration} --results {tmp_path} --dry-run")
    assert (
        "3 trials: 1 finished, 2 failed in an earlier run (--retry-failed runs them again), 0 to run" in said
    )
    # Without the level that diverged, the next one trains all of its steps.
    declaration = declare(tmp_path, pool, "tiny", "7 GFLOP, 10 GFLOP", **changes)
    run(f"run {declaration} --results {tmp_path} --backend local", code=1)
    assert read_table(folder / "results.parquet")["status"].tolist() == ["diverged", "failed"]
    assert Book.of(read_entries(folder / "ledger.jsonl")).spent_flops == metered(folder)
