"""The page of a report, report.html: a single file that needs no network."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.answers.best import turns, unranked
from analysis.answers.cost import trial_hours
from analysis.answers.crossing import PAIR
from analysis.belief.curves import X_COLUMNS
from analysis.belief.verdict import clear_text
from analysis.cells.study_frames import StudyFrames
from analysis.cells.table import records
from analysis.charts.figure_data import FigureData, Missing
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    configuration_text,
    count_text,
    epochs_text,
    metric_text,
    quality_fraction,
)  # fmt: skip
from analysis.laws.best_size import undecided
from analysis.report.analyse import Analysis, TrialCounts
from analysis.report.first_screen import first_screen
from analysis.report.tables import Table, share_text
from budgets.names import one_line, printable
from budgets.quantity import plural

_SORT_COLUMNS = {
    "Budget": "budget", "Pairs": "subset_size", "Seed": "seed", "Training loss": "train_loss",
    "Samples": "samples_seen", "Epochs": "epochs", "FLOPs": "train_flops", "Parameters": "parameters",
}  # fmt: skip
_BY_VALUE = ("Learning rate", "Batch")


SECTIONS = {
    "answers": ("What to train at each budget", "Answers"),
    "choices": ("One choice at a time", "Choices"),
    "figures": ("Figures", "Figures"),
    "tables": ("Tables", "Tables"),
    "all-trials": ("All finished trials", "Trials"),
    "open": ("What this page can't say", "Not decided"),
    "provenance": ("Provenance", "Provenance"),
}
"""Sections in their order: name → heading, and entry in the contents.

A section is rendered by ``templates/section_NAME.html.j2``, which is given all that `render` is given, the
`Analysis` as ``found``. It is left out if that is blank. The name is its id in the page.
"""

FIGURE_GROUPS = {
    "Against compute": ("hero", "error-compute-"),
    "Data": ("error-data", "error-epochs", "quality"),
    "Model size": ("scaling", "isoflop"),
    "What a strategy is worth, and other measures": ("equivalence-", "shift", "retrieval", "probe"),
    "How well the laws hold": ("forecasts",),
    "How the study ran": (),
}
"""Title of a group of figures → beginnings of their names; the last group takes all others."""

_TABLES = (
    "best", "outliers", "pareto", "matters", "contrasts", "comparisons", "quality-trade", "robustness",
    "laws", "curves", "holdout", "isoflop", "exponents", "tuning", "carried-rates", "checked-rates",
    "design", "choices", "cost",
)  # fmt: skip
_NOT_SHOWN = ("trials", "missing", "left-out")
"""Tables that have a place of their own."""


def render(  # noqa: PLR0913 (a page shows as many things)
    found: Analysis,
    *,
    study: StudyFrames,
    declaration_text: str,
    figures: Sequence[FigureData | Missing],
    svgs: Mapping[str, str],
    tables: Mapping[str, Table],
    provenance: Mapping[str, str],
    made: str = "",
    reload_s: int | None = None,
) -> str:
    """Return the text of the page; takes what `report.write_report` does, and the drawn figures by name."""
    shown, _ = turns(found.best)
    environment = templates()
    groups = _groups([data for data in figures if isinstance(data, FigureData)], svgs, found)
    order = [*_TABLES, *(name for name in tables if name not in {*_TABLES, *_NOT_SHOWN})]
    shown_tables = [tables[name] for name in order if name in tables and not tables[name].frame.empty]
    context = {
        "found": found,
        "name": study.name,
        "metric": metric_text(found.trials.metric),
        "unfinished": _unfinished(found.progress),
        "first": first_screen(
            found, study.left_out, hours=trial_hours(study.events), price_per_hour=study.price_per_hour
        ),
        "cards": [_card(row, found) | {"id": f"best-{n}"} for n, row in enumerate(records(shown), 1)],
        "card_figure": next((each["data"].name for group in groups for each in group["figures"]), ""),
        "figure_groups": groups,
        "tables": tables,
        "shown_tables": shown_tables,
        "trial_keys": _sort_keys(found, tables["trials"]),
        "open_questions": open_questions(found, figures),
        "excluded": records(found.trials.excluded),
        "clear": clear_text(found.draws.confidence),
        "seeds": ", ".join(str(int(seed)) for seed in sorted(found.trials.frame["seed"].unique()))
        or "none yet",
        "declaration_text": escape(printable(declaration_text)),
        "provenance": provenance,
        "made": made,
        "reload_s": reload_s,
    }
    entries = {
        "figures": [(group["id"], group["title"]) for group in groups],
        "tables": [(f"table-{table.name}", table.title) for table in shown_tables],
    }
    sections = []
    for name, (title, menu) in SECTIONS.items():
        html = environment.get_template(f"section_{name}.html.j2").render(context)
        if html.strip():
            about = {"name": name, "title": title, "menu": menu, "entries": entries.get(name, ())}
            sections.append(about | {"html": Markup(html)})  # noqa: S704 (the environment above escapes)
    return environment.get_template("page.html.j2").render(context, sections=sections)


def _groups(figures: Sequence[FigureData], svgs: Mapping[str, str], found: Analysis) -> list[dict[str, Any]]:
    """Return the non-empty groups of figures: title, id and figures."""
    said = f"{capital(found.draws.explanation)}."
    groups: dict[str, list[dict[str, Any]]] = {title: [] for title in FIGURE_GROUPS}
    cards: dict[str, dict[str, Any]] = {}
    for data in figures:
        # The page says once what most captions end with.
        caption = data.caption.replace(said, "").strip()
        view = {"data": data, "svg": inline_svg(svgs[data.name], data.name), "caption": caption}
        cards[data.name] = {"data": data, "views": [view]}
        fits = (title for title, starts in FIGURE_GROUPS.items() if data.name.startswith(starts))
        groups[next(fits, list(FIGURE_GROUPS)[-1])].append(cards[data.name])
    return [
        {"title": title, "id": f"figures-{number}", "figures": mine}
        for number, (title, mine) in enumerate(groups.items(), 1)
        if mine
    ]


def inline_svg(svg: str, name: str) -> Markup:
    """Return a drawn figure for use inside a page.

    The prologue and the namespaces are only for standalone files. Ids get the figure's name as prefix,
    because ids must be unique in a page. The SVG comes from matplotlib, which escapes the texts that it
    draws.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", body).replace("xlink:href", "href")
    body = re.sub(r'\bid="', f'id="{name}.', body)
    body = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}.", body)
    body = body.replace("<svg", '<svg focusable="false"', 1)
    return Markup(body)  # noqa: S704 (drawn here; see the docstring)


def templates() -> Environment:
    """Return the environment of the templates of pages; an unknown name in a template is an error."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=StrictUndefined, finalize=_unbroken, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def _unbroken(value: object) -> object:
    """Return a text on one line, and with no break before a percent sign; markup stays as it is."""
    return one_line(value).replace(" %", "\u00a0%") if type(value) is str else value


def _card(row: Mapping[Any, Any], found: Analysis) -> dict[str, Any]:
    """Return a row of the best configurations with the texts of its card."""
    unit, probability = found.draws.error_unit, float(row["probability"])
    return {
        **row,
        "parts": [axis_text(axis, row[axis]) for axis in ("strategy", "subset_size", "quality")],
        "samples": count_text(row["samples_seen"]),
        "epochs": epochs_text(row["epochs"]),
        "measured": unit.text(row["error"]),
        "ends": unit.interval(row["low"], row["high"]),
        "share": share_text(probability),
        "width": 0.0 if pd.isna(probability) else 100 * probability,
        "runner_up_error": unit.text(row["runner_up_error"]),
        "tied": [text for text in row["tied"].split("; ") if text],
        "runs": int(row["runs"]),
        "trials": budget_text(row["regime"], row["budget"]),
    }


def _unfinished(progress: TrialCounts) -> str:
    """Return the progress of an unfinished study in words; empty if all trials have run."""
    if not progress.waiting + progress.begun:
        return ""
    begun = f", {progress.begun} begun" if progress.begun else ""
    return f"{progress.finished:,} of {plural(progress.planned, 'trial')} have a result{begun}"


def _sort_keys(found: Analysis, table: Table) -> list[dict[str, float]]:
    """Return the sort keys of each trial, in row order, for columns whose text does not sort by value."""
    columns = _SORT_COLUMNS | {found.draws.error_unit.heading: "error"}
    return [
        {head: float(row[column]) for head, column in columns.items()}
        | {"Quality": quality_fraction(str(row["quality"]))}
        | {head: float(shown[head]) for head in _BY_VALUE if shown[head] != "–"}
        for row, shown in zip(records(found.trials.frame), records(table.frame), strict=True)
    ]


def open_questions(found: Analysis, figures: Sequence[FigureData | Missing]) -> list[str]:
    """Return the questions that the study does not decide, a sentence each."""
    said = []
    if not found.draws.known and len(found.draws.cells):
        said.append(f"Uncertainty: {found.draws.explanation}.")
    for row in records(turns(found.best)[0]):
        if row["verdict"] != "clear":
            tied = f": {row['tied']}" if row["verdict"] == "tie" else ""
            said.append(f"The best at {row['at']}: {row['reason']}{tied}.")
    said += [f"The best at {text}." for text in unranked(found.draws)]
    said += [
        f"{missing.title}: not drawn: {missing.reason}."
        for missing in figures
        if isinstance(missing, Missing)
    ]
    for along in X_COLUMNS:
        statuses = Counter(law.status for law in found.laws if law.along == along)
        if count := statuses["no decrease"]:
            said.append(f"Curves over {along}: {count} of {plural(statuses.total(), 'curve')} with no fall.")
    if found.holdout.reason and len(found.draws.cells):
        said.append(f"How well the joint law forecasts: {found.holdout.reason}.")
    pairs = found.comparisons.drop_duplicates([*PAIR]) if len(found.comparisons) else found.comparisons
    pending = Counter(row["along"] for row in records(pairs) if row["crossing"] == "undecided")
    said += [
        f"Crossovers along {along}: {plural(count, 'pair')} of curves undecided."
        for along, count in pending.items()
    ]
    said += [
        f"Best model size at {budget_text('fixed-compute', one.identity['budget'])} "
        f"({configuration_text({**one.identity, 'architecture': one.identity['family']})}): {one.reason}."
        for one in found.profiles
        if one.status == "minimum at the edge"
    ]
    return said + undecided(found.exponents)
