"""What was planned and has given no result, so that a report of a half-finished study says what it lacks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.cells.table import CONFIGURATION, Trials, budgets

WAITING = "not run yet"


def with_budgets(plan: pd.DataFrame, trials: Trials) -> pd.DataFrame:
    """The plan with the ``budget`` of each trial as finished trials have it, and whether it has ``ended``.

    Args:
        plan: One row a planned trial; may be empty.
        trials: What has finished, and what diverged: that has ended, too.
    """
    if plan.empty:
        return plan
    budget = budgets(plan)
    # Of trials that were declared the same, the samples of the largest stand for all: a half-finished study
    # may lack it.
    measured = trials.frame.set_index("trial")["budget"].reindex(plan["trial"]).to_numpy(np.float64)
    known = np.isfinite(measured)
    same = dict(zip(budget[known], measured[known], strict=True))
    diverged = trials.excluded["trial"][trials.excluded["status"] == "diverged"]
    ended = {*trials.frame["trial"], *diverged}
    return plan.assign(
        budget=[same.get(value, value) for value in budget], ended=[trial in ended for trial in plan["trial"]]
    )


def missing(plan: pd.DataFrame, trials: Trials, begun: Mapping[str, str]) -> pd.DataFrame:
    """The planned trials without a result, by cell.

    Args:
        plan: What ``with_budgets`` gave.
        trials: What has finished, and what was set aside with its reason.
        begun: Trial → how far it is, of those that were begun and have no result.

    Returns:
        One row a cell and reason, in the order of the plan: ``regime``, ``budget``, the columns of
        ``CONFIGURATION``, ``seeds`` (texts joined by ", "), ``trials`` and ``reason``.
    """
    columns = ["regime", "budget", *CONFIGURATION, "seeds", "trials", "reason"]
    if plan.empty:
        return pd.DataFrame(columns=columns)
    reasons = dict(begun) | dict(zip(trials.excluded["trial"], trials.excluded["reason"], strict=True))
    lacking = plan[~plan["trial"].isin(trials.frame["trial"])]
    told = lacking.assign(
        reason=[reasons.get(trial, WAITING) for trial in lacking["trial"]],
        seeds=lacking["seed"].map("{:.0f}".format),
    )
    cell = ["regime", "budget", *CONFIGURATION, "reason"]
    grouped = told.groupby(cell, sort=False)["seeds"].agg([", ".join, "size"]).reset_index()
    return grouped.rename(columns={"join": "seeds", "size": "trials"})[columns]
