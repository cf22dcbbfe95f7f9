"""The first screen of a page: the answer in one sentence, its caveats and the budgets; and what it cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from analysis.answers.answer_text import source_text, verdict_text
from analysis.answers.best import turns
from analysis.answers.cost import Cost, run_hours, score_costs, score_text
from analysis.cells.table import CELL, records
from analysis.labels import axis_text, capital, configuration_text, count_text, epochs_text
from analysis.report.analyse import Analysis, TrialCounts
from analysis.report.summary import answer_lines
from analysis.report.tables import EMPTY, probability_text
from budgets.planning.scoring import score_flops, score_words
from budgets.quantity import format_flops, format_number, format_seconds, format_share, plural


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetRow:
    """What to train at a budget: texts, and in ``why`` the sentences that are shown when it is opened."""

    budget: str
    train: str
    error: str
    verdict: str
    sure: str
    why: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstScreen:
    """The texts of the first screen.

    Attributes:
        answer: What to train at the largest budget, in one sentence; empty without a result.
        caveats: What limits all answers, a sentence each.
        rows: The budgets.
        more: Number of budgets that are not shown, in words, may be empty.
        unfinished: Progress of an unfinished study in words; empty if all trials have run.
    """

    answer: str
    caveats: tuple[str, ...]
    rows: tuple[BudgetRow, ...]
    more: str
    unfinished: str


def first_screen(analysis: Analysis) -> FirstScreen:
    """Return the texts of the first screen."""
    study = analysis.study
    shown, more = turns(analysis.best)
    hours = run_hours(study.every("results"), study.events)
    return FirstScreen(
        answer="".join(f"At {line}" for line in answer_lines(shown.tail(1), analysis)),
        caveats=tuple(_caveats(analysis)),
        rows=tuple(_budget(row, analysis, hours, study.price_per_hour) for row in records(shown)),
        more=more,
        unfinished=_unfinished(analysis.progress),
    )


def _caveats(analysis: Analysis) -> Iterator[str]:
    study = analysis.study
    if not analysis.draws.known and len(analysis.draws.cells):
        yield f"{capital(analysis.draws.explanation)}."
    if study.tuned_rates is not None and not study.tuned_rates and len(analysis.draws.cells):
        yield "Learning rates were not tuned."
    if analysis.trials.frame["trunk"].astype(bool).any():
        yield "Levels are branches of a trunk, not runs of their own."
    for family in analysis.draws.families.values():
        if family.states and family.learned:
            yield "Where no branch was cooled down, the trunk state counts as a run."
        elif family.unlearned:
            yield f"Trunk states count for no run: {family.unlearned}."
    if len(study.left_out):
        first = records(study.left_out)[0]
        yield (
            f"{plural(len(study.left_out), 'cell')} left out of the plan, such as "
            f"{configuration_text(first)}: {first['reason']}."
        )


def _budget(
    row: Mapping[str, Any], analysis: Analysis, hours: Mapping[str, float], price_per_hour: float | None
) -> BudgetRow:
    unit, share = analysis.draws.error_unit, probability_text(float(row["probability"]))
    data = f"{axis_text('subset_size', row['subset_size'])}, {axis_text('quality', row['quality'])}"
    runs = plural(int(row["runs"]), "trunk state" if row["by_trunk"] else "run")
    why = [f"{row['reason']}{': ' if row['tied'] else ''}{row['tied']}", str(row["scope"])]
    if row["runner_up"] and not row["tied"]:
        why.append(f"runner-up: {row['runner_up']}, {unit.text(row['runner_up_error'])}")
    why.append(
        f"{count_text(row['samples_seen'])} samples, {epochs_text(row['epochs'])} epochs; {runs}"
        f"{', not cooled down here' if row['by_trunk'] else ''}"
    )
    trials = analysis.trials.frame
    mine = trials[(trials[[*CELL]] == [row[name] for name in CELL]).all(axis=1)]["trial"]
    if known := [hours[trial] for trial in mine if trial in hours]:
        mean = sum(known) / len(known)
        price = "" if price_per_hour is None else f", {format_number(mean * price_per_hour, ',.2f')}"
        why.append(f"a run of its own takes {format_seconds(3600 * mean)} of device time{price}")
    if row["score_flops"]:
        why.append(f"its quality score cost {score_text(row['score_flops'], analysis.cost)}")
    sure = [source_text(row, predicted=not row["runs"])]
    sure += [f"P(best)\u00a0{share}"] if share != EMPTY and row["runner_up"] else []
    return BudgetRow(
        budget=str(row["at"]),
        train=f"{row['architecture']}, {axis_text('strategy', row['strategy'])}, {data}",
        error=unit.text(row["error"], row["low"], row["high"]),
        verdict=verdict_text(row["verdict"], row["distance"]),
        sure=", ".join(filter(None, sure)),
        why=tuple(why),
    )


def _unfinished(progress: TrialCounts) -> str:
    """Return the progress of an unfinished study in words; empty if all trials have run."""
    if not progress.waiting + progress.begun:
        return ""
    begun = f", {progress.begun} begun" if progress.begun else ""
    return f"{progress.finished:,} of {plural(progress.planned, 'trial')} have a result{begun}"


def cost_texts(analysis: Analysis) -> dict[str, str]:
    """Return what a study cost: name → text. Shares are of the compute that it spent."""
    cost, progress = analysis.cost, analysis.progress
    notes = [
        f"{count} {what}"
        for count, what in (
            (progress.begun, "begun"), (progress.waiting, "not run yet"),
            (progress.excluded, "without a result"),
            (progress.not_chosen, "more of the grid were not chosen"),
        )
        if count
    ]  # fmt: skip
    texts = {"Trials finished": "; ".join([f"{progress.finished} of {progress.planned}", *notes])}
    texts["Compute spent"] = _spent_text(cost)
    if costs := score_costs(analysis.study.scores):
        budget = "part of it" if analysis.study.scores["counted"].any() else "outside the study budget"
        texts["Quality scores"] = (
            f"{score_text(score_flops(costs), cost)}, {budget}: {'; '.join(score_words(costs))}"
        )
    if cost.evaluation_flops > 0:
        texts["Evaluation"] = f"{format_flops(cost.evaluation_flops)} of forward passes, outside all budgets"
    time = cost.time
    if not isnan(cost.device_hours):
        texts["Device time"] = (
            f"{format_seconds(3600 * cost.device_hours)}, evaluation and lost attempts included"
            + ("" if isnan(cost.price) else f"; {format_number(cost.price, ',.2f')} at the declared price")
        )
    if not isnan(time.wall_s):
        up_to = "up to " if round(time.slot_s) < round(time.slots * time.wall_s) else ""
        busy = "" if time.busy is None else f", {format_share(time.busy)} busy"
        texts["Time"] = f"{format_seconds(time.wall_s)} with {up_to}{plural(time.slots, 'slot')}{busy}"
    return texts


def _spent_text(cost: Cost) -> str:
    whole = f"{format_flops(cost.planned_flops)} planned"
    if cost.budget_flops > 0:
        whole = f"a study budget of {format_flops(cost.budget_flops)}"
    wasted = f", {format_flops(cost.wasted_flops)} of it in failed attempts" if cost.wasted_flops else ""
    return f"{format_flops(cost.spent_flops)} of training, of {whole}{wasted}"
