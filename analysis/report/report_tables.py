"""The tables of a report."""

import pandas as pd

from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import records
from analysis.charts.answer_figures import part_text, share_text
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, capital
from analysis.report import law_tables, tables
from analysis.report.analyse import Analysis
from analysis.report.tuning_tables import design_tables, sweep_table, tuning_tables


def report_tables(found: Analysis, study: StudyFrames) -> tuple[tables.Table, ...]:
    """Return the tables of a report."""
    unit, tuned = found.draws.error_unit, study.tuned
    return (
        tables.best(
            found.best,
            found.cost,
            metric=found.trials.metric,
            explanation=found.draws.explanation,
            confidence=found.draws.confidence,
        ),
        *(() if found.outliers.empty else (law_tables.outliers(found.outliers, unit),)),
        *(() if found.shares.empty else (_shares(found.shares, unit),)),
        tables.contrasts(found.contrasts, unit),
        tables.comparisons(found.comparisons, unit),
        law_tables.parameters(found.parameters, unit),
        law_tables.curves(found.laws, unit),
        tables.profiles(found.profiles),
        law_tables.holdout(found.holdout, unit),
        law_tables.exponents(found.exponents),
        tables.pareto(found.pareto, unit),
        tables.quality_trades(found.quality_trades),
        tables.robustness(found.robustness),
        *(() if found.imported else (tables.cost(found.levels, found.cost, found.scores),)),
        tables.trials(found.trials, study.results, study.again),
        tables.unread_rows(study.unread) if found.imported else tables.left_out(study.left_out),
        tables.missing(found.missing),
        *(() if study.sweeps.empty else (sweep_table(study.sweeps, unit),)),
        *(() if tuned is None or tuned.tried.empty else tuning_tables(tuned)),
        *design_tables(study.events),
    )


def _shares(shares: pd.DataFrame, unit: ErrorUnit) -> tables.Table:
    """Return the table of `variance_shares`: a row per budget, a column per part."""
    rows = [
        {
            "Budget": budget_text(str(regime), float(str(budget))),
            "Cells": str(group["cells"].iloc[0]),
            unit.gap_heading_of("Deviation"): unit.number(group["deviation"].iloc[0]),
        }
        | {capital(part_text(row["part"])): share_text(row) for row in records(group)}
        for (regime, budget), group in shares.groupby(["regime", "budget"])
    ]  # fmt: skip
    note = (
        f"Shares of the variance of {unit.word} between the cells of a budget: what each part explains by "
        "itself, as the mean over all orders in which the parts can enter a linear model, and what they "
        "explain only together. A dash: the part does not vary, or the cells are too few"
    )
    title, frame = f"What the {unit.word} depends on", pd.DataFrame(rows).fillna("–")
    return tables.Table(name="matters", title=title, note=note, frame=frame)
