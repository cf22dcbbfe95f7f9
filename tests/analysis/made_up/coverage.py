"""Simulated studies with known answers, to measure the coverage of the 90 % intervals.

A study has two architectures whose curves cross, and a strategy that is worth a known factor of compute. Its
curves are of one of three forms: a power law with floor, a smoothly broken power law (Caballero et al. 2023,
eq. 1) or a shifted one. It has four to six levels spaced 3×, two or three seeds, noise that differs by up to
three times from configuration to configuration, and one cell is missing. Best model sizes are asked of
``valleys``, exponents of the surface of a table of 60 single runs over model size and data.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import pandas as pd

from analysis.answers.crossover import crossovers
from analysis.answers.equivalence import equivalences
from analysis.answers.frontier import frontier
from analysis.answers.recommendation import recommend
from analysis.arrays import Floats
from analysis.cells.bootstrap import CellDraws, stream
from analysis.cells.intervals import column_intervals, intervals
from analysis.cells.table import records
from analysis.laws.forms import FLOOR, FLOOR_SHIFT, POWER, Form
from analysis.laws.holdout import holdout
from analysis.laws.laws import Law, laws
from analysis.laws.surface import fit, fit_draws
from tests.analysis.made_up.valleys import Kind
from tests.analysis.synthetic import cells_of, trial_row

Truth = Callable[[Floats], Floats]
Held = dict[str, list[bool]]

FIRST = 2e11
PAIRS = 8192
NAMES = ("band", "far", "crossover", "worth", "exponent", "forecast", "recommendation")
"""Answers that have an interval; ``far`` is the law at `FAR` times the largest level."""
FAR = 10.0
NOISE, SEEDS, IMAGES = 0.008, 3, 50_000.0
SIZES, DATA = (g.ravel() for g in np.meshgrid(np.geomspace(1e6, 1e9, 10), np.geomspace(1e7, 1e10, 6)))
SURFACE_ALPHA, COMPUTE = 0.35, 1e18


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A simulated study.

    Attributes:
        results: Its table.
        truth: Architecture and strategy → the true error at a compute in units of ``FIRST``.
        worth: The factor of compute that the strategy is worth.
        alpha: The true exponent; NaN where a broken law has several.
        levels: Training FLOPs.
    """

    results: pd.DataFrame
    truth: Mapping[tuple[str, str], Truth]
    worth: float
    alpha: float
    levels: Floats

    def at(self, identity: Mapping[str, object], flops: Floats) -> Floats:
        """Return the true errors of a configuration."""
        return self.truth[str(identity["architecture"]), str(identity["strategy"])](flops / FIRST)


def study(kind: Kind, number: int, *, shared: float = 0.0) -> Study:
    """Make a simulated study; ``shared`` is the correlation of the levels of a trunk, 0 for none."""
    generator = stream(f"coverage/{kind}", number)
    alpha = float(generator.uniform(0.3, 0.55)) * (1.5 if kind == "shifted" else 1.0)
    floor, scale = generator.uniform(0.3, 0.45), generator.uniform(0.25, 0.4)
    small = _curve(kind, generator, floor, scale, alpha)
    large = _curve(
        kind, generator, floor - generator.uniform(0.1, 0.18), scale + generator.uniform(0.2, 0.3), alpha
    )
    worth = float(np.exp(generator.uniform(-0.7, 0.9)))
    truth: dict[tuple[str, str], Truth] = {
        ("ViT-X", "clip"): small, ("ViT-M", "clip"): large, ("ViT-X", "flip-50"): lambda u: small(worth * u),
    }  # fmt: skip
    count = int(generator.integers(4, 7))
    levels = np.geomspace(FIRST, FIRST * 3.0 ** (count - 1), count)
    seeds, missing = int(generator.integers(2, 4)), int(generator.integers(3 * len(levels)))
    rows = []
    for place, (name, line) in enumerate(truth.items()):
        noise = float(np.exp(generator.uniform(np.log(0.004), np.log(0.012))))
        common = stream(f"coverage/{kind}/{place}", number).standard_normal(seeds)
        for level in range(len(levels)):
            own = generator.standard_normal(seeds)
            errors = float(line(levels[[level]] / FIRST)[0]) + noise * (
                np.sqrt(shared) * common + np.sqrt(1 - shared) * own
            )
            if place * len(levels) + level != missing:
                rows += [
                    _row(*name, levels[level], seed, error) | {"trunk": f"{name}-{seed}" if shared else ""}
                    for seed, error in enumerate(errors)
                ]
    return Study(
        results=pd.DataFrame(rows), truth=truth, worth=worth, levels=levels,
        alpha=float("nan") if kind == "broken" else alpha,
    )  # fmt: skip


def _curve(kind: Kind, generator: np.random.Generator, floor: float, scale: float, alpha: float) -> Truth:
    if kind == "floor":
        return lambda u: np.asarray(floor + scale * u**-alpha)
    if kind == "shifted":
        shift = generator.uniform(1, 6)
        return lambda u: np.asarray(floor + scale * ((u + shift) / (1 + shift)) ** -alpha)
    change, at = generator.uniform(0.3, 0.8), 10 ** generator.uniform(0.5, 1.8)
    bend = change * alpha
    return lambda u: np.asarray(
        floor + scale * u ** (-0.4 * alpha) * ((1 + (u / at) ** 2) / (1 + at**-2)) ** -bend
    )


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
        if law.fit.supported:
            line = made.at(law.identity, law.band["x"].to_numpy(np.float64))
            held["band"] += ((law.band["low"] <= line) & (line <= law.band["high"])).tolist()
            held["far"] += _far(made, law)
            if law.fit.form in (FLOOR, FLOOR_SHIFT) and law.fit.form == _form(kind):
                held["exponent"].append(law.alpha.low <= made.alpha <= law.alpha.high)
    crossing = _crossing(made)
    for row in records(crossovers(found, fitted, along="compute")):
        if row["axis"] == "architecture" and row["verdict"] == "overtakes" and crossing:
            held["crossover"].append(row["low"] <= crossing <= row["high"])
    for row in records(equivalences(found, fitted, along="compute")):
        if row["low"] > 0 and isfinite(row["high"]):
            held["worth"].append(row["low"] <= made.worth <= row["high"])
    for row in records(frontier(found)):
        here = made.results[made.results["level_flops"] == row["budget"]]
        tried = set(zip(here["architecture"], here["strategy"], strict=True))
        _judge(held, made, tried, row["verdict"], row["leaders"], float(row["budget"]))
    for flops in (0.6 * made.levels[-1], 2.0 * made.levels[-1]):
        _recommend(held, made, found, fitted, flops=float(flops))
    return dict(held)


def _form(kind: Kind) -> Form:
    return {"floor": FLOOR, "shifted": FLOOR_SHIFT}.get(kind, POWER)


def _far(made: Study, law: Law) -> list[bool]:
    """Return whether the law's interval far beyond its levels holds; empty without an interval."""
    if law.drawn is None or not law.informed:
        return []
    at = FAR * made.levels[-1:]
    low, high = column_intervals(law.drawn(at)[1 : 1 + law.refits])
    return [bool(low[0] <= made.at(law.identity, at)[0] <= high[0])]


def _crossing(made: Study) -> float | None:
    """Return the only x within the levels at which the architectures' true curves cross."""
    at = np.geomspace(made.levels[0], made.levels[-1], 4000)
    gap = made.truth["ViT-X", "clip"](at / FIRST) - made.truth["ViT-M", "clip"](at / FIRST)
    changes = np.flatnonzero(np.diff(np.sign(gap)))
    return float(at[changes[0]]) if len(changes) == 1 else None


def _judge(
    held: Held, made: Study, tried: set[tuple[str, str]], verdict: str,
    chosen: Sequence[Mapping[str, object]], flops: float,
) -> None:  # fmt: skip
    """Count a choice of the best as right or tied with the right one, and as clear but wrong."""
    errors = {name: float(made.truth[name](np.array([flops / FIRST]))[0]) for name in tried}
    best = min(errors, key=lambda name: errors[name])
    names = [(str(one["architecture"]), str(one["strategy"])) for one in chosen]
    if verdict == "clear":
        held["clear but wrong"].append(names[0] != best)
    if verdict in ("clear", "tie"):
        held["right or tied"].append(best in names)


def _recommend(held: Held, made: Study, draws: CellDraws, fitted: tuple[Law, ...], *, flops: float) -> None:
    found = recommend(draws, fitted, holdout(draws, fitted), flops=flops, pairs=PAIRS)
    rows = records(found.candidates)
    for row in rows:
        if not row["measured"]:
            truth = float(made.at(row, np.array([row["flops"]]))[0])
            held["forecast"].append(row["low"] <= truth <= row["high"])
            if row is rows[0]:
                held["recommendation"].append(row["low"] <= truth <= row["high"])
    if all(row["flops"] == flops for row in rows):
        members = found.choice.members if found.choice.verdict == "tie" else (found.choice.leader,)
        _judge(held, made, set(made.truth), found.choice.verdict, [rows[place] for place in members], flops)


def _row(architecture: str, strategy: str, level: float, seed: int, error: float) -> dict[str, object]:
    # x exactly at the level, and so many images that counting them is not the noise.
    row = trial_row((PAIRS, "all", architecture, strategy), level, seed, float(np.clip(error, 0.001, 0.999)))
    return row | {"train_flops": level, "paid_flops": level, "held-out/count": IMAGES}


def invented(number: int, *, draws: int = 400) -> bool:
    """Return whether a law is found in four levels that differ only by noise."""
    generator = stream("coverage/flat", number)
    rows = [
        _row("ViT-X", "clip", level, seed, 0.5 + NOISE * float(generator.standard_normal()))
        for level in np.geomspace(FIRST, 27 * FIRST, 4)
        for seed in range(SEEDS)
    ]
    return laws(cells_of(pd.DataFrame(rows), draws=draws), along="compute")[0].fit.supported


def surface(number: int, *, draws: int = 400) -> dict[str, bool]:
    """Return whether a surface's intervals contain the true exponent and best size, on 60 single runs."""
    generator = stream("coverage/surface", number)
    truth = 0.2 + 30 * SIZES**-SURFACE_ALPHA + 60 * DATA**-0.3
    y = truth * np.exp(0.01 * generator.standard_normal(len(SIZES)))
    around = fit(SIZES, DATA, y)
    resampled = generator.multinomial(len(y), np.full(len(y), 1 / len(y)), size=draws).astype(np.float64)
    weights = [np.ones((1, len(y))), resampled, 1.0 - np.eye(len(y))]
    stack = fit_draws(SIZES, DATA, y[None, :], weights=np.concatenate(weights), around=around)
    best = (SURFACE_ALPHA * 30 / (0.3 * 60)) ** (1 / 0.65) * (COMPUTE / 6) ** (0.3 / 0.65)
    # Hoffmann et al. 2022, eq. 4, of each draw.
    power = 1 / (stack.alpha + stack.beta)
    ratio = stack.alpha * stack.a / (stack.beta * stack.b)
    sizes = ratio**power * (COMPUTE / 6) ** (stack.beta * power)
    exponent, optimum = (intervals(values, draws) for values in (stack.alpha, sizes))
    return {
        "surface_exponent": exponent.low <= SURFACE_ALPHA <= exponent.high,
        "surface_optimum": optimum.low <= best <= optimum.high,
    }
