"""Data of the figures of a study's course: training curves, plan, spending, choices of a design."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.cost import by_level
from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws
from analysis.cells.table import CONFIGURATION, Trials, budgets, records
from analysis.charts.compute_figures import slice_along
from analysis.charts.figure_data import JOINED, FigureData, Missing, bar_place, mark_frame
from analysis.design.course import decisions, each_answer
from analysis.error_unit import is_loss
from analysis.labels import budget_text, capital, held_text, metric_text, regime_text
from budgets.quantity import format_flops, plural

_BINS = 40
_PANELS = 4
_MOST_ROWS = 40


def training_loss(
    trials: Trials, draws: CellDraws, curves: pd.DataFrame, far: Sequence[str] = ()
) -> FigureData | Missing:
    """Return the figure of training loss over compute, by architecture, for the lowest seed of each cell.

    The trials ``far``, which stand out, are drawn too, each as a series of its own.
    """
    title = "Training loss"
    held, positions = slice_along(draws, "architecture")
    if curves.empty or not len(positions):
        return Missing(title=title, reason="no training curves were recorded")
    first = _lowest_seeds(trials, held)
    first = first[first["budget"].isin(sorted(first["budget"].unique())[-_PANELS:])]
    outside = trials.frame["trial"].isin(far) & ~trials.frame["trial"].isin(first["trial"])
    first = pd.concat([first, trials.frame[outside]])
    rows: list[dict[str, Any]] = []
    lines = 0
    for trial in records(first.sort_values(["budget", "architecture"], kind="stable")):
        curve = curves[curves["trial"] == trial["trial"]]
        points = _thin(curve["train_flops"].to_numpy(np.float64), curve["loss"].to_numpy(np.float64))
        panel = budget_text(str(trial["regime"]), float(trial["budget"]))
        name = f"{trial['trial']} stands out" if trial["trial"] in far else str(trial["architecture"])
        fixed = {"panel": panel, "mark": "line", "series": name, "line": trial["trial"]}
        rows += [fixed | {"x": x, "y": y} for x, y in points]
        lines += bool(points)
    if not lines:
        return Missing(title=title, reason="no training curves were recorded")
    return FigureData(
        name="training-loss",
        title=title,
        x_label="training compute spent (FLOPs)",
        y_label="training loss (nats)",
        frame=mark_frame(rows),
        caption=(
            f"Training loss over the compute spent, one panel per level (at most the {_PANELS} largest), one "
            f"line per trial ({lines}; the lowest seed of each cell{', and what stands out' * bool(far)}). "
            f"Fixed: {held_text(held)}. Points are "
            f"means over at most {_BINS} bins of equal width in log compute."
        ),
        alt=f"{title} falling over compute for {lines} trials.",
    )


def midway_errors(
    trials: Trials, draws: CellDraws, midway: pd.DataFrame, results: pd.DataFrame
) -> FigureData | Missing:
    """Return the figure of error at shares of a trial, by architecture, for the lowest seed of each cell."""
    title = f"{draws.error_unit.title} during training"
    held, positions = slice_along(draws, "architecture")
    if trials.metric not in midway or not len(positions):
        reason = f"no trial was measured by {metric_text(trials.metric)} during training"
        return Missing(title=title, reason=reason)
    first, unit = _lowest_seeds(trials, held), draws.error_unit
    ends = results[results["trial"].isin(midway["trial"])]
    points = pd.concat([midway, ends], ignore_index=True)
    rows: list[dict[str, Any]] = []
    for trial in records(first.sort_values(["architecture", "budget"], kind="stable")):
        curve = points[points["trial"] == trial["trial"]].sort_values("train_flops")
        values = curve[trials.metric].to_numpy(np.float64)
        errors = unit.factor * (values if is_loss(trials.metric) else 1 - values)
        fixed = {"mark": "line", "series": str(trial["architecture"]), "line": trial["trial"]}
        places = curve["train_flops"].to_numpy(np.float64)
        rows += [fixed | {"x": x, "y": y} for x, y in zip(places, errors, strict=True) if np.isfinite(y)]
    lines = len({row["line"] for row in rows})
    if not lines:
        return Missing(title=title, reason="no trial of the compared cells was measured during training")
    return FigureData(
        name="midway",
        title=title,
        x_label="training compute spent (FLOPs)",
        y_label=unit.heading_of(unit.word),
        frame=mark_frame(rows),
        caption=(
            f"{capital(metric_text(trials.metric))} at shares of a trial and at its end, one line per trial "
            f"({lines}; the lowest seed of each cell). Fixed: {held_text(held)}. Before the end the "
            "learning rate is still high, so only the end points belong on a scaling curve."
        ),
        alt=f"{title} over compute for {lines} trials.",
    )


def _lowest_seeds(trials: Trials, held: Mapping[str, Any]) -> pd.DataFrame:
    """Return the trial of the lowest seed of each architecture and budget, with the other parts fixed."""
    kept = trials.frame
    for name, value in held.items():
        kept = kept[kept[name] == value]
    return kept.sort_values("seed", kind="stable").drop_duplicates(["architecture", "budget"])


def _thin(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Return means over bins of equal width in log x."""
    good = np.isfinite(x) & np.isfinite(y) & (x > 0)
    x, y = x[good], y[good]
    if not len(x):
        return []
    edges = np.geomspace(x.min(), x.max() * (1 + 1e-9), _BINS + 1)
    places = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, _BINS - 1)
    return [
        (float(np.exp(np.log(x[places == place]).mean())), float(y[places == place].mean()))
        for place in np.unique(places)
    ]


def spent_bars(plan: pd.DataFrame, spent: pd.DataFrame, events: pd.DataFrame) -> FigureData | Missing:
    """Return the figure of FLOPs planned, spent and wasted by budget level, and of other charges."""
    title = "Compute planned and spent"
    levels = by_level(plan, spent, events)
    if levels.empty:
        return Missing(title=title, reason="there is no plan")
    kinds = [kind for kind in ("planned", "spent", "wasted") if levels[kind].any()]
    rows = [
        {
            "mark": "bar", "series": kind, "label": level["level"], "x": float(level[kind]),
            "y": bar_place(group, bar, len(kinds)),
            "text": f"{level['level']}: {format_flops(level[kind])} {kind}",
        }
        for group, level in enumerate(records(levels))
        for bar, kind in enumerate(kinds)
    ]  # fmt: skip
    total = levels[["planned", "spent", "wasted"]].sum()
    return FigureData(
        name="spent",
        title=title,
        kind="bars",
        x_label="training compute (FLOPs)",
        y_label="",
        frame=mark_frame(rows),
        caption=(
            f"Training FLOPs by budget level: {format_flops(total['planned'])} planned, "
            f"{format_flops(total['spent'])} spent, {format_flops(total['wasted'])} of it lost with "
            "failed attempts. Other charges, such as the quality scorer, have their own rows."
        ),
        alt=f"{title}: planned {format_flops(total['planned'])}, spent {format_flops(total['spent'])}.",
    )


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
        level=[_level_text(row) for row in records(cells)],
        order=cells["level_flops"].fillna(cells["samples_seen"]),
        row=[held_text({part: row[part] for part in parts}) for row in records(cells)],
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
    missing = f", {without} without a result" if without else ""
    left = (
        f" {plural(out, 'cell')} left out of the plan, for the reasons listed in the report." if out else ""
    )
    return FigureData(
        name="plan",
        title=title,
        kind="grid",
        x_label="budget of one trial",
        y_label="",
        frame=mark_frame(rows),
        caption=(
            f"Planned trials by {'configuration' if len(parts) > 2 else 'architecture and strategy'} and "  # noqa: PLR2004 (more parts than the two)
            f"budget; in each cell: finished of planned trials. {done}{missing}.{left}"
        ),
        alt=f"{title}: {len(names)} rows by {len(levels)} budgets; {done}{missing}.",
    )


def _level_text(row: dict[str, Any]) -> str:
    if row["regime"] == "fixed-compute":
        return budget_text("fixed-compute", float(row["level_flops"]))
    if row["regime"] == "equal-samples" and pd.notna(row["budget"]):
        return budget_text("equal-samples", float(row["budget"]))
    return regime_text(str(row["regime"]))


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
    said = f"{finished} of {planned} finished" if planned else "left out of the plan"
    said += f", {without} without a result" if without else ""
    return {
        "mark": "cell", "series": state, "label": row, "line": level, "low": float(finished),
        "high": float(planned), "text": f"{row}, {level}: {said}",
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
                "text": f"{name}: best with probability {chance:.0%}; {where}",
            }  # fmt: skip
            rows.append(mark)
            if decision is made[-1] and name == one["leader"]:
                rows.append(mark | {"mark": "best" if one["verdict"] == "clear" else "best, not clear"})
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
            caption=(
                f"Probability that a configuration is the best, at {plural(len(made), 'decision')}, "
                "from joint draws of the errors of all configurations, run or not. A configuration is "
                "shown while it belongs to the likeliest ones, which together are the best with the declared "
                "confidence. Lines: configurations that led at some time. Crosses: configurations dropped "
                "because they are within the indifference of the best in fewer than 1 of 200 draws, even by "
                f"the laws that fall fastest ({dropped}).{ended}"
            ),
            alt=f"Course of the adaptive design over {plural(len(made), 'decision')}.{ended}",
            x_scale="linear",
        ),
    )
