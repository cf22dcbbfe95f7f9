"""A view shows a run and never ends it."""

import io
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from rich.console import Console

from runners.results import read_table
from runners.trials.trial_files import Outcome
from study.run.run_study import run_study
from study.show.progress import Progress
from study.state.plan_study import plan_study
from study.state.study import Study
from tests.study.tiny_study import TinyStudy


class BrokenView:
    """A view of which each method raises, also at its start and end."""

    def __init__(self, error: type[BaseException] = ZeroDivisionError) -> None:
        self.error, self.calls = error, Counter[str]()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            self.calls[name] += 1
            raise self.error(f"in {name}")

        return fail

    def __enter__(self) -> None:
        raise self.error("at its start")

    def __exit__(self, *_: object) -> None:
        raise self.error("at its end")


@pytest.fixture
def two_trials(tiny: TinyStudy) -> Study:
    tiny.declare(seeds="0, 1")
    return tiny.study


def test_a_view_that_raises_at_each_call_costs_a_run_no_row(
    two_trials: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    view = BrokenView()
    left = run_study(two_trials, plan_study(two_trials), cast("Progress", view), local=True)

    assert not left.incomplete
    assert list(read_table(two_trials.folder / "results.parquet")["status"]) == ["finished", "finished"]
    assert {"begin", "tick", "finished", "detail"} <= view.calls.keys()
    assert view.calls["finished"] == 2, "it is called again, as its next call may work"
    said = [line for line in capsys.readouterr().err.splitlines() if "ZeroDivisionError" in line]
    assert len(said) == len(view.calls) + 2, "one line for each method, and for start and end"
    log = (two_trials.folder / "view-errors.txt").read_text()
    assert log.count("Traceback") == len(said)


def test_an_interruption_from_the_keyboard_during_a_drawing_ends_the_run(two_trials: Study) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_study(
            two_trials, plan_study(two_trials), cast("Progress", BrokenView(KeyboardInterrupt)), local=True
        )


def test_a_trial_that_resumed_at_its_last_step_leaves_the_forecast_to_the_others(two_trials: Study) -> None:
    plan = plan_study(two_trials)
    text = io.StringIO()
    resumed = Outcome(row={}, timing={"samples_per_s": 0.0})
    with Progress("held-out/top1", Console(file=text, width=160, force_terminal=True)) as progress:
        progress.begin(two_trials.folder, plan, spent_flops=0)
        progress.count(plan.trials[0], resumed, spent_flops=0)
        progress.tick((), slots=1)

    assert "0 of 2 trials, about" in text.getvalue()
