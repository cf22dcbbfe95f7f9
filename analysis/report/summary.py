"""The answers of a report as the command line prints them."""

from collections.abc import Iterator

import pandas as pd

from analysis.answers.answer_text import answer_line, reason_lines
from analysis.answers.best import turns, unranked
from analysis.answers.cost import notable_score
from analysis.answers.outliers import outlier_lines
from analysis.cells.table import records
from analysis.labels import budget_text, configuration_text
from analysis.report.analyse import Analysis
from budgets.quantity import format_flops, plural


def answer_lines(best: pd.DataFrame, analysis: Analysis, *, why: bool = False) -> Iterator[str]:
    """Yield a line for each row of the best configurations, if asked with its reasons."""
    for row in records(best):
        leader, unit = configuration_text(row), analysis.draws.error_unit
        yield answer_line(str(row["at"]), leader, row, unit, tied=len(row["leaders"]))
        if why:
            scope = f"{row['scope']}{notable_score(row['score_flops'], analysis.cost)}"
            yield from reason_lines(row, row["reason"], scope, tied=[row["tied"]])


def no_answer(analysis: Analysis) -> str:
    """Return why no budget has an answer yet."""
    what = "cooled run" if len(analysis.trials.trunks) else "trial"
    return f"no {what} has finished, so there is nothing to compare yet"


def summary_lines(analysis: Analysis, *, why: bool = False) -> tuple[str, ...]:
    """Return the answers as the command line prints them, if asked with the reasons of each."""
    progress, unit = analysis.progress, analysis.draws.error_unit
    unfinished = f", {progress.excluded} failed or diverged" if progress.excluded else ""
    spent = format_flops(analysis.cost.spent_flops)
    left = f", {progress.not_chosen} more not chosen" if progress.not_chosen else ""
    ran = f"{progress.finished} of {progress.planned} trials finished{unfinished}{left}; {spent} spent"
    lines = [analysis.study.imported or ran]
    shown, more = turns(analysis.best)
    lines += answer_lines(shown, analysis, why=why)
    lines += [f"{more}: tables/best.md"] if more else []
    lines += unranked(analysis.draws)
    if analysis.best.empty and len(lines) == 1:
        lines.append(no_answer(analysis))
    lines += outlier_lines(analysis.outliers, unit)
    without = analysis.missing["reason"].isin(analysis.trials.excluded["reason"])
    for what, rows in (("no result yet", ~without), ("failed or diverged", without)):
        lacking = analysis.missing[rows].groupby(["regime", "budget"], as_index=False)[["trials"]].sum()
        text = ", ".join(
            f"{plural(row['trials'], 'trial')} at {budget_text(row['regime'], row['budget'])}"
            for row in records(lacking)
        )
        lines += [f"{what}: {text}; see tables/missing.md"] if text else []
    return tuple(lines)
