"""The frames of a study, as its analysis and report take them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from analysis.cells.missing import as_planned
from analysis.cells.table import Trials, tidy
from analysis.charts.tuning_figures import Tuned


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyFrames:
    """The frames of one study, finished or not, and the few facts that they are read with.

    Attributes:
        name: Name of the study.
        metric: Declared metric, ``<evaluation set>/<metric>``.
        budget_flops: Declared cap on the training FLOPs of the whole study; None without one.
        price_per_hour: Declared price of one device for an hour; None without one.
        target_flops: Compute of a trial to which the scaling panels extrapolate; None for ten times the
            largest.
        results: One row per trial that ended, in the results schema.
        curves: Training curves.
        midway: Metrics of trials at shares of their steps, one row an evaluation.
        plan: One row per planned trial; in an adaptive study only those that the design chose.
        not_chosen: The other trials of an adaptive study's grid; empty otherwise.
        left_out: Cells left out of the plan, with ``reason``.
        unread: For an imported study, the rows of its table that were not read, with ``reason``.
        ledger: FLOPs reserved, spent, wasted and charged, one row per entry.
        events: Events of the study's runs, in order.
        begun: Trial → its progress in words, for trials that were begun and have no row in ``results``.
        tuned: The study's tuning; None without one.
        published: Digitised figures of the paper, for its own verdicts on its claims; None leaves them out.
        mixtures: Name of each declared mixture of pools → its parts in words, to compare it with another's.
        imported: For a study imported from a table, what was read of that table; empty for one that was run.
            An imported study has no plan and no cost.
    """

    name: str
    metric: str
    budget_flops: float | None = None
    price_per_hour: float | None = None
    target_flops: float | None = None
    results: pd.DataFrame
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    midway: pd.DataFrame = field(default_factory=pd.DataFrame)
    plan: pd.DataFrame = field(default_factory=pd.DataFrame)
    not_chosen: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    unread: pd.DataFrame = field(default_factory=pd.DataFrame)
    ledger: pd.DataFrame = field(default_factory=pd.DataFrame)
    events: pd.DataFrame = field(default_factory=pd.DataFrame)
    begun: Mapping[str, str] = field(default_factory=dict)
    tuned: Tuned | None = None
    published: pd.DataFrame | None = None
    mixtures: Mapping[str, str] = field(default_factory=dict)
    imported: str = ""

    @property
    def trials(self) -> Trials:
        """The finished trials, and those that ended without a result, in their planned cells."""
        return tidy(as_planned(self.results, self.plan), metric=self.metric)

    @property
    def tuned_rates(self) -> dict[tuple[str, str], float] | None:
        """Pairs of architecture and strategy with a tuned rate, see `Tuned.rates`; None when unknown."""
        if self.imported:
            return None
        return {} if self.tuned is None else self.tuned.rates
