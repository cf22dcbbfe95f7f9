"""The page of a report, report.html: a single file that needs no network."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from analysis.answers.best import unranked
from analysis.belief.verdict import clear_text
from analysis.charts.figure_data import FigureData, Missing
from analysis.labels import capital, metric_text
from analysis.laws.best_size import undecided
from analysis.report.analyse import Analysis
from analysis.report.first_screen import cost_texts, first_screen
from analysis.report.summary import no_answer
from analysis.report.tables import Table
from budgets.names import one_line, printable

FIRST_FIGURE = "hero"
MAIN_FIGURES = (
    "error-compute-architecture", "error-compute-strategy", "error-data", "quality", "isoflop"
)  # fmt: skip
"""Figures that are open under the one of the first screen; all others are under "More figures"."""

MAIN_TABLES = ("best", "matters", "contrasts", "laws", "cost")
"""Tables of which the first four that a study has are open; all others are under "More tables"."""
_OPEN_TABLES = 4

GLOSSARY = {
    "budget": "Training compute of one trial, in FLOPs.",
    "cell": "Runs that differ only in their seed; its error is their mean.",
    "interval": "The range, in brackets, that holds the true value in 90 % of the draws.",
    "draw": "One set of true errors of all configurations that the data allow; thousands are drawn.",
    "P(best)": "Share of the draws in which a configuration has the lowest error of its budget.",
    "clear": "One configuration is the lowest in nearly all draws; by forecast: far from its runs.",
    "tie": "Several configurations that the noise does not separate from the leader.",
    "undecided": "The runs so far do not decide.",
    "beaten": "A trial that costs less has a lower error.",
    "points": "Percentage points of error.",
    "epochs": "Samples seen ÷ unique pairs: how often each pair was seen.",
    "law": "The error as a joint function of model size and samples seen, with effects of architecture, "
    "strategy and quality; its lines and bands are the draws.",
    "forecast": "The law beyond the data; tested by refitting it without the largest budgets.",
    "frontier": "The lowest error that any configuration reaches at a compute.",
    "IsoFLOP": "Models of several sizes trained at one budget; a lowest point inside is the best size.",
    "trunk state": "The weights of a trunk where a level branches off, evaluated without a cooldown.",
    "weight average": "The mean of a trunk's weights over its last steps.",
    "trunk": "One run at a constant learning rate, from which each level branches off with a cooldown; its "
    "errors differ somewhat from those of runs with a schedule of their own.",
}
"""Term → its meaning, a tooltip where a text uses the term first, and on a page that uses it in a list."""
_NAMES = "|".join(map(re.escape, GLOSSARY)).replace("points", r"(?<=[\d(] )points|(?<=\()points")
_TERM = re.compile(rf"(?<![\w-])({_NAMES})s?(?![\w-])", re.IGNORECASE)
_WHOLE = re.compile(r" %|\[[^\[\]]{1,24}\]")
_TERMS = {term.lower(): term for term in GLOSSARY}


def render(  # noqa: PLR0913 (a page shows as many things)
    analysis: Analysis,
    *,
    declaration_text: str,
    figures: Sequence[FigureData | Missing],
    svgs: Mapping[str, str],
    tables: Mapping[str, Table],
    provenance: Mapping[str, str],
    reload_s: int | None = None,
) -> str:
    """Return the text of the page; takes what `report.write_report` does, and the drawn figures by name."""
    drawn = {figure.name: figure for figure in figures if isinstance(figure, FigureData)}
    views = {name: {"data": data, "svg": inline_svg(svgs[name], name)} for name, data in drawn.items()}
    main = [tables[name] for name in MAIN_TABLES if name in tables][:_OPEN_TABLES]
    context = {
        "found": analysis,
        "name": analysis.study.name,
        "metric": metric_text(analysis.trials.metric),
        "first": first_screen(analysis),
        "no_answer": no_answer(analysis),
        "hero": views.get(FIRST_FIGURE),
        "main_figures": [views[name] for name in MAIN_FIGURES if name in views],
        "more_figures": [views[name] for name in views if name not in (FIRST_FIGURE, *MAIN_FIGURES)],
        "main_tables": main,
        "more_tables": [one for one in tables.values() if one not in main and one.name != "trials"],
        "trials": tables["trials"],
        "cost": analysis.study.imported or cost_texts(analysis),
        "open_questions": open_questions(analysis, figures),
        "clear": clear_text(analysis.draws.confidence),
        "declaration_text": escape(printable(declaration_text)),
        "provenance": provenance,
        "reload_s": reload_s,
    }
    return templates().get_template("page.html.j2").render(context)


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
        undefined=StrictUndefined, finalize=_unbroken, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    used = set[str]()
    environment.filters |= {"terms": partial(with_terms, used=used), "sentence": _sentence}
    environment.globals["used"] = used
    environment.globals["glossary"] = {term: (_id(term), meaning) for term, meaning in GLOSSARY.items()}
    return environment


def with_terms(text: str, *, used: set[str]) -> Markup:
    """Return a text in which the first use of each term of the glossary has its meaning as a tooltip.

    The term links to the glossary, so that its meaning can be had by the keyboard and on a phone; ``used``
    collects the terms of a page.
    """
    seen = set[str]()

    def marked(use: re.Match[str]) -> str:
        term = _TERMS[use[1].lower()]
        if term in seen:
            return use[0]
        seen.add(term)
        used.add(term)
        return f'<a class="term" href="#{_id(term)}" title="{escape(GLOSSARY[term])}">{use[0]}</a>'

    return Markup(_TERM.sub(marked, str(escape(_unbroken(text)))))  # noqa: S704 (escaped)


def _id(term: str) -> str:
    return "term-" + re.sub(r"\W+", "-", term).strip("-").lower()


def _sentence(text: str) -> str:
    """Return a text as a sentence: with a capital, and a full stop."""
    return f"{capital(text).rstrip('.')}." if text else ""


def _unbroken(value: object) -> object:
    """Return a text on one line that breaks neither before a percent sign nor within an interval.

    Markup stays as it is.
    """
    if type(value) is not str:
        return value
    return _WHOLE.sub(lambda whole: whole[0].replace(" ", "\u00a0"), one_line(value))


def open_questions(analysis: Analysis, figures: Sequence[FigureData | Missing]) -> list[str]:
    """Return what the study does not decide and no table has, a sentence each."""
    texts = [f"The best at {text}." for text in unranked(analysis.draws)]
    texts += [f"{data.title}: not drawn: {data.reason}." for data in figures if isinstance(data, Missing)]
    if analysis.holdout.reason and len(analysis.draws.cells):
        texts.append(f"How well the joint law forecasts: {analysis.holdout.reason}.")
    return texts + undecided(analysis.exponents)
