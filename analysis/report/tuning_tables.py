"""The tables of a tuning (winners, rates carried on, rates checked), of an imported sweep and of a design."""

from collections.abc import Iterator, Mapping
from math import isnan
from typing import Any

import pandas as pd

from analysis.cells.study_frames import TUNED_COLUMN, Tuned
from analysis.cells.table import records
from analysis.charts.tuning_figures import field_label
from analysis.design.course import CHOSEN, decisions, each_answer
from analysis.error_unit import PERCENT, ErrorUnit
from analysis.labels import axis_text, budget_text, capital, configuration_text, interval_text, metric_text
from analysis.report.tables import Table
from budgets.planning.tuning_plan import values_words
from budgets.quantity import format_flops, plural


def tuning_tables(tuned: Tuned) -> Iterator[Table]:
    """Yield the winners of a tuning, the rates that were carried on, and those that were checked."""
    yield tuning(tuned)
    if tuned.at_chance:
        yield Table(
            name="tuning-at-chance",
            title="Tuning at chance",
            note="no value is chosen from results that a model which learned nothing could have",
            frame=pd.DataFrame({"Results": list(map(capital, tuned.at_chance))}),
        )
    if tuned.carried:
        yield Table(
            name="carried-rates",
            title="Learning rates carried on",
            note="peak learning rates on the line through two tuned ones in logarithms; 90 % intervals, from "
            "the noise of the values tried",
            frame=pd.DataFrame([_carried(line, rate) for line in tuned.carried for rate in line["rates"]]),
        )
    if tuned.check_flops:
        yield Table(
            name="checked-rates",
            title="Tuned learning rates at a larger level",
            note="; ".join(_check_notes(tuned)),
            frame=pd.DataFrame(list(map(_checked, tuned.checks))),
        )


def _carried(line: Mapping[str, Any], rate: Mapping[str, Any]) -> dict[str, str]:
    level = "–" if rate["level_flops"] is None else format_flops(rate["level_flops"])
    return {
        "Architecture": rate["architecture"], "Strategy": axis_text("strategy", line["strategy"]),
        "Level": level, "Peak learning rate": f"{rate['lr_peak']:.3g}",
        "Interval": f"[{rate['low']:.2g}, {rate['high']:.2g}]",
        "Tuned here": "yes" if rate["tuned"] else "no",
        "Exponent": f"{line['exponent']:.2f} [{line['low']:.2f}, {line['high']:.2f}]",
    }  # fmt: skip


def _check_notes(tuned: Tuned) -> Iterator[str]:
    yield f"the tuned rate and its neighbours, by {metric_text(tuned.metric)}"
    yield f"moved: another rate is better by more than {tuned.noise}"
    yield f"{format_flops(tuned.check_paid)} of {format_flops(tuned.check_flops)} set aside were paid"
    for row in map(_checked, tuned.checks):
        where = f"{row['Architecture']} with {row['Strategy']} at {row['Level']}"
        own = "diverged" if row["Its error (%)"] == "diverged" else f"one of {row['Its error (%)']} %"
        if row["Verdict"] == "moved":
            best = f"{row['Best of three']} has an error of {row['Error (%)']} %"
            yield f"no longer the best for {where}: {best}, the tuned {row['Tuned']} {own}"
        elif row["Verdict"] == "diverged":
            yield f"training of {where} diverged at the tuned rate {row['Tuned']} and both neighbours"
    yield from (f"not checked: {said}" for said in tuned.left_out)


def _checked(check: Mapping[str, Any]) -> dict[str, str]:
    cell, won = check["cell"], check["winner"]
    row = {
        "Architecture": cell["architecture"], "Strategy": axis_text("strategy", cell["strategy"]),
        "Level": format_flops(cell["level_flops"]), "Tuned": f"{check['lr_peak']:g}",
        "Its error (%)": "diverged" if check["score"] is None else PERCENT.number(1 - check["score"]),
    }  # fmt: skip
    if won is None:
        return row | {"Best of three": "–", "Error (%)": "diverged", "Verdict": "diverged"}
    still = won["values"]["lr_peak"] == check["lr_peak"]
    return row | {
        "Best of three": f"{won['values']['lr_peak']:g}", "Error (%)": PERCENT.number(1 - won["score"]),
        "Verdict": "still the best" if still else "moved" if check["moved"] else "tie",
    }  # fmt: skip


def tuning(tuned: Tuned) -> Table:
    """Return the tuned values of each architecture and strategy."""
    rows = [
        {
            "Architecture": won["architecture"],
            "Strategy": axis_text("strategy", won["strategy"]),
            "Winner": values_words(won["values"]),
            "Error (%)": PERCENT.number(1 - won["score"]),
            "Runner-up": values_words(won["runner_up"]),
            "Its error (%)": "diverged"
            if won["runner_up_score"] is None
            else PERCENT.number(1 - won["runner_up_score"]),
            "Verdict": "tie" if won["tie"] else "ahead" if tuned.one_seed else "clear",
            "Note": "; ".join(_tuning_notes(won)) or "–",
        }
        for won in tuned.winners
    ]
    note = (
        f"selected by {metric_text(tuned.metric)}; {plural(len(tuned.tried), 'trial')}; "
        f"{'ahead' if tuned.one_seed else 'clear: ahead'} of the runner-up by more than {tuned.noise}"
    )
    return Table(name="tuning", title="Tuning", note=note, frame=pd.DataFrame(rows))


def _tuning_notes(won: Mapping[str, Any]) -> list[str]:
    beyond = "the best value lies at the edge of those tried; the optimum may lie beyond"
    widened = "range widened, since the best value first lay at its edge"
    return [
        *(f"also for {name}" for name in won.get("serves", ())),
        *(f"{field_label(name)}: {beyond}" for name in won["at_edge"]),
        *(f"{field_label(name)}: {widened}" for name in won["widened"]),
    ]


def design_tables(events: pd.DataFrame) -> Iterator[Table]:
    """Yield the course of a design and its choices; nothing for a study without one."""
    if events.empty or not (events["event"] == CHOSEN).any():
        return
    rows = [
        {
            "Spent": format_flops(decision["spent_flops"]),
            "Asked": f"{one['kind']} at {format_flops(one['flops'])}",
            "Leader": one["leader"],
            "Error (%)": f"{PERCENT.number(one['error'])} {PERCENT.interval(one['low'], one['high'])}",
            "P(best)": f"{one['probability']:.2f}",
            "Verdict": one["verdict"],
            "Answered": "yes" if one["settled"] else "no",
            "Dropped now": "; ".join(new) or "–",
        }
        for decision, one, new in each_answer(decisions(events))
    ]
    yield Table(
        name="design",
        title="Course of the adaptive design",
        note="Answers at each decision, from joint draws of the errors of all configurations, run or not. "
        "Dropped: best within the indifference in fewer than one of 200 draws.",
        frame=pd.DataFrame(rows, columns=[
            "Spent", "Asked", "Leader", "Error (%)", "P(best)", "Verdict", "Answered", "Dropped now"
        ]),
    )  # fmt: skip
    chosen = records(events[events["event"] == CHOSEN])
    yield Table(
        name="choices",
        title="Choices of the adaptive design",
        note="Each chosen trial, what it cost the study, and why it was chosen.",
        frame=pd.DataFrame([
            {"Trial": row["trial"], "Cost": format_flops(row["cost_flops"], digits=3), "Reason":
            row["reason"]} for row in chosen
        ]),
    )  # fmt: skip


def sweep_table(tried: pd.DataFrame, unit: ErrorUnit) -> Table:
    """Return what was tried in each cell of an imported sweep, from the table of `sweeps.choose`."""
    keys = [name for name in map(str, tried.columns) if name.startswith(TUNED_COLUMN)]
    fields = {key.removeprefix(TUNED_COLUMN): key for key in keys}
    numbers = [name for name in fields if f"{name}_optimum" in tried]
    rows = [
        {
            "Budget": budget_text(row["regime"], row["budget"]), "Configuration": configuration_text(row),
            "Runs": f"{row['runs']:,}", "Diverged": f"{row['diverged']:,}",
            "Best as measured": unit.number(row["best"], fine=True),
            "Without the bias": unit.number(row["error"], fine=True),
            "Standard error": unit.number(row["standard_error"], fine=True),
            **{
                name: row[key] if isinstance(row[key], str) else f"{row[key]:.4g}"
                for name, key in fields.items()
            },
            "Optimum": "; ".join(
                f"{name} {row[f'{name}_optimum']:.3g} "
                + interval_text(row[f"{name}_low"], row[f"{name}_high"], ".3g")
                for name in numbers if not isnan(row[f"{name}_optimum"])
            ) or "–",
            "Undertuned": row.get("flag") or "–",
        }
        for row in records(tried)
    ]  # fmt: skip
    note = (
        "the best of a cell's runs is too good by the noise that it was chosen for. Without the bias: the "
        "mean of the surface over the hyper-parameters at the chosen run, given all runs. Optimum, where the "
        "runs show it, with its 90 % interval"
    )
    return Table(name="sweep", title="What was tried", note=note, frame=pd.DataFrame(rows))
