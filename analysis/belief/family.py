"""The curves of a study, one family for each regime, with what its runs say of all of them.

Every answer of a study is read from these draws: its tables, figures, forecasts and verdicts, its
recommendation, and the next trials of an adaptive design. The draws depend on the results and the grid alone,
so that whoever asks gets the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.arrays import Floats, Indices, Mask
from analysis.belief.belief import Belief, Curves, Measured, believe, effects
from analysis.cells.pareto import SAME_COST, costs
from analysis.cells.table import (
    CELL,
    CONFIGURATION,
    Trials,
    curve_numbers,
    group_numbers,
    of_trunks,
    records,
    with_budgets,
)
from analysis.error_unit import ErrorUnit, chance_error
from analysis.labels import budget_text, configuration_text
from budgets.quantity import plural

NoiseSource = Literal["runs", "laws", "none"]

DRAWS = 1000
FARTHEST = 30.0
"""Factor below its smallest cell down to which a curve is read."""
BETWEEN = 4.0
"""Factor within which a run on both sides makes what is read lie between runs."""
PAIRS, MAP_SHARE = 3, 0.5
"""Of a learned map: fewest pairs, and its deviation over that between configurations (1 without pairs)."""
_TRACE = 1e-9  # weight of a state's compute beside that of cooled runs
_UNTESTED, _FEWEST_MISSES = 3, 4
"""Points of a curve that do not show how far runs miss the law, and fewest beyond these that do."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """The curves of one regime: its configurations at all budgets of the grid.

    In the one-epoch regime more compute means more pairs, so a curve spans subset sizes. The points of a
    curve are its cells by rising compute; the last is repeated so that all curves have as many. If trunks are
    evaluated, the runs and the belief have as many points again: the states of trunks where each cell's runs
    cool down, in the same order.

    Attributes:
        regime: The regime.
        configurations: One row per curve: the columns of ``CONFIGURATION`` and ``family``.
        names: Text of each curve.
        place_of: Trial → its curve and point, which of a trial of a trunk is the state's.
        points: Number of points of each curve that are cells, shape (curves,).
        limit: Largest compute of each curve, infinite if the grid does not limit it, shape (curves,).
        levels: Compute of each point, the level under fixed compute, NaN where it is repeated; shape (curves,
            points).
        measured: The runs, without those left of cells that lost some: neither law nor noise rests on these.
        lost: Curve and point of each cell that lost runs → how many, and what is left, in words.
        draws: Number of draws.
        most: Largest possible error.
        source: Where the noise of a run is known from: ``runs`` if seeds show it, ``laws`` if single runs
            miss the law of their table by it, ``none`` if neither: then nothing is decided.
    """

    regime: str
    configurations: pd.DataFrame
    names: tuple[str, ...]
    place_of: Mapping[str, tuple[int, int]]
    points: Indices
    limit: Floats
    levels: Floats
    measured: Measured
    lost: Mapping[tuple[int, int], str]
    draws: int
    most: float
    source: NoiseSource

    @cached_property
    def belief(self) -> Belief:
        """Joint draws of the true errors at all points."""
        generator = np.random.default_rng(len(self.regime))
        return believe(self.measured, draws=self.draws, generator=generator)

    @property
    def x(self) -> Floats:
        """Training FLOPs of the points, shape (curves, points)."""
        return self.measured.curves.x

    def read(self, curves: Indices, x: Floats, pairs: Floats | None = None) -> Floats:
        """Return draws of the true errors of some curves at FLOPs (curves, points), as the law has them.

        ``pairs``, shape (curves,), replace the pairs of their training sets.
        """
        some = self.measured.curves.take(curves)
        axes = (some if pairs is None else replace(some, pairs=pairs)).axes(x)
        return np.clip(self.belief.errors(axes, curves), 0.0, self.most)

    def at(self, flops: float | Floats, *, beyond: bool = False) -> tuple[Floats, Indices]:
        """Return draws of all curves' errors at one compute, and the cell that each is read at, -1 if none.

        A curve is read at its own cell there, if it has one, and by the law otherwise. It has an infinite
        error where it can't be run: far below its smallest cell, or where the grid does not run it.

        Args:
            flops: The compute, or that of each curve.
            beyond: True if curves can also be run where the grid does not.
        """
        curves = np.arange(len(self.names))
        asked = np.broadcast_to(np.asarray(flops, dtype=np.float64), curves.shape)
        # By levels, which a few large batches may miss by more than that.
        apart = np.nan_to_num(np.abs(np.log(self.levels / asked[:, None])), nan=np.inf)
        nearest = apart.argmin(axis=1)
        place = np.where(apart[curves, nearest] <= np.log(SAME_COST), nearest, -1)
        if self.regime != "fixed-compute" and not beyond:  # one that can't spend more is read at its largest
            place = np.where(asked > self.limit * SAME_COST, self.points - 1, place)
        errors = self.belief.draws[:, curves, np.maximum(place, 0)]
        beside = np.flatnonzero((place < 0) & (self.lowest <= asked) & (beyond | self.reachable(asked)))
        errors[:, place < 0] = np.inf
        if len(beside):
            errors[:, beside] = self.read(beside, asked[beside, None])[:, :, 0]
        return errors, place

    @property
    def lowest(self) -> Floats:
        """Smallest compute at which each curve can be asked for, shape (curves,).

        Without a grid a curve could also have been run with less than at its smallest cell, of those with a
        run that is no outlier.
        """
        if np.isfinite(self.limit).all():
            return self.x[:, 0] / SAME_COST
        first = np.argmax(self._sound > 0, axis=1)
        return np.asarray(self.x[np.arange(len(first)), first] / FARTHEST)

    def reachable(self, flops: Floats) -> Mask:
        """Return which curves may be asked for at a compute, shape (curves,).

        At a level of fixed compute these are the ones that the grid runs at it or above; beyond all levels,
        and in the other regimes, all: there a curve that can't spend more is read at its largest cell.
        """
        if self.regime != "fixed-compute":
            return np.ones(len(self.names), dtype=bool)
        return flops <= np.where(flops > self.limit.max() * SAME_COST, np.inf, self.limit * SAME_COST)

    def runs(self, place: Indices) -> Floats:
        """Return the number of runs at a point of each curve that are no outliers, 0 where it is -1."""
        return np.where(place >= 0, self._sound[np.arange(len(place)), np.maximum(place, 0)], 0.0)

    def distance(self, flops: float | Floats, pairs: Floats | None = None) -> Floats:
        """Return how far each curve is read from its own runs that are no outliers, shape (curves,).

        The larger of two ratios of what is asked to the nearest run: that of the compute, 1 between runs, and
        that of the epochs to the most of its runs, where pairs are repeated. Infinite without runs. ``pairs``
        replace those of the training sets.
        """
        x, sound = np.where(np.isnan(self.levels), self.x, self.levels), self._sound > 0
        asked = np.broadcast_to(np.asarray(flops, dtype=np.float64), len(x))
        above = np.where(sound, np.log(x / asked[:, None]), np.inf)
        below = np.where(sound, -np.log(x / asked[:, None]), np.inf)
        least = [np.where(side > -np.log(SAME_COST), side, np.inf).min(axis=1) for side in (above, below)]
        between = np.maximum(*least) <= np.log(BETWEEN * SAME_COST)
        compute = np.where(between, 1.0, np.maximum(np.exp(np.minimum(*least)), 1.0))
        own, per_sample = self.measured.curves.pairs, self.measured.curves.per_sample
        seen = np.where(sound, x, 0.0).max(axis=1) / per_sample / own
        epochs = asked / per_sample / (own if pairs is None else pairs)
        return np.asarray(np.maximum(compute, epochs / np.maximum(seen, 1.0)))

    @cached_property
    def _sound(self) -> Indices:
        """Number of runs that are no outliers, which takes a known noise; shape (curves, points).

        Of units with a trunk's state alone the state counts, if the map is `learned`.
        """
        run = np.isfinite(self.measured.errors)
        run = run if self.source == "none" else run & ~self.belief.aside
        return np.asarray(self._counted(run).sum(axis=1))

    @property
    def ran(self) -> Mask:
        """Cells with a run, or with a trunk's state if the map is `learned`; shape (curves, points)."""
        return self._counted(self.measured.runs > 0)

    def _counted(self, run: Mask) -> Mask:
        cooled, states = np.split(run, [self.x.shape[1]], axis=-1)
        return np.asarray(cooled | states if self.learned else cooled)

    @cached_property
    def learned(self) -> bool:
        """True if a trunk's state counts as a run: the map from it to the error after a cooldown is known.

        It takes ``PAIRS`` units with both, and a deviation of what the cooldown of a state without a cooled
        run gains of at most ``MAP_SHARE`` of that between the curves' errors there.
        """
        if not self.states or self.source == "none" or self.pairs.sum() < PAIRS:
            return False
        cooled, states = np.split(self.belief.draws, [self.x.shape[1]], axis=2)
        ran, state = np.split(self.measured.runs > 0, [self.x.shape[1]], axis=1)
        known = np.where(state, cooled.mean(axis=0), np.nan)[:, state.sum(axis=0) > 1]
        gain = (cooled - states).std(axis=0)[state & ~ran if (state & ~ran).any() else state]
        spread = float(np.nanstd(known, axis=0, ddof=1).mean()) if known.size else 0.0
        return float(gain.mean()) <= MAP_SHARE * spread

    @property
    def pairs(self) -> Mask:
        """Units with a cooled run and a state, neither an outlier; shape (curves, units, points)."""
        sound = np.isfinite(self.measured.errors) & ~self.belief.aside
        cooled, states = np.split(sound, [self.x.shape[1]], axis=2)
        return np.asarray(cooled & states)

    @property
    def states(self) -> bool:
        """True if trunks are evaluated."""
        return bool(self.measured.errors.shape[2] > self.x.shape[1])

    @cached_property
    def _last(self) -> Floats:
        return np.asarray(np.where(self.ran, self.x, 0.0).max(axis=1))

    def lost_at(self, curve: int, point: int, flops: float) -> str:
        """Return what a curve lost at a point, or after its last run on the way to a compute, in words.

        Such a curve is named apart: no verdict ranks it by what survived. Empty if it lost nothing.
        """
        return next((
            text for (other, lost), text in self.lost.items()
            if other == curve and (lost == point or self._last[curve] < self.x[curve, lost] <= flops)
        ), "")  # fmt: skip

    @property
    def unlearned(self) -> str:
        """Why trunk states don't count as runs, in words; empty if they do, or if there are none."""
        if self.learned or not self.states or not self.measured.runs[:, self.x.shape[1] :].any():
            return ""
        return f"the map from trunk to cooled error is not learned ({plural(int(self.pairs.sum()), 'pair')})"

    def by_trunk(self, place: Indices) -> Mask:
        """Return which curves are known at a point by a trunk state alone, which counts as a run there."""
        cooled = self.measured.runs[np.arange(len(place)), np.maximum(place, 0)]
        return np.asarray((self.runs(place) > 0) & (cooled == 0))

    def apart(self, flops: float | Floats, place: Indices) -> list[str]:
        """Return what each curve lost, see `lost_at`, where `at` reads them at one compute."""
        asked = np.broadcast_to(np.asarray(flops, dtype=np.float64), place.shape).tolist()
        return [
            self.lost_at(curve, *pair) for curve, pair in enumerate(zip(place.tolist(), asked, strict=True))
        ]


def families(trials: Trials, grid: pd.DataFrame | None = None, *, draws: int = DRAWS) -> dict[str, Family]:
    """Return the family of each regime.

    Args:
        trials: The trials with a result.
        grid: All trials of the grid, run or not, with the columns of a plan; without
            one, the trials alone, whose configurations could be run with any compute.
        draws: Number of draws.
    """
    bounded = False
    lost = trials.lost.assign(train_flops=costs(trials.lost))  # without a plan, those until it diverged
    lost = lost[lost["train_flops"] > 0]
    cells = pd.concat([trials.every, lost]) if len(lost) else trials.every
    if grid is not None and len(grid):
        bounded = True
        planned = with_budgets(grid, trials)
        beside = cells[~cells["trial"].isin(planned["trial"])]
        kinds = dict(zip(cells["architecture"], cells["family"], strict=True))
        cells = pd.concat([planned.assign(family=planned["architecture"].map(kinds)), beside])
    cells = cells.sort_values("trial", ignore_index=True)
    known = [_noise_source(runs) for runs in (trials.sound, trials.trunks)]
    source: NoiseSource = "runs" if "runs" in known else "laws" if "laws" in known else "none"
    return {
        str(regime): _family(
            str(regime), group.reset_index(drop=True), trials, draws, bounded=bounded, source=source
        )
        for regime, group in cells.groupby("regime", sort=True)
    }


def _noise_source(frame: pd.DataFrame) -> NoiseSource:
    """Return where the noise of a run is known from, see ``Family``."""
    if len(frame) > len(frame[[*CELL]].drop_duplicates()):
        return "runs"
    over_data = group_numbers(frame, [name for name in CELL if name != "subset_size"])
    beyond = (np.maximum(np.bincount(of) - _UNTESTED, 0).sum() for of in (curve_numbers(frame), over_data))
    return "laws" if max(beyond) >= _FEWEST_MISSES else "none"


def _family(  # noqa: PLR0913 - the cells, and how they are read
    regime: str, cells: pd.DataFrame, trials: Trials, draws: int, *, bounded: bool, source: NoiseSource
) -> Family:
    curve = curve_numbers(cells)
    budgets, budget = np.unique(cells["budget"].to_numpy(np.float64), return_inverse=True)
    keys, cell = np.unique(curve * len(budgets) + budget, return_inverse=True)
    # A cell has the compute of its runs, and only without any row of these that of its trunk's state.
    state = of_trunks(cells)
    weight, flops = np.where(state, _TRACE, 1.0), cells["train_flops"].to_numpy(np.float64)
    mean = np.bincount(cell, weights=flops * weight) / np.bincount(cell, weights=weight)
    # The cells of a curve by rising compute.
    mine = keys // len(budgets)
    points, order = np.bincount(mine), np.lexsort((mean, mine))
    place = np.empty(len(keys), dtype=np.intp)
    place[order] = np.arange(len(keys)) - np.repeat(np.cumsum(points) - points, points)
    levels = np.full((len(points), points.max()), np.nan)
    levels[mine, place] = mean
    x = np.fmax.accumulate(levels, axis=1)
    if regime == "fixed-compute":
        levels[mine, place] = budgets[keys % len(budgets)]
    first = cells.iloc[np.unique(curve, return_index=True)[1]].reset_index(drop=True)
    pairs = first["subset_size"].to_numpy(np.float64)
    one_epoch = regime == "one-epoch"
    without = "subset_size" if one_epoch else ""
    curves = Curves(
        x=x, per_sample=first["train_flops_per_sample"].to_numpy(np.float64),
        pairs=np.full_like(pairs, np.inf) if one_epoch else pairs,
        shared=effects(*(pd.factorize(first[name])[0] for name in ("architecture", "strategy", "quality"))),
    )  # fmt: skip
    point = place[cell] + state * x.shape[1]
    place_of = dict(zip(cells["trial"], zip(curve.tolist(), point.tolist(), strict=True), strict=True))
    return Family(
        regime=regime, configurations=first[[*CONFIGURATION, "family"]],
        names=tuple(configuration_text(row, without=without) for row in records(first)),
        place_of=place_of,
        points=points, limit=x[:, -1] if bounded else np.full(len(points), np.inf), levels=levels,
        measured=_measured(curves, cells, curve, point, trials), lost=_lost(trials, place_of), draws=draws,
        most=ErrorUnit.of(trials.metric).most, source=source,
    )  # fmt: skip


def _lost(trials: Trials, place_of: Mapping[str, tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return what each cell lost, in words, the largest compute of a curve first."""
    unit, cells, texts = ErrorUnit.of(trials.metric), dict[tuple[int, int], list[dict[str, Any]]](), {}
    for run in records(pd.concat([trials.lost, trials.frame[trials.frame["lost"] > 0]])):
        if run["trial"] in place_of:
            cells.setdefault(place_of[run["trial"]], []).append(run)
    for place, runs in sorted(cells.items(), reverse=True):
        left = [run["error"] for run in runs if np.isfinite(run["error"])]
        which = "the one left has" if len(left) == 1 else f"the {len(left)} left average"
        texts[place] = (
            f"lost {len(runs) - len(left)} of {plural(len(runs), 'run')} at "
            f"{budget_text(runs[0]['regime'], runs[0]['budget'])}"
            + (f", {which} {unit.text(float(np.mean(left)))}" if left else "")
        )
    return texts


def _measured(
    curves: Curves, cells: pd.DataFrame, curve: Indices, point: Indices, trials: Trials
) -> Measured:
    every = trials.every
    ran = every[every["lost"] == 0].set_index("trial").reindex(cells["trial"])
    error = ran["error"].to_numpy(np.float64)
    known = np.isfinite(error)
    trunk = ran["trunk"].where(ran["trunk"] != "", ran.index.to_series())[known]
    unit = trunk.groupby(curve[known]).rank(method="dense").to_numpy(np.intp) - 1
    points = curves.x.shape[1] * (2 if of_trunks(cells).any() else 1)
    errors = np.full((len(curves.x), 1 + int(unit.max(initial=0)), points), np.nan)
    errors[curve[known], unit, point[known]] = error[known]
    images, reading = (ran[name].to_numpy(np.float64)[known] for name in ("images", "reading_error"))
    return Measured(
        curves=curves, errors=errors, images=float(np.median(images)) if known.any() else float("nan"),
        reading=float(np.sqrt((reading**2).mean())) if known.any() else 0.0,
        loss=np.isinf(ErrorUnit.of(trials.metric).most), chance=chance_error(trials.metric),
    )  # fmt: skip
