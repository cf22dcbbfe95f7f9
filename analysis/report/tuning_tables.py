"""The tables of a tuning (winners, rates carried on, rates checked), of an imported sweep and of a design."""

from collections.abc import Iterator, Mapping
from math import isnan, nan
from typing import Any

import pandas as pd

from analysis.cells.study_frames import TUNED_COLUMN, Tuned
from analysis.cells.table import records
from analysis.charts.tuning_figures import field_label
from analysis.design.course import CHOSEN
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.labels import capital, interval_text, metric_text
from analysis.report.tables import BUDGET, NAMED, PARTS, REASON, Table, TextColumn, column, interval, number
from budgets.planning.tuning_plan import values_words
from budgets.quantity import format_flops, format_number, plural


def sweep_table(tried: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return what was tried in each cell of an imported sweep, from the table of `sweeps.choose`."""
    fields = [name.removeprefix(TUNED_COLUMN) for name in tried.columns if name.startswith(TUNED_COLUMN)]

    def fine(value: float) -> str:
        return unit.number(value, fine=True)

    def value(x: object) -> str:
        return format_number(x, ".4g") if isinstance(x, float) else str(x)

    def optimum(row: Mapping[str, Any]) -> str:
        at = {name: row.get(f"{name}_optimum", nan) for name in fields}
        return "; ".join(
            f"{name} {format_number(x, '.3g')} "
            f"{interval_text(row[f'{name}_low'], row[f'{name}_high'], '.3g')}"
            for name, x in at.items() if not isnan(x)
        )  # fmt: skip

    return Table.of(
        "sweep", "What was tried",
        "Without the bias: the mean of the surface over the hyper-parameters at the chosen run, given all "
        "runs; the best of several runs is too good by the noise that it was chosen for",
        tried, [
            BUDGET, NAMED, column("Runs", "runs", "{:,}".format),
            column("Diverged", "diverged", "{:,}".format),
            column("Best as measured", "best", fine), column("Without the bias", "error", fine),
            column("Standard error", "standard_error", fine),
            *(column(name, TUNED_COLUMN + name, value) for name in fields),
            TextColumn("Optimum", optimum), TextColumn("Undertuned", lambda row: row.get("flag") or ""),
        ],
    )  # fmt: skip


def tuning_tables(tuned: Tuned) -> Iterator[Table]:
    """Yield the winners of a tuning, the rates that were carried on, and those that were checked."""
    model, strategy = PARTS[:2]
    verdict = "ahead" if tuned.one_seed else "clear"
    yield Table.of(
        "tuning", "Tuning",
        f"Selected by {metric_text(tuned.metric)}; {plural(len(tuned.tried), 'trial')}; {verdict}"
        f"{'' if tuned.one_seed else ': ahead'} of the runner-up by more than {tuned.noise}",
        tuned.winners, [
            model, strategy, column("Winner", "values", values_words),
            TextColumn("Error (%)", lambda won: _score(won, "score")),
            column("Runner-up", "runner_up", values_words),
            TextColumn("Its error (%)", lambda won: _score(won, "runner_up_score")),
            TextColumn("Verdict", lambda won: "tie" if won["tie"] else verdict),
            TextColumn("Note", lambda won: "; ".join(_tuning_notes(won))),
        ],
    )  # fmt: skip
    if tuned.at_chance:
        yield Table.of(
            "tuning-at-chance", "Tuning at chance", "No value is chosen from results at chance",
            tuned.at_chance, [TextColumn("Results", capital)],
        )  # fmt: skip
    if tuned.carried:
        yield Table.of(
            "carried-rates", "Learning rates carried on",
            "Peak learning rates on the line through two tuned ones in logarithms",
            [
                {**line, **rate, "ends": (line["low"], line["high"])}
                for line in tuned.carried for rate in line["rates"]
            ], [
                model, strategy, column("Level", "level_flops", format_flops),
                column("Peak learning rate", "lr_peak", number(".3g")),
                interval("Interval", lambda low, high: interval_text(low, high, ".2g")),
                TextColumn("Tuned here", lambda rate: "yes" if rate["tuned"] else "no"),
                column("Exponent", "exponent", number(".2f")),
                TextColumn("Its interval", lambda rate: interval_text(*rate["ends"])),
            ],
        )  # fmt: skip
    if tuned.check_flops:
        yield Table.of(
            "checked-rates", "Tuned learning rates at a larger level", "; ".join(_check_notes(tuned)),
            [{**check, **check["cell"]} for check in tuned.checks], [
                model, strategy, column("Level", "level_flops", format_flops),
                column("Tuned", "lr_peak", "{:g}".format),
                TextColumn("Its error (%)", lambda check: _score(check, "score")),
                TextColumn("Best of three", _best_of_three),
                TextColumn("Error (%)", lambda check: _score(check["winner"] or {"score": None}, "score")),
                TextColumn("Verdict", _check_verdict),
            ],
        )  # fmt: skip


def _score(row: Mapping[str, Any], name: str) -> str:
    return "diverged" if row[name] is None else PERCENT.number(1 - row[name])


def _best_of_three(check: Mapping[str, Any]) -> str:
    return "" if check["winner"] is None else f"{check['winner']['values']['lr_peak']:g}"


def _check_verdict(check: Mapping[str, Any]) -> str:
    if check["winner"] is None:
        return "diverged"
    if check["winner"]["values"]["lr_peak"] == check["lr_peak"]:
        return "still the best"
    return "moved" if check["moved"] else "tie"


def _check_notes(tuned: Tuned) -> Iterator[str]:
    yield f"The tuned rate and its neighbours, by {metric_text(tuned.metric)}"
    yield f"moved: another rate is better by more than {tuned.noise}"
    yield f"{format_flops(tuned.check_paid)} of {format_flops(tuned.check_flops)} set aside were paid"
    yield from (f"not checked: {reason}" for reason in tuned.left_out)


def _tuning_notes(won: Mapping[str, Any]) -> list[str]:
    beyond = "the best value lies at the edge of those tried; the optimum may lie beyond"
    widened = "range widened, since the best value first lay at its edge"
    return [
        *(f"also for {name}" for name in won.get("serves", ())),
        *(f"{field_label(name)}: {beyond}" for name in won["at_edge"]),
        *(f"{field_label(name)}: {widened}" for name in won["widened"]),
    ]


def choices_table(events: pd.DataFrame) -> Table:
    """Return the choices of an adaptive design, from the events of a study's runs."""
    chosen = records(events[events["event"] == CHOSEN]) if len(events) else []
    return Table.of(
        "choices", "Choices of the adaptive design", "Each chosen trial, its cost, and why it was chosen",
        chosen, [column("Trial", "trial"), column("Cost", "cost_flops", format_flops), REASON],
    )  # fmt: skip
