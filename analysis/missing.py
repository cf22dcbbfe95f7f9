"""What was planned and has given no result, so that a report of a half-finished study says what it lacks."""

import numpy as np
import pandas as pd

from analysis.table import CONFIGURATION, Trials

WAITING = "not run yet"


def missing(plan: pd.DataFrame, trials: Trials) -> pd.DataFrame:
    """The planned trials without a result, by cell.

    Args:
        plan: One row a planned trial; may be empty.
        trials: What has finished, and what was set aside with its reason.

    Returns:
        One row a cell and reason, in the order of the plan: ``regime``, ``budget``, the columns of
        ``CONFIGURATION``, ``seeds`` (texts joined by ", "), ``trials`` and ``reason``.
    """
    columns = ["regime", "budget", *CONFIGURATION, "seeds", "trials", "reason"]
    if plan.empty:
        return pd.DataFrame(columns=columns)
    lacking = plan[~plan["trial"].isin(trials.frame["trial"])]
    reasons = dict(zip(trials.excluded["trial"], trials.excluded["reason"], strict=True))
    fixed = lacking["regime"] == "fixed-compute"
    told = lacking.assign(
        budget=np.where(fixed, lacking["level_flops"], lacking["samples_seen"]).astype(np.float64),
        reason=[reasons.get(trial, WAITING) for trial in lacking["trial"]],
        seeds=lacking["seed"].map("{:.0f}".format),
    )
    cell = ["regime", "budget", *CONFIGURATION, "reason"]
    grouped = told.groupby(cell, sort=False)["seeds"].agg([", ".join, "size"]).reset_index()
    return grouped.rename(columns={"join": "seeds", "size": "trials"})[columns]
