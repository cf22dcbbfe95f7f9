"""Two or more studies side by side: what changed in the answer, and each shared cell with its difference.

The draws of two studies are independent, so a difference has the draws of one minus shuffled draws of the
other. Intervals are 90 %.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.best import best_at_budgets
from analysis.belief.cell_draws import CellDraws, stream, study_draws
from analysis.cells.intervals import interval
from analysis.cells.pareto import SAME_COST, same_cost
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import CELL, CONFIGURATION, records
from analysis.charts.answer_figures import cells_against
from analysis.charts.figure_data import FigureData, Missing
from analysis.drawing.save import save as save_figure
from analysis.error_unit import ErrorUnit
from analysis.labels import budget_text, configuration_text, listed, metric_text
from analysis.report.page import inline_svg, templates
from analysis.report.table_files import replacing, save
from analysis.report.tables import BUDGET, NAMED, VERDICT, Table, TextColumn, column
from budgets.quantity import format_number, plural

_UNKNOWN = "unknown noise"
"""Verdict where no noise is known in one of the studies."""


def compare(studies: Sequence[StudyFrames]) -> tuple[Table, Table, FigureData | Missing]:
    """Return the answers of studies side by side, and table and figure of their cells against the first's.

    Raises:
        ValueError: The studies can't be compared; the message says why.
    """
    names = [study.name for study in studies]
    if len(set(names)) < len(names):
        raise ValueError(f"a study is compared with others, not with itself; found {listed(names)}")
    measures = {study.name: study.metric for study in studies}
    if len(set(measures.values())) > 1:
        measured = ", ".join(f"{name} measures {metric}" for name, metric in measures.items())
        raise ValueError(f"studies with different metrics can't be compared: {measured}")
    draws = {study.name: study_draws(study) for study in studies}
    shared = {name: _shared(draws[names[0]], other) for name, other in draws.items() if name != names[0]}
    for name, cells in shared.items():
        if cells.empty:
            raise ValueError(
                f"{names[0]} and {name} can't be compared: no configuration ran in both at the same budget; "
                f"{names[0]} has {_budgets(draws[names[0]])}, {name} has {_budgets(draws[name])}"
            )
    best = {name: best_at_budgets(mine) for name, mine in draws.items()}
    metric, cells = studies[0].metric, _differences(draws, shared)
    return _answers(best), _cells(metric, draws, cells), cells_against(cells, metric=metric)


def other_settings(studies: Sequence[StudyFrames]) -> Iterator[str]:
    """Yield what was declared otherwise than in the first study, which may be why cells differ."""
    first, *others = studies
    for other in others:
        apart = [
            f"{name} {theirs} instead of {first.settings[name]}"
            for name, theirs in other.settings.items()
            if first.settings.get(name, theirs) != theirs
        ]
        if apart:
            yield f"declared otherwise in {other.name} than in {first.name}: {', '.join(apart)}"


def _budgets(draws: CellDraws) -> str:
    rows = draws.cells[["regime", "budget"]].drop_duplicates()
    return listed([budget_text(row["regime"], row["budget"]) for row in records(rows)] or ["no result"])


def _shared(first: CellDraws, other: CellDraws) -> pd.DataFrame:
    """Return the cells that two studies share, with their positions ``place_first`` and ``place_other``.

    Budgets are the same if they cost the same but for rounding.
    """
    mine, theirs = (
        draws.cells[[*CELL]].assign(**{f"place_{which}": np.arange(len(draws.cells))})
        for which, draws in (("first", first), ("other", other))
    )
    pairs = mine.merge(theirs, on=[name for name in CELL if name != "budget"], suffixes=("", "_other"))
    apart = np.abs(np.log(pairs["budget"].to_numpy(np.float64) / pairs["budget_other"].to_numpy(np.float64)))
    near = pairs.assign(apart=apart)[apart < np.log(SAME_COST)].sort_values("apart", kind="stable")
    once: pd.DataFrame = near.drop_duplicates("place_first").drop_duplicates("place_other")
    return once.sort_values("place_first").drop(columns=["budget_other", "apart"])


def _answers(best: Mapping[str, pd.DataFrame]) -> Table:
    first, *others = best
    rows = []
    for mine in records(best[first]):
        matched = {name: _same_budget(best[name], mine) for name in others}
        theirs = {name: one for name, one in matched.items() if one is not None}
        if not theirs:
            continue
        row = {"Budget": mine["at"]}
        for name, one in {first: mine, **matched}.items():
            row[name] = "–" if one is None else f"{configuration_text(one)} ({one['verdict']})"
        changes = {name: _change(mine, one, first, name) for name, one in theirs.items()}
        named = changes if len(others) == 1 else {name: f"{name}: {text}" for name, text in changes.items()}
        row["Change"] = "; ".join(named.values())
        rows.append(row)
    note = (
        "the configuration with the lowest error at each budget, with its verdict. Within the tie: another "
        "configuration leads, but one study's leader is among those that the other can't tell apart"
    )
    return Table(name="answers", title="What changed in the answer", note=note, frame=pd.DataFrame(rows))


def _same_budget(best: pd.DataFrame, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row of the same regime and nearest budget; None if that differs by more than rounding."""
    same = best[best["regime"] == row["regime"]]
    flops = same["flops"].to_numpy(np.float64)
    if not same_cost(flops, row["flops"]).any():
        return None
    return records(same.iloc[[int(np.abs(np.log(flops / row["flops"])).argmin())]])[0]


def _change(one: Mapping[str, Any], other: Mapping[str, Any], *names: str) -> str:
    mine, theirs = (
        {tuple(cell[name] for name in CONFIGURATION) for cell in row["leaders"]} for row in (one, other)
    )
    leaders = [tuple(row[name] for name in CONFIGURATION) for row in (one, other)]
    if leaders[0] == leaders[1]:
        return "same"
    undecided = [name for name, row in zip(names, (one, other), strict=True) if row["verdict"] == "undecided"]
    if undecided:
        return "undecided in both" if len(undecided) > 1 else f"undecided in {undecided[0]}"
    return "within the tie" if leaders[0] in theirs or leaders[1] in mine else "changed"


def _differences(draws: Mapping[str, CellDraws], shared: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the shared cells with their differences from the first study, as `cells_against` takes."""
    first = next(iter(draws))
    rows = []
    for name, cells in shared.items():
        one, other = draws[first], draws[name]
        count = min(len(one.draws), len(other.draws))
        # Both studies were drawn from one stream; shuffled, their draws are independent.
        order = stream(f"comparison/{name}").permutation(count)
        for cell in records(cells):
            mine, theirs = int(cell["place_first"]), int(cell["place_other"])
            low, high = interval(other.draws[order, theirs] - one.draws[:count, mine])
            rows.append(cell | {
                "first": first, "study": name, "error": one.column("error")[mine],
                "its": other.column("error")[theirs], "low": low, "high": high,
                "verdict": _verdict(low, high),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _cells(metric: str, draws: Mapping[str, CellDraws], cells: pd.DataFrame) -> Table:
    first, *others = draws
    unit = ErrorUnit.of(metric)
    lower, higher, unknown = ((cells["verdict"] == word).sum() for word in ("lower", "higher", _UNKNOWN))
    judged = len(cells) - unknown
    other = others[0] if len(others) == 1 else "the other study"
    notes = [f"differences: the {unit.word} of {other} minus that of {first}"]
    if judged:
        notes.append(
            f"{lower + higher} of {plural(judged, 'cell')} differ by more than the noise ({higher} higher, "
            f"{lower} lower), about {format_number(0.1 * judged, '.2g')} of equal studies would"
        )
    if unknown:
        notes.append(f"{plural(unknown, 'cell')} not judged: no noise is known in one of the studies")
    for name, mine in cells.groupby("study", sort=False):
        alone = {which: len(draws[which].cells) - len(mine) for which in (first, str(name))}
        lone = " and ".join(f"{plural(count, 'cell')} of {which}" for which, count in alone.items() if count)
        notes += [f"{lone} without a counterpart in the comparison with {name}"] if lone else []
    return Table.of(
        "cells", "Cell by cell", "; ".join(notes), cells.assign(gap=cells["its"] - cells["error"]), [
            BUDGET, NAMED, column(first, "error", unit.text),
            *([column("Study", "study")] if len(others) > 1 else []),
            column(f"Its {unit.word}", "its", unit.text),
            column(unit.gap_heading_of("Difference"), "gap", unit.number),
            TextColumn("Interval", lambda cell: unit.interval(cell["low"], cell["high"])), VERDICT,
        ],
    )  # fmt: skip


def _verdict(low: float, high: float) -> str:
    if np.isnan(low):
        return _UNKNOWN
    return "lower" if high < 0 else "higher" if low > 0 else "no difference seen"


def write_comparison(folder: Path, studies: Sequence[StudyFrames]) -> tuple[str, ...]:
    """Write the page of a comparison, comparison.html, its tables and its figure.

    The files of ``folder`` are replaced. The other studies are compared with the first. Returns the answer
    as the command line prints it.

    Raises:
        ValueError: The studies can't be compared.
    """
    answers, cells, figure = compare(studies)
    settings = list(other_settings(studies))
    names = [study.name for study in studies]
    with replacing(folder) as new:
        for name in ("tables", "figures"):
            (new / name).mkdir()
        for table in (answers, cells):
            save(table, new / "tables")
        drawn = [figure] if isinstance(figure, FigureData) else []
        views = [
            {"data": one, "svg": inline_svg(save_figure(one, new / "figures"), one.name)} for one in drawn
        ]
        template = templates().get_template("comparison.html.j2")
        text = template.render(
            names=names, metric=metric_text(studies[0].metric), tables=(answers, cells), figures=views,
            settings=settings,
        )  # fmt: skip
        (new / "comparison.html").write_text(text, encoding="utf-8")
    lines = [f"{row['Budget']}: {row['Change']}: " + "; ".join(f"{name}: {row[name]}" for name in names)
             for row in records(answers.frame)]  # fmt: skip
    return (*lines, "; ".join([cells.note, *settings]))
