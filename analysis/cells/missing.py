"""Planned trials without a result, for reports of unfinished studies."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.cells.table import CELL, CONFIGURATION, Trials, budgets

WAITING = "not run yet"


def with_budgets(plan: pd.DataFrame, trials: Trials) -> pd.DataFrame:
    """Return the plan with columns ``budget``, equal to that of finished trials, and ``ended``.

    Args:
        plan: One row per planned trial; may be empty.
        trials: Trials of the study; finished and diverged ones have ended.
    """
    if plan.empty:
        return plan
    budget = budgets(plan)
    # The budget of trials that were declared alike is that of the largest one, which an unfinished study may
    # lack. So the measured budget replaces the planned one in all trials that share the latter.
    measured = trials.frame.set_index("trial")["budget"].reindex(plan["trial"]).to_numpy(np.float64)
    known = np.isfinite(measured)
    same = dict(zip(budget[known], measured[known], strict=True))
    diverged = trials.excluded["trial"][trials.excluded["status"] == "diverged"]
    ended = {*trials.frame["trial"], *diverged}
    return plan.assign(
        budget=[same.get(value, value) for value in budget], ended=[trial in ended for trial in plan["trial"]]
    )


def as_planned(results: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Return results in which diverged trials have the samples and FLOPs of their plan, not those until then.

    Outside fixed compute these are their budget, which joins them with the other runs of their cell.
    """
    if results.empty or plan.empty:
        return results
    names = ["samples_seen", "train_flops"]
    early = (results["status"] == "diverged").to_numpy(bool)
    planned = plan.set_index("trial")[names].reindex(results["trial"])
    return results.assign(
        **{
            name: np.where(early & planned[name].notna(), planned[name], results[name]).astype(np.float64)
            for name in names
        }
    )


def lost_cells(trials: Trials) -> pd.DataFrame:
    """Return the cells all of whose runs diverged or gave no number.

    Returns:
        The columns of ``CELL``, ``train_flops`` of a trial and ``runs``, the number of those lost.
    """
    if trials.lost.empty:
        return pd.DataFrame(columns=[*CELL, "train_flops", "runs"])
    cells = trials.lost.groupby([*CELL], as_index=False).agg(
        train_flops=("train_flops", "max"), runs=("trial", "size")
    )
    with_result = trials.frame[[*CELL]].drop_duplicates()
    found = cells.merge(with_result, how="left", on=[*CELL], indicator="found")
    return found[found["found"] == "left_only"].drop(columns="found").reset_index(drop=True)


def missing(plan: pd.DataFrame, trials: Trials, begun: Mapping[str, str]) -> pd.DataFrame:
    """Return the planned trials without a result, by cell.

    Args:
        plan: Plan from ``with_budgets``.
        trials: Trials of the study.
        begun: Trial → its progress in words, for trials that were begun and have no result.

    Returns:
        One row per cell and reason, in the order of the plan: ``regime``, ``budget``, the columns of
        ``CONFIGURATION``, ``seeds`` (texts joined by ", "), ``trials`` and ``reason``.
    """
    columns = ["regime", "budget", *CONFIGURATION, "seeds", "trials", "reason"]
    if plan.empty:
        return pd.DataFrame(columns=columns)
    reasons = dict(begun) | dict(zip(trials.excluded["trial"], trials.excluded["reason"], strict=True))
    lacking = plan[~plan["trial"].isin(trials.frame["trial"])]
    worded = lacking.assign(
        reason=[reasons.get(trial, WAITING) for trial in lacking["trial"]],
        seeds=lacking["seed"].map("{:.0f}".format),
    )
    cell = ["regime", "budget", *CONFIGURATION, "reason"]
    grouped = worded.groupby(cell, sort=False)["seeds"].agg([", ".join, "size"]).reset_index()
    return grouped.rename(columns={"join": "seeds", "size": "trials"})[columns]
