"""A second attempt of a trial beside the first: both rows are kept and paid, the newer one is used."""

import signal

import pandas as pd
import pytest

from analysis.answers.cost import phases
from runners.trials.meter import read_meter
from study.state.study import trial_job
from tests.holding import hold, let_go
from tests.study.tiny_study import TRUNK, TinyStudy
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what two attempts of a trial have in common."""
    return rows.drop(columns=["trial", "attempt", "paid_flops"]).reset_index(drop=True)


@pytest.mark.usefixtures("undrawn")
def test_a_second_attempt_is_continued_paid_once_kept_beside_the_first_and_used(tiny: TinyStudy) -> None:
    tiny.declare(levels="15 GFLOP")
    (first,) = (trial.trial_id for trial in tiny.plan.trials)
    assert f"trial {first}" in tiny.run(f"--again {first}", code=2)
    tiny.run()
    cost, before = tiny.booked("spent"), (tiny.tables(), tiny.book(), tiny.events())
    near = f"{first[:-1]}{'0' if first[-1] != '0' else '1'}"
    assert f"did you mean '{first}'" in tiny.run(f"--again {near}", code=2)
    tiny.declare(levels="15 GFLOP", study_flops="20 GFLOP")
    for options in ("", "--dry-run"):
        refused = tiny.run(f"--again {first} {options}", code=3)
        assert "--again would cost" in refused
        assert "more than the study budget of 20 GFLOP" in refused
    tiny.declare(levels="15 GFLOP")
    assert f"again: trial {first}-2" in tiny.run(f"--again {first[:6]} --dry-run")
    assert (tiny.tables(), tiny.book(), tiny.events()) == before

    kept = tiny.finished()
    hold(tiny.folder, step=100)
    with tiny.start("--backend", "local", "--again", first) as process:
        wait_for(tiny.at_work)
        assert f"running {first}-2 " in tiny.says("status")
        process.send_signal(signal.SIGKILL)
    assert tiny.reserved() == {f"{first}-2"}
    let_go(tiny.folder)
    assert "continues with 1 trial, 1 of them from its checkpoint" in tiny.says("status")
    assert ", seed 0, attempt 2: " in tiny.run("--dry-run")

    tiny.run(f"--again {first}")  # no third one
    rows, book = tiny.table(), tiny.settled()
    assert rows["trial"].tolist() == [first, f"{first}-2"]
    assert rows["attempt"].tolist() == [1, 2]
    assert measured(rows[:1]).equals(measured(rows[1:]))
    assert book["spent"] == 2 * cost
    assert {path: state for path, state in tiny.finished().items() if path in kept} == kept
    meters = [read_meter(path) for path in tiny.trials()]
    assert sum(meter.train_flops for meter in meters if meter is not None) == sum(book.values())

    of_runs = [name for _, phase in phases(pd.DataFrame(tiny.events())) for name in phase["event"]]
    assert "trial-again" in {*tiny.event_names()} - {*of_runs}
    finished = tiny.finished()
    tiny.run()
    assert (tiny.finished(), tiny.settled()) == (finished, book)
    said = tiny.says("report")
    assert said.startswith("1 of 1 trials finished")
    error = f"{100 * (1 - rows['held-out/top1'][0]):.1f}"
    attempts = f"attempt 1: error {error} %, attempt 2: error {error} % (used)"
    assert attempts in said
    page = (tiny.folder / "report" / "report.html").read_text()
    assert attempts in page.replace("\u00a0", " ")
    assert tiny.status()["levels"][0]["done"] == 2


def test_attempts_of_a_trunk_share_one_of_their_own(tiny: TinyStudy) -> None:
    tiny.declare(levels="5 GFLOP, 7 GFLOP, 10 GFLOP", training=TRUNK)
    tiny.run()
    short, middle, long = (trial.trial_id for trial in sorted(tiny.plan.trials, key=lambda t: t.samples_seen))
    before, paid = tiny.booked("spent"), tiny.table()["paid_flops"].to_list()

    said = tiny.run(f"--again {short}")
    assert "longer trials grew from earlier attempts" in said
    assert f"--again {middle} --again {long}\n" in said
    assert tiny.settled() == {"spent": before + paid[0], "wasted": 0}
    # The second attempts of the longer trials continue from that of the short one, and each other.
    assert "longer" not in tiny.run(f"--again {long} --again {middle}")

    rows = tiny.table()
    assert sorted(rows["paid_flops"]) == sorted(2 * paid)
    assert measured(rows[:3]).equals(measured(rows[3:].sort_values("train_flops")))
    assert tiny.settled() == {"spent": 2 * before, "wasted": 0}
    # No milestone of a shorter attempt is left: this one trains all of its steps.
    tiny.run(f"--again {middle}")
    assert tiny.settled() == {"spent": 2 * before + int(rows["train_flops"][1]), "wasted": 0}
    (tiny.folder / "spent.parquet").unlink()
    assert "spent.parquet is missing" in tiny.run()
    assert tiny.settled() == {"spent": 2 * before + int(rows["train_flops"][1]), "wasted": 0}
    # A level above continues from the newest attempt of the longest one.
    tiny.declare(levels="5 GFLOP, 7 GFLOP, 10 GFLOP, 14 GFLOP", training=TRUNK)
    trials = {trial.trial_id: trial for trial in tiny.plan.trials}
    trunk = [path.name for path in trial_job(tiny.study, tiny.plan.trials[3], trials).trunk]
    assert trunk == [f"{long}-2", long, f"{middle}-3", f"{middle}-2", middle, f"{short}-2", short]
