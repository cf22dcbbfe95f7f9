"""Simulated studies with known answers, to measure the coverage of the 90 % intervals.

The studies are those of ``studies``. Best model sizes are asked of ``valleys``, and of a table of 60 single
runs over model size and data.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
import pandas as pd

from analysis.answers.best import best_at_budgets
from analysis.answers.crossing import PAIR, comparisons
from analysis.answers.recommendation import recommend
from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws, stream
from analysis.belief.curves import read
from analysis.cells.intervals import interval
from analysis.cells.table import records
from analysis.laws.best_size import growths
from analysis.laws.laws import Law, laws
from tests.analysis.made_up.studies import FIRST, PAIRS, Study, row_at, study
from tests.analysis.made_up.valleys import Kind
from tests.analysis.synthetic import cells_of, language_models

Held = dict[str, list[bool]]

NAMES = ("band", "far", "crossover", "worth", "slope", "forecast", "recommendation")
"""Answers that have an interval; ``far``: the law `FAR` times beyond; ``slope``: its last step."""
FAR = 10.0
NOISE, SEEDS = 0.008, 3
SIZES, DATA = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e9, 10), np.geomspace(1e7, 1e10, 6)))
SURFACE_ALPHA, SURFACE_BETA, COMPUTE = 0.35, 0.3, 1e18


def ask(kind: Kind, number: int, *, draws: int = 400, shared: float = 0.0) -> Held:
    """Analyse one study and compare every answer with the true value.

    Returns:
        For each of ``NAMES``, one bool per interval: True if it contains the truth. ``right or tied`` and
        ``clear but wrong``: one bool per choice of the best, True if it is so.
    """
    made = study(kind, number, shared=shared)
    found = cells_of(made.results, draws=draws)
    fitted = tuple(laws(found, along="compute"))
    held: Held = defaultdict(list)
    for law in fitted:
        if law.status == "ok":
            line = made.at(law.identity, law.band["x"].to_numpy(np.float64))
            held["band"] += ((law.band["low"] <= line) & (line <= law.band["high"])).tolist()
            held["far"].append(_holds(found, made, law, FAR * made.levels[-1:]))
            held["slope"].append(_holds(found, made, law, made.levels[-2:]))
    crossing = _crossing(made)
    pairs = comparisons(found)
    for row in records(pairs.drop_duplicates([*PAIR])):
        if row["axis"] == "architecture" and row["crossing"] == "overtakes" and crossing:
            held["crossover"].append(row["x_low"] <= crossing <= row["x_high"])
    for row in records(pairs[pairs["axis"] == "strategy"]):
        if row["factor_low"] > 0 and isfinite(row["factor_high"]):
            held["worth"].append(row["factor_low"] <= made.worth <= row["factor_high"])
    for row in records(best_at_budgets(found)):
        _judge(held, made, row["verdict"], row["leaders"], float(row["budget"]))
    for flops in (0.6 * made.levels[-1], 2.0 * made.levels[-1]):
        _recommend(held, made, found, flops=float(flops))
    return dict(held)


def _holds(draws: CellDraws, made: Study, law: Law, at: Floats) -> bool:
    """Return whether the interval of a law holds at a compute, or that of its change between two."""
    drawn, truth = read(draws, law, at), made.at(law.identity, at)
    if len(at) > 1:
        drawn, truth = np.diff(drawn), np.diff(truth)
    low, high = interval(drawn[:, 0])
    return bool(low <= truth[0] <= high)


def _crossing(made: Study) -> float | None:
    """Return the only x within the levels at which the architectures' true curves cross."""
    at = np.geomspace(made.levels[0], made.levels[-1], 4000)
    gap = made.truth["ViT-X", "clip"](at / FIRST) - made.truth["ViT-M", "clip"](at / FIRST)
    changes = np.flatnonzero(np.diff(np.sign(gap)))
    return float(at[changes[0]]) if len(changes) == 1 else None


def _judge(
    held: Held, made: Study, verdict: str, chosen: Sequence[Mapping[str, object]], flops: float,
) -> None:  # fmt: skip
    """Count a choice of the best as right or tied with the right one, and as clear but wrong."""
    errors = {name: float(made.truth[name](np.array([flops / FIRST]))[0]) for name in made.truth}
    best = min(errors, key=lambda name: errors[name])
    names = [(str(one["architecture"]), str(one["strategy"])) for one in chosen]
    if verdict == "clear":
        held["clear but wrong"].append(names[0] != best)
    if verdict in ("clear", "tie"):
        held["right or tied"].append(best in names)


def _recommend(held: Held, made: Study, draws: CellDraws, *, flops: float) -> None:
    found = recommend(draws, flops=flops, pairs=PAIRS)
    rows = records(found.candidates)
    for row in rows:
        truth = float(made.at(row, np.array([flops]))[0])
        held["forecast"].append(row["low"] <= truth <= row["high"])
    held["recommendation"].append(held["forecast"][-len(rows)])
    leaders = [rows[place] for place in found.verdict.members]
    _judge(held, made, found.verdict.kind, leaders, flops)


def invented(number: int, *, draws: int = 400) -> bool:
    """Return whether a law is found in four levels that differ only by noise."""
    generator = stream("coverage/flat", number)
    rows = [
        row_at("ViT-X", "clip", level, seed, 0.5 + NOISE * float(generator.standard_normal()))
        for level in np.geomspace(FIRST, 27 * FIRST, 4)
        for seed in range(SEEDS)
    ]
    return laws(cells_of(pd.DataFrame(rows), draws=draws), along="compute")[0].status == "ok"


def surface(number: int, *, draws: int = 400) -> dict[str, bool]:
    """Return whether the intervals of the exponent and of the best size hold, on 60 single runs."""
    generator = stream("coverage/surface", number)
    truth = 0.2 + 30 * SIZES**-SURFACE_ALPHA + 60 * DATA**-SURFACE_BETA
    loss = truth * np.exp(0.01 * generator.standard_normal(len(SIZES)))
    runs = pd.DataFrame({"parameters": SIZES, "tokens": DATA, "loss": loss})
    (growth,) = growths(language_models(runs, draws=draws))
    # Hoffmann et al. 2022, eq. 4.
    power = 1 / (SURFACE_ALPHA + SURFACE_BETA)
    ratio = SURFACE_ALPHA * 30 / (SURFACE_BETA * 60)
    best = ratio**power * (COMPUTE / 6) ** (SURFACE_BETA * power)
    (low, high), exponent = interval(growth.best(np.array([COMPUTE]))[:, 0]), interval(growth.exponent())
    return {
        "surface_exponent": exponent[0] <= SURFACE_BETA * power <= exponent[1],
        "surface_optimum": low <= 6 * best <= high,
    }
