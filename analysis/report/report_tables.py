"""The tables of a report."""

from analysis.cells.study_frames import StudyFrames
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
