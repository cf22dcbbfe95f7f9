"""The ids of trials that were run are those of today's plan."""

import pandas as pd
import pytest

from study.declare.load import load_declaration
from study.state.plan_study import plan_study
from study.state.study import find_study
from tests.root import ROOT

RESULTS = ROOT / "results"


@pytest.mark.parametrize(("name", "done"), [("small", 81), ("small-full", 156)])
def test_every_result_of_the_shipped_studies_is_a_trial_of_its_plan(name: str, done: int) -> None:
    trials = pd.read_parquet(RESULTS / name / "results.parquet")["trial"]
    study = find_study(load_declaration(RESULTS / name / "study.yaml"), results=None, pools=None)

    planned = {trial.trial_id for trial in plan_study(study).trials}

    assert len(planned) == 156
    assert len(trials) == done
    assert set(trials) <= planned
