"""Learning rates that move, from the declaration to the report, with made-up training."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from runners.trials.trial_files import Outcome
from runners.trials.trial_job import TrialJob
from study.run import execution, site
from tests.study.conftest import Run, write_declaration
from tests.study.run.test_adaptive import MadeUpTraining, OneSlot


class BestRateFalls(MadeUpTraining):
    """Training whose best peak learning rate falls with the root of the compute."""

    def __call__(self, job: TrialJob) -> Outcome:
        found = super().__call__(job)
        off = math.log(job.trial.lr_peak / (2e-3 * (job.trial.train_flops / 5e9) ** -0.5))
        row = dict(found.row) | {
            f"{name}/top1": 0.6 - 0.1 * off**2 for name in ("held-out", "validation")
        } | {"validation/count": 2000.0}  # fmt: skip
        (job.folder / "result.json").write_text(
            json.dumps({"row": row, "timing": found.timing}), encoding="utf-8"
        )
        return Outcome(row=row, timing=found.timing)


@pytest.mark.parametrize("carried", [True, False])
def test_rates_are_tuned_carried_on_checked_and_reported(
    pool: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, *, carried: bool
) -> None:
    monkeypatch.setattr(site, "open_backend", lambda *_, **__: OneSlot())
    monkeypatch.setattr(execution, "run_trial", BestRateFalls())
    path = write_declaration(tmp_path, pool, levels="5 GFLOP, 10 GFLOP, 20 GFLOP", seeds="0, 1")
    with path.open("a", encoding="utf-8") as file:
        places = "levels: [5 GFLOP, 10 GFLOP], " if carried else ""
        file.write("limits: {min_steps: 2}\n")
        file.write(f"tuning: {{share: 20%, fields: {{lr_peak: [1e-3, 2e-3, 4e-3]}}, {places}check: true}}\n")

    run(f"run {path} --results {tmp_path} --backend local")

    folder = tmp_path / "tiny"
    results = pd.read_parquet(folder / "results.parquet").groupby("level_flops")["lr_peak"].first()
    tuned = json.loads((folder / "tuning.json").read_text(encoding="utf-8"))
    (check,) = tuned["checks"]
    assert check["winner"]["cell"]["level_flops"] == 20e9
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

    if carried:
        run(f"report {path} --results {tmp_path}")
        tables = folder / "report" / "tables"
        assert pd.read_csv(tables / "checked-rates.csv")["Verdict"].tolist() == ["still the best"]
        assert pd.read_csv(tables / "carried-rates.csv")["Tuned here"].tolist() == ["yes", "yes", "no"]
