"""Data of the figure of all trials with their Pareto frontier over compute."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from analysis.answers.envelope import Envelope
from analysis.cells.pareto import costs
from analysis.cells.table import Trials, records
from analysis.charts.figure_data import FRONTIER, FigureData, Missing, error_label, mark_frame, said_once
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, configuration_text, metric_text, sort_key
from budgets.quantity import plural


def pareto(trials: Trials, envelopes: Sequence[Envelope]) -> FigureData | Missing:
    """Return the figure of every trial's error against compute, with the frontier of the cells' means.

    If there are several regimes, the one with the most trials is drawn. Under fixed compute a trial lies at
    its level, not at the whole batches below it.

    Args:
        trials: Finished trials.
        envelopes: Envelope of each regime, with its frontier.
    """
    title = "All trials and the Pareto frontier"
    if not envelopes:
        return Missing(title=title, reason="no trial has finished")
    unit = ErrorUnit.of(trials.metric)
    counts = trials.frame["regime"].value_counts()
    one = max(envelopes, key=lambda envelope: int(counts.get(envelope.regime, 0)))
    mine = trials.frame[trials.frame["regime"] == one.regime]
    names = sorted(mine["architecture"].unique(), key=lambda name: sort_key("architecture", name))
    rows: list[dict[str, Any]] = []
    for name in names:
        here = mine[mine["architecture"] == name]
        rows += [
            {
                "mark": "point", "series": str(name), "x": x, "y": unit.factor * row["error"],
                "text": f"{configuration_text(row)}, {budget_text(row['regime'], row['budget'])}, seed "
                f"{int(row['seed'])}: {unit.text(row['error'])}",
            }
            for row, x in zip(records(here), costs(here).tolist(), strict=True)
        ]  # fmt: skip
    cells = one.pareto
    steps = list(zip(costs(cells).tolist(), (unit.factor * cells["error"]).tolist(), strict=True))
    stairs = [steps[0], *(corner for (_, y), (x, low) in pairwise(steps) for corner in ((x, y), (x, low)))]
    stairs.append((max(row["x"] for row in rows), steps[-1][1]))
    rows += [{"mark": "line", "series": FRONTIER, "line": FRONTIER, "x": x, "y": y} for x, y in stairs]
    best = "; ".join(configuration_text(row) for row in records(cells))
    return FigureData(
        name="pareto",
        title=title,
        x_label="training compute of one trial (FLOPs)",
        y_label=error_label(trials.metric),
        frame=mark_frame(rows),
        caption=said_once(
            f"{metric_text(trials.metric)} of {plural(len(mine), 'finished trial')}, by architecture. "
            "Stairs: the lowest mean of any configuration at no more compute"
        ),
        alt=f"{title}: {plural(len(mine), 'trial')}; on the frontier: {best}.",
    )
