"""A study with trunks, without Ray: the same results as without sharing, and every FLOP booked once."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.answers.cost import by_level, totals
from budgets.planning.planned_trial import Trial
from budgets.quantity import format_flops
from runners.results import AVERAGE, PHASE
from runners.results import TRUNK as TRUNK_PHASE
from runners.store.files import write_json
from runners.trials.meter import read_meter
from runners.trials.trial_files import drop_milestone, milestone
from study.run import books, execution, run_context
from tests.progress import progress
from tests.study.one_slot import OneSlot
from tests.study.run.test_adaptive import MadeUpTraining
from tests.study.tiny_study import EVALUATED, TRUNK, TinyStudy

pytestmark = pytest.mark.slow

LEVELS = "5 GFLOP, 7 GFLOP, 10 GFLOP"


@pytest.fixture
def tiny(tiny: TinyStudy) -> TinyStudy:
    tiny.declare(levels=LEVELS, training=TRUNK)
    return tiny


def metered(tiny: TinyStudy) -> int:
    counts = [read_meter(each) for each in tiny.trials()]
    return sum(each.train_flops for each in counts if each is not None)


@pytest.fixture(scope="module")
def alone(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Results of each level in a study of its own, by trial."""
    folder, tables = tmp_path_factory.mktemp("alone"), []
    for number, level in enumerate(LEVELS.split(", ")):
        one = TinyStudy(folder, pool, f"alone-{number}", levels=level, training=TRUNK)
        one.run()
        tables.append(one.table())
    return pd.concat(tables).set_index("trial")


def check_against(alone: pd.DataFrame, tiny: TinyStudy) -> pd.DataFrame:
    results = tiny.table().set_index("trial")
    assert len(results) == 3
    pd.testing.assert_frame_equal(
        results.drop(columns="paid_flops"), alone.loc[results.index].drop(columns="paid_flops")
    )
    return results


def test_a_study_with_trunks_has_the_results_of_its_levels_run_alone_and_pays_less(
    tiny: TinyStudy, alone: pd.DataFrame
) -> None:
    tiny.run()

    results = check_against(alone, tiny)
    assert len(set(results["trunk"]) - {""}) == 1
    steps = results["steps"].to_numpy()
    step = results["train_flops"].iloc[0] / steps[0]
    milestones = steps - (0.2 * steps).round()
    paid = (steps - [0, *milestones[:-1]]) * step
    assert results["paid_flops"].to_list() == paid.tolist()
    book = tiny.settled()
    assert book == {"spent": sum(paid), "wasted": 0}
    assert metered(tiny) == sum(paid)

    cost = totals(by_level(tiny.table("plan"), tiny.table("spent"), pd.DataFrame()), pd.DataFrame())
    assert cost.planned_flops == cost.spent_flops == sum(paid)
    # The top level keeps its milestone, from which a further level would continue; the others are gone.
    kept = [milestone(tiny.folder / "trials" / trial) is not None for trial in results.index]
    assert kept == [False, False, True]

    # An interrupted trial remembers from which milestone it continued, also of a trial that is not declared.
    other = TinyStudy(tiny.place, tiny.pool, "other", levels=LEVELS, training=TRUNK)
    longest = max(other.plan.trials, key=lambda trial: trial.samples_seen)
    folder = other.study.trial_folder(longest.trial_id)
    folder.mkdir(parents=True)
    write_json(folder / "progress.json", progress(longest.samples_seen, shared_samples=32))
    assert longest in other.plan.trials, "it has no checkpoint, and starts again"
    (folder / f"checkpoint-{longest.steps:010d}-abc.pt").touch()
    assert other.plan.trials[-1].shared_samples == 32

    for declared, fewer in ((2, "5 GFLOP, 10 GFLOP"), (1, "10 GFLOP")):
        tiny.declare(levels=fewer, training=TRUNK)
        tiny.run()
        assert tiny.table("plan")["paid_flops"].iloc[-1] == paid[-1]
        assert len(tiny.table()) == declared
        assert tiny.settled() == book

    (tiny.folder / "spent.parquet").unlink()
    tiny.run()
    assert tiny.settled() == book


def test_an_evaluated_trunk_leaves_the_results_of_its_branches_as_they_are_and_costs_no_more(
    tiny: TinyStudy, alone: pd.DataFrame
) -> None:
    paid = {"spent": sum(trial.paid_flops for trial in tiny.plan.trials), "wasted": 0}
    evaluated = TinyStudy(tiny.place, tiny.pool, "evaluated", levels=LEVELS, training=TRUNK, more=EVALUATED)
    longest = evaluated.plan.trials[-2]
    evaluated.run(f"--only {longest.trial_id}")
    # All milestones stay, since each branch may still begin at its own.
    kept = [
        milestone(evaluated.folder / "trials" / trial) is not None for trial in evaluated.table()["trial"]
    ]
    assert kept == [True] * 3
    evaluated.run()

    results = evaluated.table()
    of_trunk = results[PHASE] == TRUNK_PHASE
    pd.testing.assert_frame_equal(evaluated.table("plan")[["trial", PHASE]], results[["trial", PHASE]])
    branches = results[~of_trunk].set_index("trial")
    assert branches[PHASE].eq("").all()
    pd.testing.assert_frame_equal(
        branches[alone.columns].drop(columns="paid_flops"),
        alone.loc[branches.index].drop(columns="paid_flops"),
    )
    assert evaluated.settled() == paid
    trunks = results[of_trunk].set_index("level_flops")
    assert trunks["steps"].to_list() == [planned.milestone_step for planned in tiny.plan.trials]
    assert len(set(results["trunk"])) == 1
    averages = trunks[f"{evaluated.study.declaration.metric}{AVERAGE}"]
    assert averages.between(0, 1).all()
    # As without trials of the trunk, only the top level keeps its milestone.
    kept = [milestone(evaluated.folder / "trials" / trial) is not None for trial in results["trial"]]
    assert kept == [False] * 4 + [True, False]


def test_a_milestone_goes_when_a_longer_trial_ended_before_the_next_one(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as kept:
        kept.setattr(books, "drop_milestone", lambda _folder: None)
        tiny.run()
    shortest, between, longest = (tiny.folder / "trials" / trial for trial in tiny.table()["trial"])
    drop_milestone(between)  # by the longest one, which ended first

    tiny.run()

    assert milestone(shortest) is None
    assert milestone(longest) is not None


def test_levels_added_above_cost_what_they_add_and_a_lost_milestone_is_waste(
    tiny: TinyStudy, alone: pd.DataFrame
) -> None:
    first, second, _ = LEVELS.split(", ")
    tiny.declare(levels=f"{first}, {second}", training=TRUNK)
    tiny.run()
    before = tiny.settled()
    (lost,) = filter(None, map(milestone, tiny.trials()))
    steps = int(lost.name.split("-")[1])
    lost.unlink()

    tiny.declare(levels=LEVELS, training=TRUNK)
    tiny.run()

    results = check_against(alone, tiny)
    step = results["train_flops"].iloc[0] / results["steps"].iloc[0]
    paid = results["paid_flops"].iloc[-1]
    assert paid == (results["steps"].iloc[-1] - steps) * step
    book = tiny.settled()
    assert book == {"spent": before["spent"] + paid, "wasted": steps * step}
    assert metered(tiny) == sum(book.values())


def test_a_level_between_two_that_have_ended_costs_all_of_its_steps_and_wastes_none(
    tiny: TinyStudy, alone: pd.DataFrame
) -> None:
    first, _, last = LEVELS.split(", ")
    tiny.declare(levels=f"{first}, {last}", training=TRUNK)
    tiny.run()
    before = tiny.settled()
    ((_, missing),) = alone[alone["level_flops"] == 7e9].iterrows()
    needed = before["spent"] + int(missing["train_flops"])

    tiny.declare(levels=LEVELS, training=TRUNK, study_flops=f"{needed - 1}")
    for options in ("", "--dry-run"):
        assert f"needs {format_flops(needed)}:" in tiny.run(options, code=2)
    tiny.declare(levels=LEVELS, training=TRUNK, study_flops=f"{needed}")
    said = tiny.says("plan")
    assert "1 trial of trunks" in said
    assert f"{format_flops(needed)} of training" in said
    (tiny.folder / "spent.parquet").unlink()
    tiny.run()
    check_against(alone, tiny)
    assert tiny.settled() == {"spent": needed, "wasted": 0}
    assert metered(tiny) == needed

    # The longest trial continued from the shortest one, also if that is no longer declared.
    paid = tiny.table()["paid_flops"].iloc[-1]
    tiny.declare(levels=LEVELS.removeprefix(f"{first}, "), training=TRUNK)
    tiny.run()
    assert tiny.table("plan")["paid_flops"].iloc[-1] == paid


@pytest.mark.parametrize("more", ["", EVALUATED], ids=["plain", "evaluated"])
def test_trials_of_a_trunk_that_diverges_each_pay_what_they_train(tiny: TinyStudy, more: str) -> None:
    tiny.declare(levels=LEVELS, training=f"{TRUNK}  weight_decay: 1000\n", lr_peak="10", more=more)

    tiny.run()

    results = tiny.table()
    assert results["status"].tolist() == ["diverged"] * (6 if more else 3)
    assert len({*results["steps"]}) == 1, "the trunk is the same"
    assert (results["paid_flops"] == results["train_flops"]).all()
    assert tiny.settled() == {"spent": results["paid_flops"].sum(), "wasted": 0}
    assert sum(tiny.settled().values()) == metered(tiny)
    assert " finished, 0 to run" in tiny.says("run --dry-run")


class ShortestEndsEarly(MadeUpTraining):
    """Training in which the shortest trial diverges or fails before its milestone, and others are equal."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def row(self, trial: Trial) -> dict[str, Any]:
        row = super().row(trial) | {"held-out/top1": 0.5}
        if trial.cell.level_flops != 5e9:
            return row
        if self.fails:
            raise ValueError("a bug")
        del row["held-out/top1"], row["held-out/count"]
        samples = (trial.milestone_step - 1) * trial.batch_size
        return row | {
            "steps": trial.milestone_step - 1, "samples_seen": samples, "status": "diverged",
            "train_flops": float(trial.train_flops_after(samples)),
            "paid_flops": trial.paid_flops_after(samples),
        }  # fmt: skip


@pytest.mark.parametrize("design", ["full", "adaptive"])
@pytest.mark.parametrize("more", ["", EVALUATED])
@pytest.mark.parametrize("ends", ["diverged", "failed"])
def test_a_short_trial_that_ends_early_decides_nothing_about_longer_ones(
    tiny: TinyStudy, monkeypatch: pytest.MonkeyPatch, design: str, more: str, ends: str
) -> None:
    monkeypatch.setattr(run_context, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", ShortestEndsEarly(fails=ends == "failed"))
    tiny.declare(levels=LEVELS, training=TRUNK, seeds="0, 1", more=f"design: {design}\n{more}")
    code = int(ends == "failed")

    tiny.run(code=code)

    results = tiny.table().set_index("trial")
    assert len(results) == (12 if more else 6) or design == "adaptive"
    by_level = [results[results["level_flops"] == level] for level in (5e9, 7e9, 10e9)]
    assert [{*level["status"]} for level in by_level] == [{ends}, {"finished"}, {"finished"}]
    _, second, third = by_level
    alone = second[second[PHASE] == TRUNK_PHASE] if more else second
    assert (alone["paid_flops"] == alone["train_flops"]).all()
    assert (third["paid_flops"] < third["train_flops"]).all()
    assert tiny.booked("spent") == results["paid_flops"].sum()
    assert not tiny.reserved()
    planned = tiny.table("plan").set_index("trial")["paid_flops"]
    assert all((planned[level.index] == level["paid_flops"]).all() for level in (second, third))

    # A later run has the same prices; another attempt at the short trial changes none of them.
    assert " 0 to run\n" in tiny.says("run --dry-run")
    tiny.run("--retry-failed", code=code)
    assert tiny.table("plan").set_index("trial")["paid_flops"].equals(planned)
