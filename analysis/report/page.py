"""The page of a report, report.html: a single file that needs no network."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.answers.frontier import turns
from analysis.cells.table import is_loss, records
from analysis.charts.figure_data import FigureData, Missing
from analysis.labels import (
    axis_text,
    budget_text,
    configuration_text,
    count_text,
    measured_text,
    metric_text,
    percent_interval,
    plural,
    quality_fraction,
)  # fmt: skip
from analysis.report.analyse import Analysis, TrialCounts
from analysis.report.tables import Table, share_text
from analysis.sizes.scaling_exponents import undecided
from budgets.quantity import format_flops

_SORT_COLUMNS = {
    "Budget": "budget", "Pairs": "subset_size", "Seed": "seed", "Error (%)": "error", "Loss": "train_loss",
    "Samples": "samples_seen", "Epochs": "epochs", "FLOPs": "train_flops",
}  # fmt: skip


def render(  # noqa: PLR0913 (a page shows as many things)
    found: Analysis,
    *,
    name: str,
    declaration_text: str,
    figures: Sequence[FigureData | Missing],
    svgs: Mapping[str, str],
    tables: Mapping[str, Table],
    provenance: Mapping[str, str],
) -> str:
    """Return the text of the page.

    Args:
        found: Analysis of the study.
        name: Name of the study.
        declaration_text: Declaration as the user wrote it.
        figures: Figures in their order.
        svgs: Name → drawn figure.
        tables: Name → table.
        provenance: Names and values, shown as they are.
    """
    shown, more = turns(found.frontier)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        name=name,
        imported=found.imported,
        metric=metric_text(found.trials.metric),
        unfinished=_unfinished(found.progress),
        loss=is_loss(found.trials.metric),
        cards=[_card(row, found) for row in records(shown)],
        more=more,
        explanation=found.draws.explanation,
        facts=_facts(found),
        statements=found.statements,
        figures=[
            {"data": data, "svg": inline_svg(svgs[data.name], data.name)}
            for data in figures
            if isinstance(data, FigureData)
        ],
        tables=tables,
        trial_keys=_sort_keys(found.trials.frame),
        open_questions=open_questions(found, figures),
        excluded=records(found.trials.excluded),
        seeds=", ".join(str(int(seed)) for seed in sorted(found.trials.frame["seed"].unique())) or "none yet",
        declaration_text=escape(declaration_text),
        provenance=dict(provenance),
    )


def _unbroken(value: object) -> object:
    """Return a text without line breaks before percent signs; markup stays as it is."""
    return value.replace(" %", "\u00a0%") if type(value) is str else value


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
    body = body.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return Markup(body)  # noqa: S704 (drawn here; see the docstring)


def _card(row: Mapping[Any, Any], found: Analysis) -> dict[str, Any]:
    source = found.draws.source
    what, _, value = measured_text(found.trials.metric, row["error"]).partition(" ")
    probability = float(row["probability"])
    ends = percent_interval(row["low"], row["high"])
    return {
        "budget": row["at"],
        "regime": row["regime"],
        "architecture": row["architecture"],
        "parts": [axis_text(axis, row[axis]) for axis in ("strategy", "subset_size", "quality")],
        "samples": count_text(row["samples_seen"]),
        "epochs": f"{row['epochs']:.1f}",
        "measured": value,
        "what": what,
        "ends": ends,
        "ends_are": "90 % interval" if source == "runs" else "counting noise only, a lower bound",
        "share": share_text(probability),
        "width": 0.0 if pd.isna(probability) else 100 * probability,
        "share_is": "P(best)" if source == "runs" else "P(best) from counting noise alone",
        "runner_up": row["runner_up"],
        "runner_up_error": measured_text(found.trials.metric, row["runner_up_error"]).partition(" ")[2],
        "verdict": row["verdict"],
        "reason": row["reason"],
        "scope": row["scope"],
        "tied": [text for text in row["tied"].split("; ") if text],
        "runs": int(row["runs"]),
    }


def _unfinished(progress: TrialCounts) -> str:
    """Return the progress of an unfinished study in words; empty if all trials have run."""
    if not progress.waiting + progress.begun:
        return ""
    begun = f", {progress.begun} begun" if progress.begun else ""
    return f"{progress.finished:,} of {plural(progress.planned, 'trial')} have a result{begun}"


def _facts(found: Analysis) -> list[dict[str, Any]]:
    cost, progress = found.cost, found.progress
    if found.imported:
        value = f"{progress.finished:,}"
        return [{"name": "Trials imported", "value": value, "note": found.imported, "part": None}]
    note, part = "", None
    if cost.budget_flops > 0:
        part = cost.booked_flops / cost.budget_flops
        note = f"training took {part:.0%} of the study budget, {format_flops(cost.budget_flops)}"
    elif cost.planned_flops + cost.charged_flops > 0:
        whole = cost.planned_flops + cost.charged_flops
        part = cost.spent_flops / whole
        note = f"{part:.0%} of the plan, {format_flops(whole)}"
    if cost.wasted_flops > 0:
        note += f"; {format_flops(cost.wasted_flops)} wasted"
    spent = {"name": "Compute spent", "value": format_flops(cost.spent_flops), "note": note, "part": part}
    done = progress.finished / progress.planned if progress.planned else 0.0
    notes = [f"{progress.begun} begun"] if progress.begun else []
    notes += [f"{progress.waiting} not run yet"] if progress.waiting else []
    notes += [f"{progress.excluded} without a result"] if progress.excluded else []
    facts: list[dict[str, Any]] = [
        {
            "name": "Trials finished", "value": f"{progress.finished} of {progress.planned}",
            "note": "; ".join(notes) or "all planned trials", "part": done,
        },
        spent,
    ]  # fmt: skip
    time = cost.time
    if not isnan(time.wall_s):
        note, part = f"{duration_text(time.busy_s)} in trials", time.busy
        if part is not None:
            up_to = "up to " if round(time.slot_s) < round(time.slots * time.wall_s) else ""
            note = f"{up_to}{plural(time.slots, 'slot')}, {part:.0%} busy"
        facts.append({"name": "Time", "value": duration_text(time.wall_s), "note": note, "part": part})
    return facts


def duration_text(seconds: float) -> str:
    """Return seconds as text: ``75`` → ``1 min 15 s``."""
    whole = 0 if pd.isna(seconds) else round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _sort_keys(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Return the sort keys of each trial, in row order, for columns whose text does not sort by value."""
    return [
        {head: float(row[column]) for head, column in _SORT_COLUMNS.items()}
        | {"Quality": quality_fraction(str(row["quality"]))}
        for row in records(frame)
    ]


def open_questions(found: Analysis, figures: Sequence[FigureData | Missing]) -> list[str]:
    """Return the questions that the study does not decide, a sentence each."""
    said = []
    if found.draws.source != "runs" and len(found.draws.cells):
        said.append(f"Uncertainty: {found.draws.explanation}.")
    for row in records(turns(found.frontier)[0]):
        where = f"The best at {row['at']}"
        if row["verdict"] != "clear":
            tied = f": {row['tied']}" if row["verdict"] == "tie" else ""
            said.append(f"{where}: {row['reason']}{tied}.")
    said += [
        f"{missing.title}: not drawn: {missing.reason}."
        for missing in figures
        if isinstance(missing, Missing)
    ]
    for along, word in (("compute", "over compute"), ("data", "over data")):
        statuses = Counter(law.fit.status for law in found.laws if law.along == along)
        said += [
            f"Laws {word}: {count} of {plural(statuses.total(), 'curve')} {_LAW_WORDS[status]}."
            for status, count in statuses.items()
            if status in _LAW_WORDS
        ]
    if found.holdout.reason and len(found.draws.cells):
        said.append(f"Which law forecasts best: {found.holdout.reason}.")
    pending = Counter(row["along"] for row in records(found.crossovers) if row["verdict"] == "undecided")
    said += [
        f"Crossovers along {along}: {plural(count, 'pair')} of curves undecided."
        for along, count in pending.items()
    ]
    said += [
        f"Best model size at {budget_text('fixed-compute', curve.identity['budget'])} "
        f"({configuration_text({**curve.identity, 'architecture': curve.identity['family']})}): "
        f"{curve.profile.reason}."
        for curve in found.profiles
        if curve.profile.status not in ("ok", "one seed", "too few sizes")
    ]
    return said + undecided(found.exponents)


_LAW_WORDS = {
    "saturated": "have as many levels as their law has parameters, so that it cannot be tested",
    "untested": "have four levels or fewer, too few to test their laws on held-out levels",
    "lack of fit": "miss their points by more than the noise, which the intervals include",
    "floor undetermined": "show no floor",
    "exponent at bound": "follow no power law with an exponent within the bounds",
    "no decrease": "do not fall",
    "misfit": "have a law that misses by over two points, or by more than each level carried forward",
    "too few levels": "have fewer than three levels and no law",
}
