"""Files of a study's tuning: all results in ``tuning.parquet``, the winners in ``tuning.json``."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.cells.study_frames import TUNED_COLUMN
from budgets.planning.tuning_plan import TuningPlan
from budgets.planning.winner import Score
from budgets.quantity import finite_or_none
from runners.results import RESULT_COLUMNS, to_frame
from runners.store.files import read_sealed


def tried_table(plan: TuningPlan, rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the result rows of a tuning's trials, given by id, in the plan's order.

    The columns are those of the results and one ``tuned_<field>`` for each tuned field.
    """
    done = [trial.trial_id for trial in plan.ready if trial.trial_id in rows]
    return with_values(to_frame([rows[trial] for trial in done], RESULT_COLUMNS), plan.values)


def with_values(trials: pd.DataFrame, tried: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return a table of tuning trials with a column ``tuned_<field>`` for each field of ``tried``, by id."""
    rows = [tried[trial] for trial in trials["trial"]]
    fields = next(iter(tried.values()), {})
    return trials.assign(
        **{f"{TUNED_COLUMN}{field}": [float(row[field]) for row in rows] for field in fields}
    )


def values_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the tuned fields of a row of such a table; empty for any other row."""
    return {
        name.removeprefix(TUNED_COLUMN): value
        for name, value in row.items()
        if name.startswith(TUNED_COLUMN) and not math.isnan(value)
    }


def tuning_facts(plan: TuningPlan) -> dict[str, Any]:
    """Return the winners of a tuning, and what it waits for, checks and reserves, as plain data, no NaN."""
    facts = asdict(
        replace(plan, trials=(), values={}, neighbours=()),
        dict_factory=lambda items: {name: finite_or_none(value) for name, value in items},
    )
    del facts["trials"], facts["values"], facts["unfinished"]
    return facts | {"neighbours": [trial.trial_id for trial in plan.neighbours]}


def read_winners(path: Path) -> dict[str, Any]:
    """Read a ``tuning.json`` of `tuning_facts`; empty if the file does not exist.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return read_sealed(path, "run the study again to rewrite it")
    except FileNotFoundError:
        return {}


def scores_of(tried: pd.DataFrame, metric: str) -> dict[str, Score]:
    """Return the selecting metric of each trial in a table of `tried_table`."""
    scores = {}
    for row in tried.to_dict("records"):
        if row["status"] == "diverged":
            scores[str(row["trial"])] = Score(value=None)
        elif not math.isnan(row.get(metric, math.nan)):
            error = float(row.get(f"{metric}_se", 0.0))
            scores[str(row["trial"])] = Score(value=float(row[metric]), standard_error=error)
    return scores
