"""Four known effects that a study must find, measured on the results of a real study.

Run ``python benchmarks/phenomena.py`` from the root of the checkout. It runs the study ``phenomena.yaml``
(three seeds per cell) through the whole pipeline, or uses the results of a finished study: ``--study
small-full`` judges the shipped full grid in seconds. The effects:

* more data helps at equal samples: the error on the smallest set minus that on the largest;
* repeating a small set saturates: from the level at which the smallest set has been seen sixteen times
  (Muennighoff et al. 2023: repeated data then lose their worth) to the largest level, the gain on the largest
  set minus the gain on the smallest;
* the best model size grows with the level: slope of ln(best size) over ln(level);
* the quality trade moves with compute: slope of ln(best fraction of the pool) over ln(level).

Each effect has the analysis' 90 % interval over resampled runs, and passes if the whole interval is above
zero. The last lines are name, value, target, and pass or fail; the exit code is 1 if one fails.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.answers.contrasts import Comparison, comparisons, densest
from analysis.answers.quality_trade import quality_trades
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws, cell_draws
from analysis.cells.intervals import interval
from analysis.cells.table import tidy
from analysis.labels import held_text
from analysis.sizes.size_profile import IsoFlopCurve, isoflop_curves
from benchmarks.measured import ROOT, Result, verdict
from budgets.cost.architecture import family_of
from budgets.quantity import format_flops
from runners.results import read_table
from study.declare.load import find_declaration, load_declaration

SEEDS, LEVELS, SIZES = 3, 2, 3
REPEATED = 16  # epochs


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One measured effect.

    Attributes:
        name: Name in the output.
        about: The configurations compared.
        table: The measurements, one row per level.
        effect: The effect, as measured.
        low: Lower end of its interval.
        high: Upper end of its interval.
        runs: Smallest number of seeds of a cell used.
    """

    name: str
    about: str
    table: pd.DataFrame
    effect: float
    low: float
    high: float
    runs: int

    @property
    def holds(self) -> bool:
        """True if the interval is above zero and based on enough seeds."""
        return self.low > 0 and self.runs >= SEEDS


def more_data(draws: CellDraws) -> Judged:
    """Compare the smallest with the largest subset of one quality and model; the top level decides."""
    found = _sizes(draws)
    for each in found:
        samples = draws.cells["samples_seen"].to_numpy()[each.positions]
        assert np.ptp(samples) == 0, "equal compute of one model is equal samples"
    error = draws.with_measured()
    last = found[-1].positions
    gain = 100 * (error[:, last[0]] - error[:, last[-1]])
    return _judged("more_data_helps_points", draws, found, gain, _by_size(draws, found))


def saturation(draws: CellDraws) -> Judged:
    """Compare the gain from more compute on the largest subset with that on the smallest, repeated one."""
    found = _sizes(draws)
    epochs = draws.cells["epochs"].to_numpy()
    repeated = [each for each in found if epochs[each.positions[0]] >= REPEATED]
    if len(repeated) < LEVELS:
        raise SystemExit(f"no two levels see the smallest set {REPEATED} times")
    error = draws.with_measured()
    gains = 100 * (error[:, repeated[0].positions] - error[:, repeated[-1].positions])
    table = _by_size(draws, found).diff().dropna().add_prefix("gain on ")
    table["epochs of the smallest"] = [f"{epochs[each.positions[0]]:.0f}" for each in found[1:]]
    effect = gains[:, -1] - gains[:, 0]
    return _judged("repetition_saturates_points", draws, repeated, effect, table)


def best_size(draws: CellDraws) -> Judged:
    """Measure the growth of the best model size of one family with the level, on the same data."""
    ways: dict[str, list[IsoFlopCurve]] = {}
    for curve in isoflop_curves(draws):
        if len(curve.positions) >= SIZES:
            way = str([value for name, value in curve.identity.items() if name != "budget"])
            ways.setdefault(way, []).append(curve)
    chosen = max(ways.values(), key=lambda way: (len(way), sum(len(each.positions) for each in way)))
    assert len(chosen) >= LEVELS, "a study of several sizes has several levels"
    sizes = draws.column("train_flops_per_sample")
    error = draws.with_measured()
    best = np.stack([sizes[c.positions[error[:, c.positions].argmin(axis=1)]] for c in chosen])
    levels = [float(c.identity["budget"]) for c in chosen]
    names = draws.cells["architecture"].to_numpy()
    table = pd.DataFrame(
        {
            names[p]: [100 - 100 * error[0, c.positions[i]] for c in chosen]
            for i, p in enumerate(chosen[0].positions)
        },
        index=[format_flops(level) for level in levels],
    )
    table["best size"] = [format_flops(row[0]) for row in best]
    table["90 %"] = ["{} … {}".format(*map(format_flops, interval(row[1:]))) for row in best]
    positions = np.concatenate([c.positions for c in chosen])
    about = f"{family_of(str(names[positions[0]]), {})}, {held_text(chosen[0].identity)}"
    low, high = interval(_slopes(levels, best)[1:])
    return Judged(
        name="best_size_slope", about=about, table=table, effect=float(_slopes(levels, best)[0]), low=low,
        high=high, runs=int(draws.cells["runs"].to_numpy()[positions].min()),
    )  # fmt: skip


def quality_trade(draws: CellDraws) -> Judged:
    """Measure the growth of the best share of the pool with the level."""
    trades = [each for each in quality_trades(draws) if each.along == "budget"]
    trade = max(trades, key=lambda each: len(each.best))
    held = {name: trade.held[name] for name in ("architecture", "strategy")}
    here = np.logical_and.reduce([(draws.cells[name] == value).to_numpy() for name, value in held.items()])
    rows = draws.cells[here].assign(top1=100 - 100 * draws.cells["error"])
    largest = rows[rows["subset_size"] == rows.groupby(["budget", "quality"])["subset_size"].transform("max")]
    table = largest.pivot_table(index="budget", columns="quality", values="top1")
    order = largest.groupby("quality")["subset_size"].max().sort_values().index
    table = table[order].set_axis([format_flops(level) for level in table.index])
    table.columns.name = None
    table["best fraction"] = [f"{value:.0%}" for value in trade.best["fraction"]]
    table["90 %"] = [f"{a:.0%} … {b:.0%}" for a, b in zip(trade.best["low"], trade.best["high"], strict=True)]
    return Judged(
        name="quality_trade_slope", about=f"{held_text(held)}; {trade.verdict}: {trade.reason}", table=table,
        effect=trade.slope, low=trade.slope_low, high=trade.slope_high, runs=int(largest["runs"].min()),
    )  # fmt: skip


QUESTIONS: tuple[Callable[[CellDraws], Judged], ...] = (more_data, saturation, best_size, quality_trade)


def _sizes(draws: CellDraws) -> list[Comparison]:
    found = densest(comparisons(draws, "subset_size"))
    if len(found) < LEVELS:
        raise SystemExit("the study compares no two subset sizes at two levels")
    return found


def _by_size(draws: CellDraws, found: list[Comparison]) -> pd.DataFrame:
    cells = draws.cells
    return pd.DataFrame(
        [100 - 100 * cells["error"].to_numpy()[each.positions] for each in found],
        index=[format_flops(float(each.held["budget"])) for each in found],
        columns=[f"{size:,} pairs" for size in cells["subset_size"].to_numpy()[found[0].positions]],
    )


def _judged(
    name: str, draws: CellDraws, found: list[Comparison], effects: Floats, table: pd.DataFrame
) -> Judged:
    """Return an effect from its measured value (first) and its draws (the rest)."""
    low, high = interval(effects[1:])
    ends = np.concatenate([each.positions for each in found])
    return Judged(
        name=name, about=held_text(found[0].held), table=table, effect=float(effects[0]), low=low, high=high,
        runs=int(draws.cells["runs"].to_numpy()[ends].min()),
    )  # fmt: skip


def _slopes(x: list[float], y: Floats) -> Floats:
    """Return the slope of ln y, (points, draws), over ln x."""
    centred = np.log(x) - np.log(x).mean()
    return np.asarray(centred @ np.log(y) / (centred @ centred), np.float64)


def results_of(study: str, results: Path, pools: Path) -> tuple[pd.DataFrame, str]:
    """Return a study's results and metric; run it first unless all of its trials have finished."""
    declaration = load_declaration(find_declaration(study))
    folder = results / declaration.name
    if not _finished(folder):
        folders = ["--results", str(results), "--pools", str(pools)]
        command = [sys.executable, "-m", "study", "run", study, *folders]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            raise SystemExit(f"the run of {study} failed or is incomplete")
    return read_table(folder / "results.parquet"), declaration.metric


def _finished(folder: Path) -> bool:
    files = [folder / name for name in ("plan.parquet", "results.parquet")]
    if not all(file.exists() for file in files):
        return False
    plan, results = map(read_table, files)
    return set(plan["trial"]) <= set(results["trial"][results["status"] == "finished"])


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Check that a study finds four known effects.")
    parser.add_argument("--study", default=str(ROOT / "benchmarks" / "phenomena.yaml"))
    parser.add_argument("--results", type=Path, default=ROOT / "results", metavar="FOLDER")
    parser.add_argument("--pools", type=Path, default=ROOT / "pools", metavar="FOLDER")
    options = parser.parse_args()
    results, metric = results_of(options.study, options.results.resolve(), options.pools.resolve())
    draws = cell_draws(tidy(results, metric=metric), question="phenomena")
    print(f"{len(results)} trials, {metric}, accuracies in %; {draws.explanation}")
    judged = [ask(draws) for ask in QUESTIONS]
    for each in judged:
        print(f"\n{each.name}: {each.about}\n{each.table.to_string(float_format='{:.1f}'.format)}")
        print(f"effect {each.effect:.3g} [{each.low:.3g}, {each.high:.3g}], {each.runs} seeds a cell")
    return verdict([Result(each.name, each.effect, "0", each.holds) for each in judged])


if __name__ == "__main__":
    sys.exit(main())
