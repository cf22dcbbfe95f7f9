"""The tables of an adaptive design: its course, and its choices with their reasons."""

from collections.abc import Iterator

import pandas as pd

from analysis.cells.table import records
from analysis.design.course import CHOSEN, decisions, each_answer
from analysis.error_unit import PERCENT
from analysis.report.tables.tables import Table
from budgets.quantity import format_flops


def design_tables(events: pd.DataFrame) -> Iterator[Table]:
    """Yield the course of a design and its choices; nothing for a study without one."""
    if events.empty or not (events["event"] == CHOSEN).any():
        return
    rows = [
        {
            "Spent": format_flops(decision["spent_flops"]),
            "Asked": f"{one['kind']} at {format_flops(one['flops'])}",
            "Leader": one["leader"],
            "Error (%)": f"{PERCENT.number(one['error'])} {PERCENT.interval(one['low'], one['high'])}",
            "P(best)": f"{one['probability']:.2f}",
            "Verdict": one["verdict"],
            "Answered": "yes" if one["settled"] else "no",
            "Dropped now": "; ".join(new) or "–",
        }
        for decision, one, new in each_answer(decisions(events))
    ]
    yield Table(
        name="design",
        title="Course of the adaptive design",
        note="Answers at each decision, from joint draws of the errors of all configurations, run or not. "
        "Dropped: best within the indifference in fewer than one of 200 draws.",
        frame=pd.DataFrame(rows, columns=[
            "Spent", "Asked", "Leader", "Error (%)", "P(best)", "Verdict", "Answered", "Dropped now"
        ]),
    )  # fmt: skip
    chosen = records(events[events["event"] == CHOSEN])
    yield Table(
        name="choices",
        title="Choices of the adaptive design",
        note="Each chosen trial, what it cost the study, and why it was chosen.",
        frame=pd.DataFrame([
            {"Trial": row["trial"], "Cost": format_flops(row["cost_flops"], digits=3), "Reason":
            row["reason"]} for row in chosen
        ]),
    )  # fmt: skip
