"""FLOPs that adaptive designs save, and the honesty of their verdicts, by replaying known grids.

Run ``python benchmarks/design.py`` from the root of the checkout; ``--repeats 4 --studies 20`` is a quick
version, and ``--only PART`` runs one part. Its parts:

* ``orders``: the embedded study's grid, in random orders of its seeds. The verdict at each level must be that
  of the full grid; a tie must contain the full grid's leader, and its own leader must belong to the full
  grid's tie. ``trunk``: trunks are evaluated at their milestones; ``branch``: only branches are, a run pays
  for the lower levels of its seed, whose constant part is paid once. The share is that of the training FLOPs
  of all cooled runs in both. Beside whole orders, the share of their levels that agree, and of the orders
  whose leaders are all those of the full grid. The decision accuracy at some shares is printed
  (``decision_accuracy.py``).
* ``made-up``: simulated grids with known answers (``designs.py`` and ``studies.py`` in
  ``tests/analysis/made_up``): clear verdicts that are wrong, intervals of the leaders that hold the truth,
  the regret at the highest level beside that of successive halving at equal FLOPs, and the decision accuracy
  of the first ``--repeats`` grids of many configurations.
* ``published``: published pairs of models at constant rate and cooled ones, of which five cooled ones are
  known: the error of the others over the spread between models, and their intervals.
* ``paper``: the paper's digitised one-epoch curves, with single runs: FLOPs until the leaders of the full
  curves are named, or others within a point of them.
* ``cost``: processor time of a decision over 100, 2,000 and 20,000 trials.

The last lines are name, value, target, and pass or fail; the exit code is 1 if one fails. Shares of FLOPs,
wrong verdicts and seconds must not exceed their target; the others must reach it. A target ``none`` means
that the value is only reported.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.arrays import Floats
from analysis.cells.table import CONFIGURATION, budgets, cooled, curve_numbers, of_trunks, records, tidy
from analysis.design.adaptive import Decision, decide
from analysis.design.questions import Answer, Ask, answers_to
from analysis.labels import configuration_text
from benchmarks.decision_accuracy import SHARES, KnownGrid, part_of, score, share_for
from benchmarks.measured import ROOT, Result, at_least, at_most, between, reported, verdict
from tests.analysis.made_up import valleys
from tests.analysis.made_up.designs import Kind, grid
from tests.analysis.made_up.studies import study
from tests.analysis.made_up.trunk_states import COOLDOWN, TrueMap, with_trunk_states
from tests.analysis.paper_curves import families
from tests.analysis.public_tables import SHARED
from tests.analysis.published_pairs import PAIRS
from tests.analysis.published_pairs import score as pairs_score

METRIC = "held-out/top1"
SLOTS = 2
POINT = 0.01
GRID = next(name for name in ("small-trunk", "small-full") if (ROOT / "results" / name).exists())
GRIDS: dict[str, tuple[Kind, float, bool]] = {
    "designs": ("designs", 0.0, False), "branches": ("designs", 0.5, False),
    "trunks": ("designs", 0.5, True), "chance": ("chance", 0.5, True), "late": ("late", 0.5, True),
}  # fmt: skip
"""Simulated grids: kind, correlation of a trunk's levels, 0 without trunks, and if these are evaluated."""
CURVES: dict[str, valleys.Kind] = {kind: kind for kind in valleys.KINDS}

Truth = Callable[[Mapping[str, Any], float], float]


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what adaptive designs save and how right they are.")
    parser.add_argument("--repeats", type=int, default=20, help="orders of seeds of the embedded study (20)")
    parser.add_argument("--studies", type=int, default=100, help="simulated grids of each kind (100)")
    parser.add_argument(
        "--only", choices=["orders", "made-up", "published", "paper", "cost"], help="run one part"
    )
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[Result]]] = {
        "orders": lambda: _orders(options.repeats),
        "made-up": lambda: _made_up(options.studies, options.repeats),
        "published": _published,
        "paper": _paper,
        "cost": _cost,
    }
    lines: list[Result] = []
    for name, part in parts.items():
        if options.only in (None, name):
            began = time.process_time()
            lines += part()
            print(f"{name}: {time.process_time() - began:.0f} s of processor time\n", flush=True)
    return verdict(lines, ".3f")


def replay(
    results: pd.DataFrame, *, metric: str, ask: Ask, slots: int = SLOTS
) -> tuple[Decision, float, pd.DataFrame]:
    """Run a design on a grid whose results are known.

    Returns:
        Its last decision, its paid FLOPs as a share of the training FLOPs of all cooled runs, and the results
        that it saw, in the order in which they were chosen.
    """
    done: list[str] = []
    spent = 0.0
    everything = tidy(results, metric=metric)
    while True:
        decision = decide(part_of(everything, done), results, ask=ask, slots=slots)
        if decision.stop:
            share = spent / float(cooled(results)["train_flops"].sum())
            return decision, share, results.set_index("trial").loc[done].reset_index()
        done += [pick.trial for pick in decision.picks]
        spent += sum(pick.cost_flops for pick in decision.picks)


def with_trunks(results: pd.DataFrame) -> pd.DataFrame:
    """Return results as if each curve and seed shared a trunk, whose constant part is paid once."""
    curve = curve_numbers(results.assign(budget=budgets(results)))
    trunk = pd.Series(curve, index=results.index).astype(str) + "-" + results["seed"].astype(str)
    flops = results["train_flops"]
    shorter = flops.groupby(trunk).transform(lambda of: of.sort_values().shift(fill_value=0.0))
    return results.assign(trunk=trunk, paid_flops=flops - (1 - COOLDOWN) * shorter)


def _orders(repeats: int) -> list[Result]:
    """Replay the embedded study's grid in random orders of its seeds: with trunks evaluated, and without."""
    known = pd.read_parquet(ROOT / "results" / GRID / "results.parquet")
    if not of_trunks(known).any():
        known["true"] = 1.0 - known.groupby([*CONFIGURATION, "level_flops"])[METRIC].transform("mean")
        known = _evaluated(known, lambda row: float(row["true"]), 0).drop(columns="true")
    lines = []
    for name, results in (("trunk", known), ("branch", cooled(known))):
        full = answers_to(tidy(results, metric=METRIC), results, Ask())
        measures, scores = defaultdict[str, list[float]](list), []
        for repeat in range(repeats):
            generator = np.random.default_rng(repeat)
            offered = _shuffled(results, generator)
            offered = offered if name == "trunk" else with_trunks(offered)
            decision, share, chosen = replay(offered, metric=METRIC, ask=Ask())
            answers = {one.flops: one for one in decision.answers}
            same = [_same(row, answers[row.flops]) for row in full]
            measures["share"].append(share)
            measures["same"].append(all(same))
            measures["leaders"].append(all(answers[row.flops].leader == row.leader for row in full))
            measures["levels"].append(float(np.mean(same)))
            table = KnownGrid(results=offered, metric=METRIC)
            scores.append(accuracy(table, table.full[0], chosen, generator))
            print(f"  {name} {repeat}: {share:.0%} of the FLOPs, same verdicts {same}", flush=True)
        spent, agree = f"{name}_share", f"{name}_verdicts_agree"
        mean = {what: float(np.mean(values)) for what, values in measures.items()}
        lines += [
            at_most(spent, mean["share"], 0.2) if name == "trunk" else reported(spent, mean["share"]),
            reported(f"{name}_largest_share", max(measures["share"])),
            reported(f"{name}_leaders_agree", mean["leaders"]),
            reported(f"{name}_verdicts_of_levels_agree", mean["levels"]),
            at_least(agree, mean["same"], 0.9) if name == "trunk" else reported(agree, mean["same"]),
            *_curve(name, scores),
        ]
    return lines


def accuracy(
    known: KnownGrid, reference: Floats, chosen: pd.DataFrame, generator: np.random.Generator
) -> dict[str, list[tuple[float, float]]]:
    """Return the scores of each way at ``SHARES``; of the design those of its chosen trials."""
    ranks = known.ranks(chosen["trial"].tolist(), generator)
    return {way: [score(one, reference) for one in of_way] for way, of_way in ranks.items()}


def _curve(name: str, scores: Sequence[Mapping[str, Sequence[tuple[float, float]]]]) -> list[Result]:
    """Print the mean scores of each way, and return lines of the design's."""
    print(
        f"\n  {name}: pairs right in %, regret in points\n  share     "
        + "".join(f"{x:11.0%}" for x in SHARES)
    )
    mean = {way: np.mean([one[way] for one in scores], axis=0) for way in scores[0]}
    for way, values in mean.items():
        print(f"  {way:10}" + "".join(f"{100 * pairs:6.0f} {100 * lost:4.1f}" for pairs, lost in values))
    print(flush=True)
    right = [float(pairs) for pairs in mean["design"][:, 0]]
    lines = [reported(f"pairs_right_at_{x:g}_{name}", right[SHARES.index(x)]) for x in (0.05, 0.1, 0.2)]
    return [*lines, reported(f"pairs_right_in_90_percent_share_{name}", share_for(right, 0.9))]


def _shuffled(results: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Return the results with the seeds of each curve renumbered at random, in the order of a plan."""
    curve = curve_numbers(results.assign(budget=budgets(results)))
    orders = [generator.permutation(int(results["seed"].max()) + 1) for _ in range(int(curve.max()) + 1)]
    seed = [int(orders[number][seed]) for number, seed in zip(curve, results["seed"], strict=True)]
    ordered = results.assign(seed=seed, curve=curve).sort_values(["curve", "level_flops", "seed"])
    return ordered.drop(columns="curve").reset_index(drop=True)


def _same(full: Answer, answer: Answer) -> bool:
    """Return whether a design agrees with the full grid's verdict at a level."""
    if full.verdict == "clear":
        return answer.verdict == "clear" and answer.leader == full.leader
    return answer.verdict == "tie" and full.leader in answer.tied and answer.leader in full.tied


def _made_up(studies: int, repeats: int) -> list[Result]:
    lines = []
    for kind in (*CURVES, *GRIDS):
        measures, scores = defaultdict[str, list[float]](list), []
        for number in range(studies):
            results, truth = _simulated(kind, number)
            decision, share, chosen = replay(results, metric=METRIC, ask=Ask())
            measures["share"].append(share)
            _judge(results, truth, decision, measures)
            _forecast(cooled(results), truth, measures)
            known = KnownGrid(results=results, metric=METRIC)
            top = float(results["level_flops"].max())
            errors = [truth(row, top) for row in records(known.full[1].configurations)]
            reference = np.where(np.isfinite(known.full[0]), errors, np.inf)
            ours = np.where([name == decision.answers[-1].leader for name in known.full[1].names], 0.0, 1.0)
            measures["ours"].append(score(ours, reference)[1])
            measures["halving"].append(score(known.halving(share), reference)[1])
            if number < repeats and kind in GRIDS:
                scores.append(accuracy(known, reference, chosen, np.random.default_rng(number)))
        mean = {what: float(np.mean(values)) for what, values in measures.items()}
        print(
            f"  {kind}: {mean['share']:.0%} of the FLOPs, {mean['clear']:.0%} clear, the best is among the "
            f"tied in {mean['tied']:.1%}, its distance to the leader is at most "
            f"{max(measures['regret']):.3f}, the best was dropped in {mean['dropped']:.1%}",
            flush=True,
        )
        lines += [
            at_most(f"clear_but_wrong_{kind}", mean.get("wrong", 0.0), 0.05),
            between(f"interval_{kind}", mean["held"], 0.85, 0.97),
            reported(f"forecast_{kind}", mean["forecast"])  # a fall after the levels below can't be foreseen
            if kind == "late"
            else at_least(f"forecast_{kind}", mean["forecast"], 0.85),
            at_most(f"regret_{kind}", mean["ours"], mean["halving"]),
        ]
        if scores:
            lines += _curve(kind, scores)
    return lines


def _simulated(kind: str, number: int) -> tuple[pd.DataFrame, Truth]:
    if kind in CURVES:
        curves = study(CURVES[kind], number)
        return curves.results, lambda row, flops: float(curves.at(row, np.array([flops]))[0])
    of, shared, evaluated = GRIDS[kind]
    made = grid(number, shared=shared, kind=of)
    results = with_trunks(made.results) if shared else made.results

    def truth(row: Mapping[str, Any], flops: float) -> float:
        return made.truth[str(row["architecture"])](flops)

    if evaluated:
        results = _evaluated(results, lambda row: truth(row, row["level_flops"]), number)
    return results, truth


def _evaluated(
    results: pd.DataFrame, truth: Callable[[Mapping[str, Any]], float], number: int
) -> pd.DataFrame:
    """Return results as if trunks were evaluated as well, with the true error of each row."""
    return with_trunk_states(results, truth, TrueMap(), np.random.default_rng(number))


def _judge(results: pd.DataFrame, truth: Truth, decision: Decision, measures: dict[str, list[float]]) -> None:
    ends = results.groupby([*CONFIGURATION], as_index=False)["level_flops"].agg(["min", "max"])
    for answer in decision.answers:
        able = ends[(ends["min"] <= answer.flops) & (ends["max"] >= answer.flops)]
        errors = {configuration_text(row): truth(row, answer.flops) for row in records(able)}
        best = min(errors, key=lambda name: errors[name])
        if answer.verdict == "clear":
            measures["wrong"].append(answer.leader != best)
        measures["clear"].append(answer.verdict == "clear")
        measures["tied"].append(best in answer.tied)
        measures["dropped"].append(best in answer.dropped)
        measures["held"].append(answer.low <= errors[answer.leader] <= answer.high)
        measures["regret"].append(errors[answer.leader] - errors[best])


def _forecast(results: pd.DataFrame, truth: Truth, measures: dict[str, list[float]]) -> None:
    """Forecast the lowest true error at the largest level from the levels below it."""
    top = float(results["level_flops"].max())
    below, ask = results[results["level_flops"] < top], Ask(best=None, forecast=top)
    (answer,) = decide(tidy(below, metric=METRIC), below, ask=ask).answers
    best = min(truth(row, top) for row in records(results[results["level_flops"] == top]))
    measures["forecast"].append(answer.low <= best <= answer.high)


def _published() -> list[Result]:
    lines = []
    for name in PAIRS if SHARED.exists() else ():
        error, held = np.mean([pairs_score(name, number) for number in range(5)], axis=0)
        lines += [
            at_most(f"map_error_{name}", error, 0.15),
            between(f"map_interval_{name}", held, 0.85, 0.97),
        ]
    return lines


def _paper() -> list[Result]:
    lines = []
    for panel, _, trials in families():
        if panel not in ("8b", "14a"):
            continue
        frame = trials.frame.assign(level_flops=np.nan, batch_size=np.nan, status="finished", reason="")
        count, metric = f"{trials.metric.rpartition('/')[0]}/count", trials.metric
        results = frame.assign(**{metric: 1 - frame["error"], count: frame["images"]}).drop(columns="budget")
        results["paid_flops"] = results["train_flops"]
        ends = results.groupby("architecture")["train_flops"].agg(["min", "max"])
        ask = Ask(best=tuple(np.geomspace(ends["min"].max(), ends["max"].max(), 6).tolist()))
        everything = decide(tidy(results, metric=metric), results, ask=ask)
        decision, share, seen = replay(results, metric=metric, ask=ask)
        near = []
        for full, answer in zip(everything.answers, decision.answers, strict=True):
            near.append(answer.leader == full.leader or answer.leader in full.tied
                        or abs(answer.error - full.error) <= POINT)  # fmt: skip
            print(
                f"  {panel} at {full.flops:.2g}: {full.leader} {full.error:.3f} ({full.verdict}); "
                f"by the design {answer.leader} {answer.error:.3f} ({answer.verdict})"
            )
        print(f"  {panel}: {share:.0%} of the FLOPs, {len(seen)} of {len(results)} cells", flush=True)
        lines += [
            reported(f"paper_{panel}_share", share),
            at_least(f"paper_{panel}_same_frontier", float(np.mean(near)), 1),
        ]
    return lines


def _cost() -> list[Result]:
    lines = []
    for count, target in ((100, 0.5), (2000, 0.5), (20_000, None)):
        plan = _big(count)
        seen = plan[(plan["level_flops"] < plan["level_flops"].max() / 3.5) & (plan["seed"] < 2)]  # noqa: PLR2004
        trials = tidy(seen, metric=METRIC)
        took = []
        for _ in range(3):
            began = time.process_time()
            decide(trials, plan, ask=Ask(), slots=64)
            took.append(time.process_time() - began)
        name, best = f"decision_{count}_trials_cpu_s", min(took)
        lines.append(reported(name, best) if target is None else at_most(name, best, target))
    return lines


def _big(count: int) -> pd.DataFrame:
    """Return a simulated grid of a number of trials: four levels and three seeds a configuration."""
    parts: list[pd.DataFrame] = []
    number = 0
    while sum(map(len, parts)) < count:
        one = grid(number).results
        parts.append(one.assign(
            architecture=one["architecture"] + f"-{number}", trial=one["trial"] + f"-{number}"
        ))  # fmt: skip
        number += 1
    return pd.concat(parts).iloc[:count].reset_index(drop=True)


if __name__ == "__main__":
    sys.exit(main())
