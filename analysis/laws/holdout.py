"""Forecasts of a study's own largest levels by the joint law, fitted without them (rolling origin).

The law is refitted without each of the last ``ORIGINS`` levels of a regime and all above it, and forecasts
the cells of that level: the distance is that of the next level, which is what is asked next. Each curve's
last level carried on is scored beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.belief.cell_draws import stream
from analysis.belief.family import families
from analysis.cells.intervals import interval
from analysis.cells.table import Trials, curve_numbers, records
from analysis.laws.laws import run_variance

JOINT, LAST = "joint law", "last level carried on"
ORIGINS = 2
FEWEST = 2
"""Fewest levels of a curve that it is forecast from."""
POINTS = ("regime", "configuration", "level", "x", "factor", "measured", "forecast", "low", "high", "last")
SCORES = ("law", "cells", "error", "bias", "held")
_DRAWS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Holdout:
    """Forecasts of held-out cells.

    Attributes:
        points: One row per held-out cell: ``regime``, ``configuration`` (in words), ``level`` (its budget),
            ``x`` (training FLOPs), ``factor`` (x over the largest that its curve was fitted to),
            ``measured`` (mean error), ``forecast`` (median), ``low``, ``high`` (interval of the measured
            mean, noise included) and ``last`` (the curve's last level carried on).
        scores: One row per law, ``JOINT`` and ``LAST``: ``cells``, ``error`` (mean absolute miss), ``bias``
            (mean of forecast minus measured) and ``held`` (share of the intervals that contain the measured
            value, NaN without intervals).
        reason: Reason why nothing was held out; empty if something was.
    """

    points: pd.DataFrame
    scores: pd.DataFrame
    reason: str


def holdout(trials: Trials) -> Holdout:
    """Forecast the last levels of each regime from those below."""
    rows = [row for regime in sorted(trials.frame["regime"].unique()) for row in _forecasts(trials, regime)]
    points, scores, reason = pd.DataFrame(rows, columns=list(POINTS)), [], ""
    if points.empty:
        reason = (
            f"no configuration was run at {FEWEST + 1} levels, the fewest that a test of a forecast needs"
        )
    else:
        inside = (points["low"] <= points["measured"]) & (points["measured"] <= points["high"])
        for law, forecast, held in ((JOINT, "forecast", float(inside.mean())), (LAST, "last", np.nan)):
            miss = points[forecast] - points["measured"]
            scores.append((law, len(points), float(miss.abs().mean()), float(miss.mean()), held))
    return Holdout(points=points, scores=pd.DataFrame(scores, columns=list(SCORES)), reason=reason)


def _forecasts(trials: Trials, regime: str) -> Iterator[dict[str, Any]]:
    frame = trials.sound[trials.sound["regime"] == regime].reset_index(drop=True)
    frame = frame.assign(curve=curve_numbers(frame))
    levels = np.unique(frame["budget"])
    for level in levels[FEWEST:][-ORIGINS:]:
        before = frame[frame["budget"] < level]
        known = before.groupby("curve")["budget"].nunique()
        asked = frame[(frame["budget"] == level) & frame["curve"].isin(known.index[known >= FEWEST])]
        if not asked.empty:
            yield from _at(trials, before, asked)


def _at(trials: Trials, before: pd.DataFrame, asked: pd.DataFrame) -> Iterator[dict[str, Any]]:
    states = trials.trunks[trials.trunks["regime"].isin(before["regime"])]
    known = replace(
        trials, frame=before.drop(columns="curve"), lost=trials.lost.iloc[:0],
        trunks=states[states["budget"] <= before["budget"].max()],
    )  # fmt: skip
    (family,) = families(known, draws=_DRAWS).values()
    below = before.sort_values("train_flops").groupby("curve").agg(
        trial=("trial", "last"), x=("train_flops", "last"), level=("budget", "last")
    )  # fmt: skip
    last = before.groupby(["curve", "budget"])["error"].mean()
    cells = asked.groupby("curve", as_index=False).agg(
        level=("budget", "first"), x=("train_flops", "mean"),
        measured=("error", "mean"), runs=("error", "size"),
    )  # fmt: skip
    places = [family.place_of[below["trial"][curve]] for curve in cells["curve"]]
    curve, point = np.array(places, dtype=np.intp).T
    drawn = family.read(curve, cells["x"].to_numpy(np.float64)[:, None])[:, :, 0]
    variance = run_variance(family)[curve, point] / cells["runs"].to_numpy(np.float64)
    noise = np.sqrt(variance) * stream("holdout").standard_normal(drawn.shape)
    for place, cell in enumerate(records(cells)):
        low, high = interval(drawn[:, place] + noise[:, place])
        end = below.loc[cell["curve"]]
        yield {
            "regime": family.regime, "configuration": family.names[curve[place]],
            "forecast": float(np.median(drawn[:, place])), "low": low, "high": high,
            "factor": cell["x"] / end["x"], "last": float(last[cell["curve"], end["level"]]),
            **{name: cell[name] for name in ("level", "x", "measured")},
        }  # fmt: skip
