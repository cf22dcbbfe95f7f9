"""FLOPs that adaptive designs save, and the honesty of their verdicts, by replaying known grids.

Run ``python benchmarks/design.py`` from the root of the checkout; ``--repeats 4 --studies 20`` is a quick
version, and ``--only PART`` runs one part. Its parts:

* ``small-full``: the embedded study's grid, in random orders of its seeds. The verdict at each level must be
  that of the full grid; a tie must contain the full grid's leader, and its own leader must belong to the full
  grid's tie. It is priced by training FLOPs, then by trunks: a run also pays for the lower levels of its
  seed, whose constant part is paid once. The share is that of the full grid's training FLOPs in both.
* ``made-up``: simulated grids with known answers (``tests/analysis/made_up/designs.py`` and
  ``coverage.py`` beside it): clear verdicts that are wrong, and intervals of the leaders that hold the truth.
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
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.answers.best import best_at_budgets
from analysis.belief.cell_draws import cell_draws
from analysis.cells.table import CONFIGURATION, budgets, curve_numbers, records, tidy
from analysis.design.adaptive import Decision, decide
from analysis.design.questions import Ask
from analysis.labels import configuration_text
from benchmarks.measured import ROOT, Result, at_least, at_most, reported, verdict
from tests.analysis.made_up.designs import grid
from tests.analysis.made_up.studies import study
from tests.analysis.paper_curves import families

METRIC = "held-out/top1"
COOLDOWN = 0.2
SLOTS = 2
POINT = 0.01
SHARED = {"trunks": 0.5, "near-trunks": 0.9, "apart-trunks": 0.0}
"""Simulated grids by trunks, with the correlation of a trunk's levels."""

Truth = Callable[[Mapping[str, Any], float], float]


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure what adaptive designs save and how right they are.")
    parser.add_argument("--repeats", type=int, default=20, help="orders of seeds of the embedded study (20)")
    parser.add_argument("--studies", type=int, default=200, help="simulated grids of each kind (200)")
    parser.add_argument("--only", choices=["small-full", "made-up", "paper", "cost"], help="run one part")
    options = parser.parse_args()
    parts: dict[str, Callable[[], list[Result]]] = {
        "small-full": lambda: _small_full(options.repeats),
        "made-up": lambda: _made_up(options.studies),
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
        Its last decision, the share of the grid's FLOPs that it spent, and the results that it saw.
    """
    done: list[str] = []
    spent = 0.0
    everything = tidy(results, metric=metric)
    frame = everything.frame
    while True:
        seen = replace(everything, frame=frame[frame["trial"].isin(done)].reset_index(drop=True))
        decision = decide(seen, results, ask=ask, slots=slots)
        if decision.stop:
            share = spent / float(results["train_flops"].sum())
            return decision, share, results[results["trial"].isin(done)]
        done += [pick.trial for pick in decision.picks]
        spent += sum(pick.cost_flops for pick in decision.picks)


def with_trunks(results: pd.DataFrame) -> pd.DataFrame:
    """Return results as if each curve and seed shared a trunk, whose constant part is paid once."""
    curve = curve_numbers(results.assign(budget=budgets(results)))
    trunk = pd.Series(curve, index=results.index).astype(str) + "-" + results["seed"].astype(str)
    flops = results["train_flops"]
    shorter = flops.groupby(trunk).transform(lambda of: of.sort_values().shift(fill_value=0.0))
    return results.assign(trunk=trunk, paid_flops=flops - (1 - COOLDOWN) * shorter)


def _small_full(repeats: int) -> list[Result]:
    results = pd.read_parquet(ROOT / "results" / "small-full" / "results.parquet")
    full = records(best_at_budgets(cell_draws(tidy(results, metric=METRIC), results)))
    lines = []
    for name, target in (("plain", 0.5), ("trunks", 0.35)):
        shares, agreed = [], []
        for repeat in range(repeats):
            shuffled = _shuffled(results, np.random.default_rng(repeat))
            offered = with_trunks(shuffled) if name == "trunks" else shuffled
            decision, share, _ = replay(offered, metric=METRIC, ask=Ask())
            shares.append(share)
            same = [_same(row, decision) for row in full]
            agreed.append(all(same))
            print(f"  {name} {repeat}: {share:.0%} of the FLOPs, same verdicts {same}", flush=True)
        lines += [
            at_most(f"full_{name}_share", float(np.mean(shares)), target),
            reported(f"full_{name}_largest_share", max(shares)),
            at_least(f"full_{name}_same_verdicts", float(np.mean(agreed)), 1),
        ]
    return lines


def _shuffled(results: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Return the results with the seeds of each curve renumbered at random, in the order of a plan."""
    curve = curve_numbers(results.assign(budget=budgets(results)))
    orders = [generator.permutation(int(results["seed"].max()) + 1) for _ in range(int(curve.max()) + 1)]
    seed = [int(orders[each][seed]) for each, seed in zip(curve, results["seed"], strict=True)]
    ordered = results.assign(seed=seed, curve=curve).sort_values(["curve", "level_flops", "seed"])
    return ordered.drop(columns="curve").reset_index(drop=True)


def _same(row: Mapping[str, Any], decision: Decision) -> bool:
    """Return whether a design agrees with the full grid's verdict at a level."""
    answer = next(one for one in decision.answers if one.flops == row["flops"])
    leader = configuration_text(row)
    if row["verdict"] == "clear":
        return answer.verdict == "clear" and answer.leader == leader
    return answer.verdict == "tie" and leader in answer.tied and answer.leader in str(row["tied"]).split("; ")


def _made_up(studies: int) -> list[Result]:
    lines = []
    for kind in ("designs", "floor", "broken", "shifted", *SHARED):
        found = defaultdict[str, list[float]](list)
        for number in range(studies):
            results, truth = _simulated(kind, number)
            decision, share, _ = replay(results, metric=METRIC, ask=Ask())
            found["share"].append(share)
            _judge(results, truth, decision, found)
            _forecast(results, truth, found)
        mean = {what: float(np.mean(found[what] or [0.0])) for what in ("wrong", "held", "forecast")}
        print(
            f"  {kind}: {np.mean(found['share']):.0%} of the FLOPs, {np.mean(found['clear']):.0%} clear, "
            f"the best is among the tied in {np.mean(found['tied']):.1%}, its distance to the leader is at "
            f"most {max(found['regret']):.3f}, the best was dropped in {np.mean(found['dropped']):.1%}",
            flush=True,
        )
        lines += [
            at_most(f"clear_but_wrong_{kind}", mean["wrong"], 0.10),
            at_least(f"interval_{kind}", mean["held"], 0.85),
            at_least(f"forecast_{kind}", mean["forecast"], 0.85),
        ]
    return lines


def _simulated(kind: str, number: int) -> tuple[pd.DataFrame, Truth]:
    if kind == "designs" or kind in SHARED:
        made = grid(number, shared=SHARED.get(kind, 0.0))
        results = with_trunks(made.results) if kind in SHARED else made.results
        return results, lambda row, flops: made.truth[str(row["architecture"])](flops)
    curves = study(kind, number)  # type: ignore[arg-type]
    return curves.results, lambda row, flops: float(curves.at(row, np.array([flops]))[0])


def _judge(results: pd.DataFrame, truth: Truth, decision: Decision, found: dict[str, list[float]]) -> None:
    ends = results.groupby([*CONFIGURATION], as_index=False)["level_flops"].agg(["min", "max"])
    for answer in decision.answers:
        able = ends[(ends["min"] <= answer.flops) & (ends["max"] >= answer.flops)]
        errors = {configuration_text(row): truth(row, answer.flops) for row in records(able)}
        best = min(errors, key=lambda name: errors[name])
        if answer.verdict == "clear":
            found["wrong"].append(answer.leader != best)
        found["clear"].append(answer.verdict == "clear")
        found["tied"].append(best in answer.tied)
        found["dropped"].append(best in answer.dropped)
        found["held"].append(answer.low <= errors[answer.leader] <= answer.high)
        found["regret"].append(errors[answer.leader] - errors[best])


def _forecast(results: pd.DataFrame, truth: Truth, found: dict[str, list[float]]) -> None:
    """Forecast the lowest true error at the largest level from the levels below it."""
    top = float(results["level_flops"].max())
    below, ask = results[results["level_flops"] < top], Ask(best=None, forecast=top)
    (answer,) = decide(tidy(below, metric=METRIC), below, ask=ask).answers
    best = min(truth(row, top) for row in records(results[results["level_flops"] == top]))
    found["forecast"].append(answer.low <= best <= answer.high)


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
