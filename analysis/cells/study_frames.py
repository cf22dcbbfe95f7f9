"""The frames of a study, as its analysis and report take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.cells.table import CONFIGURATION, Trials, cooled, of_trunks, tidy, used_attempts
from budgets.cost.architecture import Architecture
from runners.results import SPENT_COLUMNS, to_frame

TUNED_COLUMN = "tuned_"
"""Beginning of the columns that hold the tuned fields of a trial."""
WAITING = "not run yet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """A study's tuning.

    Attributes:
        tried: One row per trial that ended, in the results schema, with a column ``tuned_<field>`` for each
            tuned field.
        metric: Metric that selects the winners; higher is better.
        winners: Winners so far: ``architecture``, ``strategy``, ``values`` (field → value), ``score``,
            ``runner_up`` (values), ``runner_up_score`` (None if it diverged), ``tie``, ``widened`` and
            ``at_edge`` (fields), ``serves`` (others of its family that take its values); at several levels
            also ``cell``.
        at_chance: Sentences about cells on which no value beat chance.
        carried: Lines that carry learning rates on: ``strategy``, ``along``, ``exponent``, ``low``, ``high``
            and ``rates`` (``architecture``, ``level_flops``, ``lr_peak``, ``low``, ``high``, ``tuned``).
        checks: Tuned rates beside their neighbours at a larger level: ``cell``, ``winner`` (None if training
            diverged at each), ``lr_peak``, ``score`` (None if it diverged) and ``moved``.
        check_flops: Training FLOPs that were set aside for the check.
        check_paid: Training FLOPs that the check has cost.
        left_out: Sentences about rates that are not checked.
    """

    tried: pd.DataFrame
    metric: str
    winners: Sequence[Mapping[str, Any]]
    at_chance: Sequence[str] = ()
    carried: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    check_flops: int = 0
    check_paid: int = 0
    left_out: Sequence[str] = ()

    @property
    def one_seed(self) -> bool:
        """True if each combination of values was tried with one seed."""
        return len(self.tried["seed"].unique()) <= 1

    @property
    def noise(self) -> str:
        """The noise that a verdict accounts for, in words."""
        if self.one_seed:
            return "the noise of counting (that between seeds was not measured)"
        return "the noise of seeds and counting"

    @property
    def fields(self) -> tuple[str, ...]:
        """Tuned fields."""
        columns = map(str, self.tried.columns)
        return tuple(name.removeprefix(TUNED_COLUMN) for name in columns if name.startswith(TUNED_COLUMN))

    @property
    def rates(self) -> dict[tuple[str, str], float]:
        """Architecture and strategy with a tuned or carried peak learning rate → level at which it fails.

        That is the level at which the check found another rate to be better; infinite if it found none.
        """
        pairs = [
            (str(name), str(won["strategy"]))
            for won in self.winners
            if "lr_peak" in won["values"]
            for name in (won["architecture"], *won.get("serves", ()))
        ]
        pairs += [
            (str(rate["architecture"]), str(line["strategy"]))
            for line in self.carried
            for rate in line["rates"]
        ]
        moved = {
            (check["cell"]["architecture"], check["cell"]["strategy"]): float(check["cell"]["level_flops"])
            for check in self.checks
            if check["moved"]
        }
        return {pair: moved.get(pair, inf) for pair in pairs}


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyFrames:
    """The frames of one study, finished or not, and the few facts that they are read with.

    Attributes:
        name: Name of the study.
        metric: Declared metric, ``<evaluation set>/<metric>``.
        budget_flops: Declared cap on the training FLOPs of the whole study; None without one.
        price_per_hour: Declared price of one device for an hour; None without one.
        confidence: Probability at which an adaptive study's verdicts are clear; None for the usual one.
        target_flops: Compute of a trial to which the scaling panels extrapolate; None for ten times the
            largest.
        results: One row per trial that ended, in the results schema; of several attempts the used one, with
            the id of the first.
        again: Values of the attempts of each trial that has several, in words, by the id of the first.
        curves: Training curves.
        midway: Metrics of trials at shares of their steps, one row an evaluation.
        plan: One row per planned trial; in an adaptive study only those that the design chose.
        not_chosen: The other trials of an adaptive study's grid; empty otherwise.
        trunks: Rows of trunks, evaluated at constant rate, that ``results``, ``plan`` and ``not_chosen`` are
            without, by these names; empty if the study evaluates none. See `by_phase` and `every`.
        left_out: Cells left out of the plan, with ``reason``.
        unread: For an imported study, the rows of its table that were not read, with ``reason``.
        sweeps: For an imported study, what was tried in each cell, see `sweeps.choose`; empty without.
        scores: Models behind the score of each quality, with what they cost.
        spent: FLOPs spent and wasted, one row per trial, and charges.
        events: Events of the study's runs, in order.
        begun: Trial → its progress in words, for trials that were begun and have no row in ``results``.
        tuned: The study's tuning; None without one.
        architectures: The study's own architectures, those of its ``catalogue:``. They decide families and
            which strategies can train a model; those of an imported table are known by name alone.
        settings: What was declared of the data and of the training, by its key, and each mixture's parts in
            words, to say what another study declared otherwise.
        imported: For a study imported from a table, what was read of that table; empty for one that was run.
            An imported study has no plan and no cost.
    """

    name: str
    metric: str
    budget_flops: float | None = None
    price_per_hour: float | None = None
    confidence: float | None = None
    target_flops: float | None = None
    results: pd.DataFrame
    again: Mapping[str, str] = field(default_factory=dict)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    midway: pd.DataFrame = field(default_factory=pd.DataFrame)
    plan: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_chosen: pd.DataFrame = field(default_factory=pd.DataFrame)
    trunks: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    unread: pd.DataFrame = field(default_factory=pd.DataFrame)
    sweeps: pd.DataFrame = field(default_factory=pd.DataFrame)
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    spent: pd.DataFrame = field(default_factory=partial(to_frame, (), SPENT_COLUMNS))
    events: pd.DataFrame = field(default_factory=pd.DataFrame)
    begun: Mapping[str, str] = field(default_factory=dict)
    tuned: Tuned | None = None
    architectures: Mapping[str, Architecture] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    imported: str = ""

    @property
    def trials(self) -> Trials:
        """The finished trials, and those that ended without a result, in their planned cells."""
        results, plan = self.every("results"), self.every("plan")
        return tidy(as_planned(results, plan), metric=self.metric, own=self.architectures)

    @property
    def grid(self) -> pd.DataFrame:
        """All trials of the grid, chosen or not, with those of trunks."""
        return pd.concat([self.every("plan"), self.every("not_chosen")])

    def every(self, table: Literal["results", "plan", "not_chosen"]) -> pd.DataFrame:
        """Return a table with the rows of trunks, which have the cells and seeds of cooled ones."""
        rows: pd.DataFrame = getattr(self, table)
        return pd.concat([rows, self.trunks.get(table)]) if self.trunks else rows

    @property
    def tuned_rates(self) -> dict[tuple[str, str], float] | None:
        """Pairs of architecture and strategy with a tuned rate, see `Tuned.rates`; None when unknown."""
        if self.imported:
            return None
        return {} if self.tuned is None else self.tuned.rates


def by_phase(**tables: pd.DataFrame) -> dict[str, Any]:
    """Return tables of both phases as arguments of `StudyFrames`: those of cooled trials, and ``trunks``."""
    trunks = {name: table[of_trunks(table)] for name, table in tables.items()}
    frames: dict[str, Any] = {name: cooled(table) for name, table in tables.items()}
    return frames | ({"trunks": trunks} if any(map(len, trunks.values())) else {})


def as_planned(results: pd.DataFrame, plan: pd.DataFrame) -> pd.DataFrame:
    """Return results in which diverged trials have the samples and FLOPs of their plan, not those until then.

    Outside fixed compute these are their budget, which joins them with the other runs of their cell. Of
    several attempts of a trial only the used one is left.
    """
    results = used_attempts(results, results)
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


def missing(plan: pd.DataFrame, trials: Trials, begun: Mapping[str, str]) -> pd.DataFrame:
    """Return the planned trials without a result, by cell.

    ``begun`` has the progress in words of trials that were begun and have no result.

    Returns:
        One row per cell and reason, in the order of the plan: ``regime``, ``budget``, the columns of
        ``CONFIGURATION``, ``seeds`` (texts joined by ", ", those of trunks are named so), ``trials`` and
        ``reason``.
    """
    columns = ["regime", "budget", *CONFIGURATION, "seeds", "trials", "reason"]
    if plan.empty:
        return pd.DataFrame(columns=columns)
    reasons = dict(begun) | dict(zip(trials.excluded["trial"], trials.excluded["reason"], strict=True))
    lacking = plan[~plan["trial"].isin(trials.every["trial"])]
    worded = lacking.assign(
        reason=[reasons.get(trial, WAITING) for trial in lacking["trial"]],
        seeds=[
            f"{seed:.0f}{' (trunk)' if trunk else ''}"
            for seed, trunk in zip(lacking["seed"], of_trunks(lacking), strict=True)
        ],
    )
    cell = ["regime", "budget", *CONFIGURATION, "reason"]
    grouped = worded.groupby(cell, sort=False)["seeds"].agg([", ".join, "size"]).reset_index()
    return grouped.rename(columns={"join": "seeds", "size": "trials"})[columns]
