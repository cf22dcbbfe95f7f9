"""Accuracy and speed of fitting the scaling-law surface, compared with scipy and the package chinchilla.

Run ``python benchmarks/fit.py`` from the root of the checkout.

Points are fitted by this project; by scipy's L-BFGS-B from 4,500 starts with finite differences, the usual
way in publications; and by the public package ``chinchilla`` if it is installed (the extra ``benchmark``, or
another Python given by ``--chinchilla PYTHON``). The points are the 240 of Hoffmann et al. 2022, figure 4, if
``--points CSV`` names them; otherwise 240 points simulated from the law that Besiroglu et al. 2024 fitted to
those. Seconds are processor time. The last lines are name, value, target, and pass or fail; the exit code is
1 if one fails. Agreement and ``_over_ours`` must reach their target; the others must not exceed it.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.optimize import OptimizeResult, minimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.arrays import Floats
from analysis.laws.surface import HUBER_DELTA, fit, fit_draws
from benchmarks.measured import Result, at_least, at_most, best_of, printed, verdict

T = TypeVar("T")

PUBLISHED = (1.81722, 477.83, 2143.42, 0.34731, 0.36717, 0.001018274)
DRAWS, SAMPLE, STARTS = 4000, 40, 100
SAME = 1.000001  # to six digits
LARGE, SMALL = (0, 5, 10, 15, 20, 25), (0, 0.5, 1, 1.5, 2)
GRID = ((-1, -0.5, 0, 0.5, 1), LARGE, LARGE, SMALL, SMALL)  # ln E, ln A, ln B, α, β
PACKAGE = """
import json, resource, sys, tempfile
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber

def spent():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

grid = {"e": [-1, 0.5], "a": [5, 15], "b": [5, 15], "alpha": [0.3, 1], "beta": [0.3, 1]}
with tempfile.TemporaryDirectory() as folder:
    law = Chinchilla(folder, grid, {}, loss_fn=lambda y, p: log_huber(y, p, 1e-3), log_level=50)
    law.visualizer.optim = lambda *_, **__: None  # do not time its plots
    for n, d, y in json.load(open(sys.argv[1])):
        law.database.append(N=n, D=d, loss=y)
    began = spent()
    law.fit()
    print(json.dumps([spent() - began, *map(float, (law.E, law.A, law.B, law.alpha, law.beta))]))
"""
WHOLE = """
import time
import numpy as np, pandas as pd
from analysis.report.analyse import analyse
from analysis.cells.study_frames import StudyFrames
from tests.analysis.synthetic import study

base = study(levels=tuple(np.geomspace(2e11, 1e13, 6))).results
copies = [
    base.assign(trial=base["trial"] + f"-{k}", subset_size=base["subset_size"] + 10_000 * k)
    for k in range(51)
]
many = pd.concat(copies, ignore_index=True).iloc[:10_000]
began = time.process_time()
analyse(StudyFrames(name="many", metric="held-out/top1", results=many))
print(time.process_time() - began)
"""


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure accuracy and speed of fitting.")
    parser.add_argument(
        "--points", type=Path, metavar="CSV", help="as epoch-research/analyzing-chinchilla has them"
    )
    parser.add_argument("--starts", type=int, default=4500, help="starts of scipy's search (default: 4500)")
    parser.add_argument("--chinchilla", default=sys.executable, metavar="PYTHON")
    options = parser.parse_args()
    if options.points and not options.points.exists():
        raise SystemExit(f"no such table: {options.points}")
    points = _points(options.points) if options.points else _simulated()
    lines = [
        *_measure(points, options.starts, options.chinchilla, published=options.points is not None),
        at_most("import_s", best_of(3, [sys.executable, "-c", "import analysis.report.report"])[1], 1.0),
        at_most("analyse_10000_trials_s", float(printed("-c", WHOLE)), 30.0),
    ]
    return verdict(lines, ".6g")


def _measure(
    points: tuple[Floats, Floats, Floats], starts: int, package: str, *, published: bool
) -> list[Result]:
    n, d, y = points
    seconds, found = min((_timed(lambda: fit(n, d, y)) for _ in range(5)), key=lambda run: run[0])
    values = (found.floor, found.a, found.b, found.alpha, found.beta, found.objective)
    print("this project:", " ".join(f"{value:.7g}" for value in values), f"in {seconds:.4f} s")
    exponents = np.exp(np.random.default_rng(0).uniform(np.log(0.03), np.log(3), (STARTS, 2)))
    lines = [
        at_most("fit_s", seconds, 0.05),
        at_least("random_starts_agreeing", fit(n, d, y, starts=exponents).agreement, STARTS),
    ]
    if published:
        off = max(abs(v / t - 1) for v, t in zip(values, PUBLISHED, strict=True))
        lines.append(at_most("fit_off_published", off, 1e-5))
    generator = np.random.default_rng(1)
    weights = generator.multinomial(len(y), np.full(len(y), 1 / len(y)), size=DRAWS).astype(np.float64)
    ours, drawn = _timed(lambda: fit_draws(n, d, y[None, :], weights=weights, around=found))
    lines.append(at_most("bootstrap_4000_s", ours, 2.0))

    every = list(itertools.product(*GRID))
    tried = every[:: max(1, len(every) // starts)][:starts]
    once = np.ones(len(y))
    theirs, ends = _timed(lambda: [_search(points, np.array(x), once).fun for x in tried])
    print(f"scipy L-BFGS-B, {len(tried):,} starts: objective {min(ends):.9g} in {theirs:.1f} s")
    lines.append(at_least("scipy_seconds_over_ours", theirs / seconds, 1.0))
    lines.append(at_most("objective_over_scipys", found.objective / min(ends), SAME))

    # The fastest way to resample with scipy: one search per draw, from the optimum of all data.
    start = np.array([*np.log(values[:3]), found.alpha, found.beta])
    each, lowest = _timed(lambda: [_search(points, start, weights[draw]).fun for draw in range(SAMPLE)])
    print(f"scipy, one start a draw: {each * DRAWS / SAMPLE:.0f} s for {DRAWS}, measured on {SAMPLE}")
    lines.append(at_least("scipy_bootstrap_seconds_over_ours", each * DRAWS / SAMPLE / ours, 20.0))
    lines.append(at_most("draw_over_scipys_at_most", float((drawn.objective[:SAMPLE] / lowest).max()), SAME))
    return lines + _package(package, points, seconds, found.objective)


def _points(path: Path) -> tuple[Floats, Floats, Floats]:
    """Return model sizes, tokens and losses, without the five highest losses."""
    table = pd.read_csv(path).sort_values("loss").iloc[:-5]
    n = table["Model Size"].to_numpy(np.float64)
    return n, table["Training FLOP"].to_numpy(np.float64) / (6 * n), table["loss"].to_numpy(np.float64)


def _simulated() -> tuple[Floats, Floats, Floats]:
    """Return 240 points of the published law over the published range, with half a percent of scatter."""
    floor, a, b, alpha, beta, _ = PUBLISHED
    generator = np.random.default_rng(0)
    n = np.exp(generator.uniform(np.log(5e7), np.log(1.6e10), 240))
    d = np.exp(generator.uniform(np.log(1e18), np.log(3e21), 240)) / (6 * n)
    return n, d, (floor + a * n**-alpha + b * d**-beta) * np.exp(0.005 * generator.standard_normal(240))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def _objective(theta: Floats, points: tuple[Floats, Floats, Floats], weights: Floats) -> float:
    e, a, b, alpha, beta = theta
    log_n, log_d, log_y = (np.log(values) for values in points)
    terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
    top = terms.max(axis=0)
    residual = np.abs(log_y - top - np.log(np.exp(terms - top).sum(axis=0)))
    loss = np.where(residual <= HUBER_DELTA, residual**2 / 2, HUBER_DELTA * (residual - HUBER_DELTA / 2))
    return float(weights @ loss)


def _search(points: tuple[Floats, Floats, Floats], start: Floats, weights: Floats) -> OptimizeResult:
    # The tightest tolerances that finite differences allow: by default the search stops far from the optimum.
    options = {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 2000, "maxfun": 20000}
    return minimize(_objective, start, args=(points, weights), method="L-BFGS-B", options=options)


def _package(
    python: str, points: tuple[Floats, Floats, Floats], seconds: float, objective: float
) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.json"
        path.write_text(json.dumps(np.stack(points, axis=1).tolist()), encoding="utf-8")
        words = [python, "-c", PACKAGE, str(path)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        print(f"the package chinchilla is not installed or failed: {done.stderr.strip().splitlines()[-1]}")
        return []
    theirs, *law = json.loads(done.stdout.splitlines()[-1])
    value = _objective(np.array([*np.log(law[:3]), *law[3:]]), points, np.ones(len(points[0])))
    print("chinchilla, 32 starts:", " ".join(f"{v:.6g}" for v in (*law, value)), f"in {theirs:.2f} s")
    return [
        at_least("chinchilla_seconds_over_ours", theirs / seconds, 1.0),
        at_most("objective_over_chinchillas", objective / value, SAME),
    ]


if __name__ == "__main__":
    sys.exit(main())
