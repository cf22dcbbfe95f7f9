"""The course of an adaptive design, read from the events of a study's runs."""

from typing import Any

import pandas as pd

CHOSEN, COURSE = "trial-chosen", "design"
"""Events: a chosen trial with its reason; the answers so far and, at the end, why the design stopped."""


def last_answers(events: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the answers of the last decision, as fields of ``questions.Answer``; empty without one."""
    if events.empty or not (events["event"] == COURSE).any():
        return []
    found: list[dict[str, Any]] = events.loc[events["event"] == COURSE, "answers"].iloc[-1]
    return found


def by_design(best: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
    """Return the best configurations with verdicts that count configurations without runs.

    The table compares measured cells. A configuration that the design did not run at a budget may still be
    the best there, so a leader is only clear if the design, whose draws hold all configurations, calls it
    so.
    """
    answers = {(one["regime"], one["flops"]): one for one in last_answers(events) if one["kind"] == "best"}
    verdicts, reasons = [], []
    for row in best.to_dict("records"):
        one = answers.get((row["regime"], row["flops"]))
        doubt = one is not None and row["verdict"] == "clear" and one["verdict"] != "clear"
        verdicts.append("undecided" if doubt else row["verdict"])
        said = "" if one is None or not doubt else (
            f"; with configurations that were not run, {one['leader']} is best with probability "
            f"{one['probability']:.0%}"
        )  # fmt: skip
        reasons.append(f"{row['reason']}{said}")
    return best.assign(verdict=verdicts, reason=reasons)
