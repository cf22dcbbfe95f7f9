"""The first screen of a page: the answer in one sentence, the budgets, the cost, and what was not tried."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import pandas as pd

from analysis.answers.best import turns
from analysis.answers.cost import Cost, notable_score, score_costs, score_text
from analysis.cells.table import CELL, records
from analysis.labels import axis_text, configuration_text, count_text, epochs_text
from analysis.report.analyse import Analysis
from analysis.report.tables import duration_text, share_text
from budgets.planning.scoring import score_flops, score_words
from budgets.quantity import format_flops, plural

_NAMED = 3


def first_screen(
    found: Analysis, left_out: pd.DataFrame, *, hours: Mapping[str, float], price_per_hour: float | None
) -> dict[str, Any]:
    """Return the texts of the first screen.

    ``hours`` are the device hours of each trial, ``price_per_hour`` the declared price of one device.

    Returns:
        ``answer``, what to train at the largest budget, in one sentence, empty without a result; ``budgets``,
        a row per budget: heading → text, the same headings in each; ``more``, the number of budgets that are
        not shown, in words, may be empty; ``cost``, name → text of what the study cost; ``not_tried``, what
        was not tried, a sentence each.
    """
    shown, more = turns(found.best)
    rows = records(shown)
    return {
        "answer": answer(
            rows[-1], found.draws.error_unit.word, notable_score(rows[-1]["score_flops"], found.cost)
        )
        if rows
        else "",
        "budgets": [_budget(row, found, hours, price_per_hour) for row in rows],
        "more": more,
        "cost": {} if found.imported else _cost_texts(found),
        "not_tried": _not_tried(rows, found, left_out),
    }


def answer(row: Mapping[str, Any], word: str, score: str = "") -> str:
    """Return what a row of the best says to train, and how sure that is, in one sentence.

    ``word`` is ``error`` or ``loss``; ``score`` is that of `notable_score`.
    """
    tried = str(row["scope"]).partition(";")[0] + score
    if row["verdict"] == "tie":
        leaders = _either(row["leaders"], one_epoch=row["regime"] == "one-epoch")
        return f"At {row['at']} train {leaders}; the data can't tell them apart; {tried}."
    pick = _pick(row)
    if row["verdict"] == "clear":
        return f"At {row['at']} train {pick}; {row['reason']}; {tried}."
    if row["verdict"] == "beaten":
        return f"At {row['at']} the lowest {word} is that of {pick}, but {row['reason']}; {tried}."
    return f"At {row['at']} {pick} has the lowest {word} so far; undecided: {row['reason']}; {tried}."


def _pick(cell: Mapping[str, Any], strategies: Sequence[str] = (), *, pairs: str = "") -> str:
    """Return a configuration, or several that differ only in their strategy; ``pairs`` replaces its own."""
    pairs = pairs or axis_text("subset_size", cell["subset_size"])
    strategies = strategies or [axis_text("strategy", cell["strategy"])]
    quality = axis_text("quality", cell["quality"])
    return f"{cell['architecture']} with {' or '.join(strategies)} on {pairs} ({quality})"


def _either(leaders: Sequence[Mapping[str, Any]], *, one_epoch: bool) -> str:
    """Return tied configurations; if they differ in one part, this part alone is listed."""
    # Read between one-epoch cells, a configuration has the pairs of none of them.
    pairs = "one epoch of new pairs" if one_epoch else ""
    cells = list({_pick(cell, pairs=pairs): cell for cell in leaders}.values())
    strategies = list(dict.fromkeys(axis_text("strategy", cell["strategy"]) for cell in cells))
    others = {_pick({**cell, "strategy": ""}, pairs=pairs) for cell in cells}
    if len(others) == 1:
        return _pick(cells[0], strategies, pairs=pairs)
    more = f" or one of {len(cells) - _NAMED} more" if len(cells) > _NAMED else ""
    return " or ".join(_pick(cell, pairs=pairs) for cell in cells[:_NAMED]) + more


def _budget(
    row: Mapping[str, Any], found: Analysis, hours: Mapping[str, float], price_per_hour: float | None
) -> dict[str, str]:
    unit = found.draws.error_unit
    ends = unit.interval(row["low"], row["high"])
    share = share_text(float(row["probability"]))
    second = row["runner_up"]
    sure = f", P(best) {share}" if share != "–" and second else ""
    data = f"{axis_text('subset_size', row['subset_size'])}, {axis_text('quality', row['quality'])}"
    texts = {
        "Budget": str(row["at"]),
        "Train": f"{row['architecture']}, {axis_text('strategy', row['strategy'])}, {data}",
        "Samples": f"{count_text(row['samples_seen'])}, {epochs_text(row['epochs'])} epochs",
        unit.title: f"{unit.text(row['error'])} {ends}".strip(),
        "How sure": f"{row['verdict']}{sure}",
        "Runner-up": f"{second}: {unit.text(row['runner_up_error'])}" if second else "–",
    }
    if found.best["score_flops"].any():
        texts["Its quality score cost"] = score_text(row["score_flops"], found.cost) or "–"
    if hours:
        trials = found.trials.frame
        mine = trials[(trials[[*CELL]] == [row[name] for name in CELL]).all(axis=1)]["trial"]
        known = [hours[trial] for trial in mine if trial in hours]
        mean = sum(known) / len(known) if known else float("nan")
        texts["Device time of a trial"] = duration_text(3600 * mean)
        if price_per_hour is not None:
            texts["Price of a trial"] = _money_text(mean * price_per_hour)
    return texts


def _cost_texts(found: Analysis) -> dict[str, str]:
    """Return what a study cost, and what each number includes."""
    cost, progress = found.cost, found.progress
    notes = [f"{progress.begun} begun"] if progress.begun else []
    notes += [f"{progress.waiting} not run yet"] if progress.waiting else []
    notes += [f"{progress.excluded} without a result"] if progress.excluded else []
    notes = notes or [f"all {'chosen' if progress.not_chosen else 'planned'} trials"]
    notes += [f"{progress.not_chosen} more of the grid were not chosen"] if progress.not_chosen else []
    said = {
        "Trials finished": "; ".join([f"{progress.finished} of {progress.planned}", *notes]),
        "Compute spent": _spent_text(cost),
    }
    if costs := score_costs(found.scores):
        budget = "part of it" if found.scores["counted"].any() else "outside the budget"
        said["Quality scores"] = (
            f"{score_text(score_flops(costs), cost)}, {budget}: {'; '.join(score_words(costs))}"
        )
    if cost.evaluation_flops > 0:
        said["Evaluation"] = (
            f"{format_flops(cost.evaluation_flops)} more, forward passes that no budget counts"
        )
    if not isnan(cost.device_hours):
        said["Device time"] = (
            f"{duration_text(3600 * cost.device_hours)} in trials, times the devices of each; lost attempts "
            "and evaluation included"
        )
    if not isnan(cost.price):
        said["Price"] = f"{_money_text(cost.price)}, the device time at the declared price of a device"
    time = cost.time
    if not isnan(time.wall_s):
        up_to = "up to " if round(time.slot_s) < round(time.slots * time.wall_s) else ""
        busy = "" if time.busy is None else f", {100 * time.busy:.0f} % busy"
        said["Time"] = f"{duration_text(time.wall_s)} with {up_to}{plural(time.slots, 'slot')}{busy}"
    return said


def _money_text(amount: float) -> str:
    """Return an amount in the currency of the declaration; a dash for NaN."""
    return "–" if isnan(amount) else f"{amount:,.2f}"


def _spent_text(cost: Cost) -> str:
    share = f" of {format_flops(cost.planned_flops)} planned"
    if cost.budget_flops > 0:
        percent = f"{100 * cost.spent_flops / cost.budget_flops:.0f} %"
        share = f", {percent} of the study budget of {format_flops(cost.budget_flops)}"
    wasted = (
        f"; {format_flops(cost.wasted_flops)} of it lost with failed attempts" if cost.wasted_flops else ""
    )
    return f"{format_flops(cost.spent_flops)} of training{share}{wasted}"


def _not_tried(rows: Sequence[Mapping[str, Any]], found: Analysis, left_out: pd.DataFrame) -> list[str]:
    said: dict[str, list[str]] = {}
    for row in rows:
        if row["not_run"]:
            said.setdefault(str(row["not_run"]), []).append(str(row["at"]))
    texts = [f"At {', '.join(at)} not run: {text}." for text, at in said.items()]
    if found.progress.waiting:
        texts.append(f"{plural(found.progress.waiting, 'planned trial')} not run yet.")
    if len(left_out):
        first = records(left_out)[0]
        texts.append(
            f"{plural(len(left_out), 'cell')} left out of the plan, such as {configuration_text(first)}: "
            f"{first['reason']}."
        )
    return texts
