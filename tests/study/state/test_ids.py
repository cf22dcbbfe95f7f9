"""The ids of trials that were run are those of today's plan."""

from pathlib import Path

import pandas as pd

from study.declare.load import load_declaration
from study.state.planning.plan_study import plan_study
from study.state.study import find_study

SMALL = Path(__file__).resolve().parents[3] / "results" / "small"


def test_every_result_of_the_shipped_study_is_a_trial_of_its_plan() -> None:
    results = pd.read_parquet(SMALL / "results.parquet")
    study = find_study(load_declaration(SMALL / "study.yaml"), results=None, pools=None)

    planned = {trial.trial_id for trial in plan_study(study).trials}

    assert len(planned) == 156
    assert set(results["trial"]) == planned
