"""Data of the figures of a study's course: training curves, plan, spending, choices of a design."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import CellDraws
from analysis.cells.table import CONFIGURATION, Trials, budgets, records
from analysis.charts.curve_figures import slice_along
from analysis.charts.figure_data import (
    JOINED,
    FigureData,
    Missing,
    architecture_families,
    architecture_order,
    mark_frame,
    star,
)
from analysis.design.course import decisions, each_answer
from analysis.error_unit import LOSS, is_loss
from analysis.labels import budget_text, capital, fixed_factors_text, level_text, metric_text
from budgets.quantity import format_flops, format_share, plural

_BINS = 40
_PANELS = 4
_MOST_ROWS = 40


def training_loss(
    trials: Trials, draws: CellDraws, curves: pd.DataFrame, far: Sequence[str] = ()
) -> FigureData | Missing:
    """Return the figure of training loss over compute, by architecture, for the lowest seed of each cell.

    The trials ``far``, which stand out, are drawn too, each as a series of its own.
    """
    held, _ = slice_along(draws, "architecture")
    first = _lowest_seeds(trials, held)
    first = first[first["budget"].isin(sorted(first["budget"].unique())[-_PANELS:])]
    outside = trials.frame["trial"].isin(far) & ~trials.frame["trial"].isin(first["trial"])
    first = pd.concat([first, trials.frame[outside]])
    rows: list[dict[str, Any]] = []
    for trial in records(first.sort_values(["budget", "architecture"], kind="stable")):
        curve = curves[curves["trial"] == trial["trial"]] if len(curves) else curves
        name = f"{trial['trial']} stands out" if trial["trial"] in far else str(trial["architecture"])
        fixed = {
            "panel": budget_text(str(trial["regime"]), float(trial["budget"])), "mark": "line",
            "series": name, "line": trial["trial"],
        }  # fmt: skip
        rows += [fixed | {"x": x, "y": y} for x, y in (_thin(curve) if len(curve) else ())]
    return _lines(
        rows, name="training-loss", title="Training loss", y_label="training loss (nats)",
        trials=first, text=LOSS.text,
        caption=f"Training loss, the lowest seed of each cell ({fixed_factors_text(held)}), as means "
        f"over at most {_BINS} bins of log compute.",
    )  # fmt: skip


def midway_errors(
    trials: Trials, draws: CellDraws, midway: pd.DataFrame, results: pd.DataFrame
) -> FigureData | Missing:
    """Return the figure of error at shares of a trial, by architecture, for the lowest seed of each cell."""
    held, _ = slice_along(draws, "architecture")
    first, unit = _lowest_seeds(trials, held), draws.error_unit
    ends = results[results["trial"].isin(midway["trial"])] if len(results) else results
    points = pd.concat([midway, ends], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for trial in records(first.sort_values(["architecture", "budget"], kind="stable")):
        curve = points[points["trial"] == trial["trial"]].sort_values("train_flops")
        values = curve[trials.metric].to_numpy(np.float64)
        errors = unit.factor * (values if is_loss(trials.metric) else 1 - values)
        fixed = {"mark": "line", "series": str(trial["architecture"]), "line": trial["trial"]}
        places = curve["train_flops"].to_numpy(np.float64)
        rows += [fixed | {"x": x, "y": y} for x, y in zip(places, errors, strict=True) if np.isfinite(y)]
    return _lines(
        rows, name="midway", title=f"{unit.title} during training", y_label=unit.heading_of(unit.word),
        trials=first, text=lambda shown: unit.text(shown / unit.factor),
        caption=f"{capital(metric_text(trials.metric))} during training, the lowest seed of each cell "
        f"({fixed_factors_text(held)}); before the end the learning rate is still high, so only "
        "the ends of lines are results.",
    )  # fmt: skip


def _lines(  # noqa: PLR0913 (what is drawn, and its words)
    rows: Sequence[dict[str, Any]],
    *,
    name: str,
    title: str,
    y_label: str,
    caption: str,
    trials: pd.DataFrame,
    text: Callable[[float], str],
) -> FigureData | Missing:
    """Return the figure of lines over the compute spent, by the architectures of some trials."""
    if not rows:
        return Missing(title=title, reason="no trial of the compared cells was measured during training")
    ends = {row["line"]: row for row in rows}
    lowest = min(ends.values(), key=lambda row: float(row["y"]))
    where = ", ".join(filter(None, [lowest["series"], lowest.get("panel")]))
    return FigureData(
        name=name, title=title, x_label="training compute spent (FLOPs)", y_label=y_label,
        frame=mark_frame(rows), caption=caption, by="architecture",
        order=architecture_order(trials), families=architecture_families(trials),
        finding=f"Lowest at its end: {where}, {text(lowest['y'])}.",
    )  # fmt: skip


def _lowest_seeds(trials: Trials, held: Mapping[str, Any]) -> pd.DataFrame:
    """Return the trial of the lowest seed of each architecture and budget, with the other parts fixed."""
    rows = trials.frame
    for name, value in held.items():
        rows = rows[rows[name] == value]
    return rows.sort_values("seed", kind="stable").drop_duplicates(["architecture", "budget"])


def _thin(curve: pd.DataFrame) -> list[tuple[float, float]]:
    """Return means of compute and loss over bins of equal width in log compute."""
    logged = curve[(curve["train_flops"] > 0) & np.isfinite(curve["loss"])]
    if logged.empty:
        return []
    points = pd.DataFrame({"x": np.log(logged["train_flops"]), "y": logged["loss"]})
    means = points.groupby(pd.cut(points["x"], _BINS, labels=False)).mean()
    return list(zip(np.exp(means["x"]).tolist(), means["y"].tolist(), strict=True))


def plan_grid(plan: pd.DataFrame, left_out: pd.DataFrame, results: pd.DataFrame) -> FigureData | Missing:
    """Return the figure of all planned cells, by configuration and level, with their finished trials.

    A plan with more configurations than fit on a page is shown by architecture and strategy.
    """
    title = "The plan"
    if plan.empty:
        return Missing(title=title, reason="there is no plan")
    status = {} if results.empty else dict(zip(results["trial"], results["status"], strict=True))
    cells = plan.assign(state=[status.get(trial, "waiting") for trial in plan["trial"]], budget=budgets(plan))
    parts = list(CONFIGURATION)
    if len(cells.drop_duplicates(parts)) > _MOST_ROWS:
        parts = ["architecture", "strategy"]
    cells = pd.concat([cells, left_out.assign(state="left out")] if len(left_out) else [cells])
    cells = cells.assign(
        level=[level_text(row) for row in records(cells)],
        order=cells["level_flops"].fillna(cells["samples_seen"]),
        row=[fixed_factors_text({part: row[part] for part in parts}) for row in records(cells)],
    )
    cells = cells.sort_values(["regime", "order"], kind="stable")
    levels = {str(name): float(place) for place, name in enumerate(dict.fromkeys(cells["level"]))}
    ordered = cells.sort_values([*reversed(parts)], kind="stable")["row"]
    names = {str(name): float(place) for place, name in enumerate(dict.fromkeys(ordered))}
    rows = [
        _cell(group, str(row), str(level)) | {"x": levels[str(level)], "y": names[str(row)]}
        for (row, level), group in cells.groupby(["row", "level"], sort=False)
    ]
    finished, without, out = _states(cells)
    done = f"{plural(finished, 'trial')} of {len(plan):,} finished"
    done += f", {without} without a result" if without else ""
    done += f"; {plural(out, 'cell')} left out of the plan" if out else ""
    return FigureData(
        name="plan",
        title=title,
        kind="grid",
        x_label="budget of one trial",
        y_label="",
        frame=mark_frame(rows),
        finding=f"{done}.",
        caption="Finished of planned trials by configuration and budget.",
    )


def _states(cells: pd.DataFrame) -> tuple[int, int, int]:
    """Return how many finished, ended without a result, and were left out."""
    states = cells["state"].value_counts()
    without = states.get("failed", 0) + states.get("diverged", 0)
    return int(states.get("finished", 0)), int(without), int(states.get("left out", 0))


def _cell(group: pd.DataFrame, row: str, level: str) -> dict[str, Any]:
    finished, without, out = _states(group)
    planned, state = len(group) - out, "left out"
    if planned:
        state = "finished" if finished == planned else "partly finished" if finished else "not run"
        state = "without a result" if without and not finished else state
    text = f"{finished} of {planned} finished" if planned else "left out of the plan"
    text += f", {without} without a result" if without else ""
    return {
        "mark": "cell", "series": state, "label": row, "line": level, "low": float(finished),
        "high": float(planned), "text": f"{row}, {level}: {text}",
    }  # fmt: skip


def design_course(events: pd.DataFrame) -> tuple[FigureData, ...]:
    """Return the figure of the probabilities that configurations are best, over the FLOPs spent.

    There is a panel for each question. A configuration that led at some time has a line. A cross marks where
    configurations were dropped. Without decisions of a design there is no figure.
    """
    made = decisions(events)
    if not made:
        return ()
    leaders = {str(one["leader"]) for decision in made for one in decision["answers"]}
    grid = float(made[-1]["grid_flops"])
    rows: list[dict[str, Any]] = []
    gone = Counter[str]()
    for decision, one, new in each_answer(made):
        spent = 100 * float(decision["spent_flops"]) / grid
        panel = f"{one['kind']} at {format_flops(one['flops'])}"
        where = f"{panel}, {format_flops(decision['spent_flops'])} spent"
        for name, chance in zip(one["tied"], one["chances"], strict=True):
            mark = {
                "panel": panel, "series": name, "mark": "point" if name in leaders else "other",
                "line": JOINED, "x": spent, "y": 100 * chance,
                "text": f"{name}: best with probability {format_share(chance)}; {where}",
            }  # fmt: skip
            rows.append(mark)
            if decision is made[-1] and name == one["leader"]:
                rows.append(mark | {"mark": star(one["verdict"])})
        gone[panel] += len(new)
        if new:
            rows.append({
                "panel": panel, "mark": "dropped", "x": spent, "y": 0.0, "label": str(len(new)),
                "text": f"dropped: {'; '.join(new)}; {where}",
            })  # fmt: skip
    stop = str(made[-1]["stop"])
    ended = f" The design stopped: {stop}." if stop else ""
    dropped = "; ".join(f"{panel}: {count}" for panel, count in gone.items())
    return (
        FigureData(
            name="design",
            title="Course of the adaptive design",
            x_label="FLOPs spent (% of the grid's)",
            y_label="probability of being the best (%)",
            frame=mark_frame(rows),
            finding=f"{plural(len(made), 'decision')}; configurations dropped: {dropped}.{ended}",
            caption="Probability that a configuration is the best, by joint draws of all, while it is among "
            "the likeliest; lines: those that led at some time; crosses: some were dropped.",
            x_scale="linear",
        ),
    )
