"""The tables of a report, each a frame of the analysis and its columns."""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from math import isinf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd

from analysis.answers.cost import score_costs, score_text
from analysis.answers.crossing import PAIR
from analysis.belief.verdict import clear_text
from analysis.cells.intervals import QUANTILE
from analysis.cells.table import records, repeated
from analysis.charts.answer_figures import part_text, share_text
from analysis.error_unit import PERCENT, ErrorUnit, is_loss
from analysis.labels import (
    axis_text,
    budget_text,
    capital,
    count_text,
    fixed_factors_text,
    interval_text,
    level_text,
    metric_text,
    x_text,
)
from analysis.laws.holdout import ORIGINS
from analysis.report.analyse import Analysis
from analysis.report.tables import (
    BUDGET,
    EPOCHS,
    FLOPS,
    NAMED,
    PARTS,
    REASON,
    STATUS,
    VERDICT,
    Table,
    TextColumn,
    column,
    errors,
    interval,
    number,
    probability_text,
)  # fmt: skip
from analysis.report.tuning_tables import choices_table, sweep_table, tuning_tables
from budgets.planning.scoring import score_charges
from budgets.quantity import format_flops, format_number, format_seconds, format_share, plural
from runners.results import PHASE

_MOST_COMPARED = 300  # rows of two options each, beyond which one row a pair is shown
_PARAMETERS = {
    "E": "E", "alpha": "α, of size", "beta": "β, of samples", "gamma": "γ", "epochs": "R*, epochs",
}  # fmt: skip


def report_tables(analysis: Analysis) -> tuple[Table, ...]:
    """Return the tables of a report that have a row, and that of the trials."""
    unit, study, tuned = analysis.draws.error_unit, analysis.study, analysis.study.tuned
    tables = chain(
        _answers(analysis, unit),
        _laws(analysis, unit),
        _what_was_run(analysis, unit),
        [] if study.sweeps.empty else [sweep_table(study.sweeps, unit)],
        [] if tuned is None or tuned.tried.empty else tuning_tables(tuned),
        [choices_table(study.events)],
    )
    return tuple(table for table in tables if len(table.frame) or table.name == "trials")


def best_table(analysis: Analysis, best: pd.DataFrame) -> Table:
    """Return the table of the best configuration at each budget, or at some of them."""
    unit = analysis.draws.error_unit
    return Table.of(
        "best", "Best configuration at each budget",
        f"{capital(metric_text(analysis.trials.metric))}. {clear_text(analysis.draws.confidence)}",
        best, [
            column("Budget", "at"), *PARTS, EPOCHS, *errors(unit),
            column("P(best)", "probability", probability_text), column("Runner-up", "runner_up"),
            column(f"Its {unit.heading.lower()}", "runner_up_error", unit.number), VERDICT,
            TextColumn("Run here", lambda row: f"{row['measured']} of {row['configurations']}"),
            column("Its score cost", "score_flops", lambda flops: score_text(flops, analysis.cost)),
        ],
    )  # fmt: skip


def _answers(analysis: Analysis, unit: ErrorUnit) -> Iterator[Table]:
    error, ends = errors(unit)
    ahead = column(unit.gap_heading_of("Ahead by"), "gap", unit.number)
    gap_ends = interval("Interval", unit.interval, "gap_low", "gap_high")
    axis = column("Axis", "axis", lambda name: "data size" if name == "subset_size" else name)
    yield best_table(analysis, analysis.best)
    middle = analysis.outliers["error"] - analysis.outliers["miss"]
    reach = QUANTILE * analysis.outliers["deviation"]
    yield Table.of(
        "outliers", "Runs that stand out",
        "They have little weight in the noise, the law and the errors of their cells",
        analysis.outliers.assign(at=middle, low=middle - reach, high=middle + reach), [
            column("Trial", "trial"), NAMED, BUDGET, error,
            column("All others predict", "at", unit.number), ends,
            column(unit.gap_heading_of("Off by"), "miss", unit.number),
            column("Standard deviations", "deviations", number(".0f")), *_phase(analysis),
        ],
    )  # fmt: skip
    parts = dict.fromkeys(analysis.shares["part"])
    yield Table.of(
        "matters", f"What the {unit.word} depends on",
        f"Shares of the variance of {unit.word} between the cells of a budget: of each part by itself, the "
        "mean over all orders in which the parts can enter a linear model, and of the parts together",
        pd.DataFrame([
            {**group.iloc[0], **{row["part"]: share_text(row) for row in records(group)}}
            for _, group in analysis.shares.groupby(["regime", "budget"])
        ]),
        [
            BUDGET, column("Cells", "cells"),
            column(unit.gap_heading_of("Deviation"), "deviation", unit.number),
            *(column(capital(part_text(part)), part) for part in parts),
        ],
    )  # fmt: skip
    yield Table.of(
        "contrasts", "One choice at a time",
        f"Each verdict is on its own comparison alone, of {len(analysis.contrasts):,}",
        analysis.contrasts, [
            axis, BUDGET, column("Fixed", "held"), column("Compared", "values"),
            column(f"Lowest {unit.word}", "best"), error, ahead, gap_ends,
            column("P(best)", "probability", probability_text), VERDICT, column("Lacking", "lacking"),
        ],
    )  # fmt: skip
    pairs = analysis.comparisons
    last = (~pairs.duplicated([*PAIR], keep="last")).to_numpy(bool) if len(pairs) else np.zeros(0, dtype=bool)
    shown = last | (len(pairs) <= _MOST_COMPARED)
    yield Table.of(
        "comparisons", "Two options over compute and data",
        "Worth ×k: the option has at x the error of the other at k·x. Crossing: the last one, in the row of "
        "the largest x" + ("" if shown.all() else f". Of {len(pairs):,} rows the largest x of each pair"),
        pairs.assign(end=last)[shown], [
            axis, column("Fixed", "held"), column("Option", "option"), column("Against", "other"),
            TextColumn("At", lambda row: x_text(row["along"], row["x"])), ahead, gap_ends,
            VERDICT, TextColumn("Worth", _worth),
            TextColumn("Crossing", _crossing),
        ],
    )  # fmt: skip
    yield Table.of(
        "pareto", "Pareto frontier over compute", "Cells that no other cell beats at equal or lower cost",
        analysis.pareto, [FLOPS, NAMED, error, column("P(on the frontier)", "probability", probability_text)],
    )  # fmt: skip
    yield Table.of(
        "quality-trade", "How much to filter",
        "Slope: of the logarithm of the best fraction over that of the compute or of the pool",
        analysis.quality_trades, [
            column("As this grows", "along", lambda along: "compute" if along == "budget" else "the pool"),
            TextColumn("Fixed", _trade_text),
            column("Best fraction", "fractions", lambda fractions: ", ".join(map(format_share, fractions))),
            column("Slope", "slope", number("+.2f")),
            interval("Interval", lambda low, high: interval_text(low, high, "+.2f")), VERDICT, REASON,
        ],
    )  # fmt: skip
    yield Table.of(
        "robustness", "Effective robustness",
        "Points of top-1 on the shifted set above a line through the plain CLIP cells, on logit scales",
        analysis.robustness, [
            TextColumn("Of", lambda row: axis_text(row["axis"], row["value"])),
            column("Shifted set", "shifted"),
            column("Slope of the line", "slope", number(".2f")), column("r²", "r2", number(".2f")),
            column("Cells", "cells"), column("Above the line by", "points", PERCENT.number),
            interval("Interval", PERCENT.interval), VERDICT,
        ],
    )  # fmt: skip


def _phase(analysis: Analysis) -> list[TextColumn]:
    """Return the column that tells states of trunks from cooled runs, if there are any."""
    return [column("Phase", PHASE)] if len(analysis.trials.trunks) else []


def _x_interval(along: str, low: float, high: float) -> str:
    """Return an interval of x with dots for open ends; empty for NaN."""
    if isnan(low) or isnan(high):
        return ""
    return f"[{'…' if low == 0 else x_text(along, low)}, {'…' if isinf(high) else x_text(along, high)}]"


def _worth(row: Mapping[str, Any]) -> str:
    """Return a factor with its interval; an end at a bound of what the other measured lies beyond it."""

    def text(factor: float) -> str:
        if factor <= row["lowest"]:
            return f"<×{format_number(row['lowest'], '.2g')}"
        if factor >= row["highest"]:
            return f">×{format_number(row['highest'], '.2g')}"
        return f"×{format_number(factor, '.2f')}"

    middle, low, high = (text(row[name]) for name in ("factor", "factor_low", "factor_high"))
    return middle if isnan(row["factor_low"]) or low == high else f"{middle} [{low}, {high}]"


def _crossing(row: Mapping[str, Any]) -> str:
    if not row["end"] or isnan(row["crossing_x"]):
        return str(row["crossing"]) if row["end"] else ""
    times = f", the last of {row['crossings']}" if row["crossings"] > 1 else ""
    ends = _x_interval(row["along"], row["x_low"], row["x_high"])
    return f"{row['crossing']} at {x_text(row['along'], row['crossing_x'])} {ends}{times}"


def _trade_text(row: Mapping[str, Any]) -> str:
    # A pool of two digits: those that differ by less count as one.
    pool = f"a pool of about {count_text(float(format_number(row['pool'], '.2g')))} pairs"
    held = budget_text(row["regime"], row["budget"]) if row["along"] == "pool" else pool
    return f"{row['architecture']}, {axis_text('strategy', row['strategy'])}, {held}"


def _laws(analysis: Analysis, unit: ErrorUnit) -> Iterator[Table]:
    regime, fine = column("Regime", "regime"), lambda value: unit.number(value, fine=True)

    def parameter(row: Mapping[str, Any], name: str) -> str:
        if row["parameter"] == "E":
            return unit.number(row[name])
        form = ".3g" if row["parameter"] in _PARAMETERS else ".2f"
        return f"{'×' if form == '.2f' else ''}{format_number(row[name], form)}"

    yield Table.of(
        "laws", "The joint law",
        "error = E + (c − E)·q/(1 + q), c the error of chance (of losses: E + q); ln q = γ·ln(a·F^−α + "
        "b·D^−β) + effects + drift; F: forward FLOPs of a sample; D: samples, of which repeats last R* "
        "epochs. Effects: factors of q. α, β and γ trade off: each alone is known less well than the curves",
        analysis.parameters, [
            column("Parameter", "parameter", lambda name: _PARAMETERS.get(name, f"effect of the {name}")),
            TextColumn("Of", lambda row: row["of"] and axis_text(row["parameter"], row["of"])), regime,
            TextColumn("Value", lambda row: parameter(row, "value")),
            TextColumn("Interval", lambda row: f"[{parameter(row, 'low')}, {parameter(row, 'high')}]"),
        ],
    )  # fmt: skip
    if analysis.trunk_map is not None:
        yield Table.of(
            "trunk-map", "What a cooldown gains",
            "Predicted: from all but the cooled runs of the configuration",
            analysis.trunk_map.pairs, [
                NAMED, BUDGET, column("Seed", "seed", number(".0f")),
                column(f"Trunk state's {unit.heading.lower()}", "trunk_error", unit.number),
                column(unit.heading, "error", unit.number), column("Predicted", "predicted", unit.number),
                interval("Interval", unit.interval),
                column(unit.gap_heading_of("Off by"), "residual", fine),
            ],
        )  # fmt: skip
    yield Table.of(
        "isoflop", "IsoFLOP profiles",
        "Size: training FLOPs of a sample. Epochs: of the smallest and of the largest model",
        analysis.profiles, [
            TextColumn("Budget", lambda one: budget_text("fixed-compute", one.identity["budget"])),
            TextColumn("Family", lambda one: one.identity["family"]),
            TextColumn("Fixed", lambda one: fixed_factors_text(one.identity)),
            TextColumn("Sizes", lambda one: f"{one.used} of {len(one.positions)}"),
            TextColumn("Epochs", lambda one: " → ".join(map(number(".3g"), one.epochs))),
            TextColumn("Best size", lambda one: x_text("compute", one.size)),
            TextColumn("Interval", lambda one: _x_interval("compute", one.low, one.high)),
            TextColumn("Status", lambda one: one.status), TextColumn("Reason", lambda one: one.reason),
        ],
    )  # fmt: skip
    yield Table.of(
        "holdout", "Forecasts of held-out levels",
        f"The joint law is refitted without each of the last {ORIGINS} levels and all above it. "
        f"{capital(analysis.holdout.reason)}".strip(),
        analysis.holdout.scores, [
            column("Forecast", "law"), column("Held-out cells", "cells"),
            column(unit.gap_heading_of("Mean absolute miss"), "error", fine),
            column(unit.gap_heading_of("Bias"), "bias", fine),
            column("Intervals that hold", "held", format_share),
        ],
    )  # fmt: skip
    yield Table.of(
        "exponents", "How model size and data grow with compute",
        "Of the lowest error at each compute, by the joint law, where no pair is seen twice. N: training "
        "FLOPs of a sample; D: samples seen; compute is N·D",
        analysis.exponents, [
            column("Law", "what", {"N": "N ∝ C^a", "D": "D ∝ C^b"}.__getitem__), regime,
            column("Exponent", "exponent", number(".3f")),
            interval("Interval", lambda low, high: interval_text(low, high, ".3f")),
            column("Sizes", "sizes"), STATUS, REASON,
        ],
    )  # fmt: skip


def _what_was_run(analysis: Analysis, unit: ErrorUnit) -> Iterator[Table]:
    study = analysis.study
    if not study.imported:
        yield _cost(analysis)
    ended, settings = analysis.trials.every, ["lr_peak", "batch_size"]
    results = study.every("results").reindex(columns=["trial", *settings]).set_index("trial")
    yield Table.of(
        "trials", "All finished trials",
        capital(metric_text(analysis.trials.metric)),
        ended.assign(again=ended["trial"].map(study.again), **{
            name: ended["trial"].map(results[name]) for name in settings
        }), [
            column(unit.heading, "error", unit.number), BUDGET, *PARTS,
            column("Seed", "seed", number(".0f")), column("Learning rate", "lr_peak", "{:g}".format),
            column("Batch", "batch_size", count_text), column("Samples", "samples_seen", count_text), EPOCHS,
            *([] if set(ended["regime"]) <= {"fixed-compute"} else [FLOPS]), column("Trial", "trial"),
            column("Attempts", "again"), *_phase(analysis),
        ],
    )  # fmt: skip
    if study.imported:
        counts = study.unread["reason"].value_counts().reset_index() if len(study.unread) else study.unread
        yield Table.of(
            "left-out", "Table rows that were not read", "dropped.parquet beside the report lists each",
            counts, [REASON, column("Rows", "count", "{:,}".format)],
        )  # fmt: skip
    else:
        yield Table.of(
            "left-out", "Cells left out of the plan", "As planned", study.left_out, [
                NAMED, TextColumn("Budget", level_text), REASON,
            ],
        )  # fmt: skip
    yield Table.of(
        "missing", "What is missing",
        f"{plural(int(analysis.missing['trials'].sum()), 'planned trial')} without a result",
        analysis.missing, [NAMED, BUDGET, column("Seeds", "seeds"), REASON],
    )  # fmt: skip


def _cost(analysis: Analysis) -> Table:
    """Return FLOPs and device hours by budget level and in total, then scores outside the budget."""
    levels, scores = analysis.levels, analysis.study.scores
    total = levels.drop(columns="level").sum().to_dict() | {"level": "all"}
    charges = () if scores.empty or scores["counted"].any() else score_charges(score_costs(scores))
    outside = [{"level": f"not in all: {charge.what}", "spent": charge.flops} for charge in charges]

    def known(text: Callable[[float], str]) -> Callable[[float], str]:
        return lambda value: text(value) if value else ""

    return Table.of(
        "cost", "Cost",
        "Training FLOPs, as the study budget counts them; wasted: lost with failed attempts. Evaluation: "
        "forward FLOPs that no budget counts. Device time: of all attempts, times their devices",
        pd.DataFrame([*records(levels), total, *outside]), [
            column("Level", "level"), column("Trials", "trials", known(lambda count: f"{int(count):,}")),
            *(
                column(name.capitalize(), name, known(format_flops))
                for name in ("planned", "spent", "wasted", "evaluation")
            ),
            column("Device time", "hours", known(lambda hours: format_seconds(3600 * hours))),
        ],
    )  # fmt: skip


def attempts(results: pd.DataFrame, metric: str) -> dict[str, str]:
    """Return the values of the attempts of each trial that has several, in words, by the id of the first."""
    unit = ErrorUnit.of(metric)

    def words(row: Mapping[str, Any]) -> str:
        value = row.get(metric, nan)
        value = row["status"] if isnan(value) else unit.named(value if is_loss(metric) else 1 - value)
        return f"attempt {row['attempt']}: {value}"

    return {first: f"{', '.join(map(words, rows))} (used)" for first, rows in repeated(results).items()}
