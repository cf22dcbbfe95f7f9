"""Coverage of intervals and correctness of verdicts, on simulated studies with known answers.

Run ``python benchmarks/coverage.py`` from the root of the checkout; ``--studies 30`` is a quick version.

The cases are curves of three forms (``tests/analysis/made_up/coverage.py``), best model sizes of four shapes
(``valleys.py`` beside), choices between configurations of equal true error, curves of pure noise, tables of
single runs, and the paper's digitised curves with one cell left out in turn. The last lines are name, value,
target, and pass or fail; the exit code is 1 if one fails. Shares of wrong, clear and invented answers must
not exceed their target; the others must reach it.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.belief.cell_draws import cell_draws
from analysis.laws.laws import laws
from benchmarks.measured import Result, at_least, at_most, verdict
from tests.analysis.made_up.coverage import NAMES, Held, ask, invented, surface
from tests.analysis.made_up.two_configurations import share_of_clear
from tests.analysis.made_up.valleys import KINDS, SHAPES, best_sizes
from tests.analysis.paper_curves import families, left_out

LOWEST, HIGHEST = 0.85, 0.95
RIGHT, WRONG, INVENTED = 0.95, 0.10, 0.05
RATIOS = (1.0, 2.0, 4.0)


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how often intervals contain the true value.")
    parser.add_argument(
        "--studies", type=int, default=300, help="simulated studies of each form (default: 300)"
    )
    studies = parser.parse_args().studies
    lines: list[Result] = []
    for part in (_studies, _sizes, _equal, _noise, _surfaces):
        began = time.process_time()
        lines += part(studies)
        print(
            f"{part.__name__.strip('_')}: {time.process_time() - began:.0f} s of processor time", flush=True
        )
    lines.append(_paper())
    return verdict(lines, ".3f")


def _studies(studies: int) -> list[Result]:
    lines = []
    for kind in KINDS:
        held: Held = defaultdict(list)
        for number in range(studies):
            for name, answers in ask(kind, number).items():
                held[name] += answers
        print(f"{kind}: {', '.join(f'{name} {len(answers)}' for name, answers in held.items())}")
        lines += [at_least(f"{name}_{kind}", _share(held[name]), LOWEST) for name in NAMES if held[name]]
        lines += [
            at_least(f"right_or_tied_{kind}", _share(held["right or tied"]), RIGHT),
            at_most(f"clear_but_wrong_{kind}", _share(held["clear but wrong"]), WRONG),
        ]
    return lines


def _sizes(studies: int) -> list[Result]:
    lines = []
    for kind in SHAPES:
        # Four budgets a study, with the noise of a third of the counting noise.
        profiles = [one for number in range(studies // 4) for one in best_sizes(kind, number, noise=0.3)]
        given = [one for one in profiles if one.given]
        print(f"{kind}: best sizes of {len(given)} of {len(profiles)} profiles")
        lines.append(at_least(f"size_{kind}", _share(one.held for one in given), LOWEST))
    return lines


def _equal(studies: int) -> list[Result]:
    return [
        at_most(f"clear_of_equal_noise_ratio_{ratio:.0f}", share_of_clear(ratio, repeats=studies), WRONG)
        for ratio in RATIOS
    ]


def _noise(studies: int) -> list[Result]:
    return [at_most("laws_invented", _share(invented(number) for number in range(studies)), INVENTED)]


def _surfaces(studies: int) -> list[Result]:
    surfaces = [surface(number) for number in range(studies)]
    return [at_least(name, _share(one[name] for one in surfaces), LOWEST) for name in surfaces[0]]


def _share(held: Iterable[bool]) -> float:
    """Return the share of true values; NaN if there are none."""
    listed = list(held)
    return float(np.mean(listed)) if listed else float("nan")


def _paper() -> Result:
    held = []
    for _, along, trials in families():
        draws = cell_draws(trials)
        for law in laws(draws, along=along):
            if len(law.positions) >= 4:  # noqa: PLR2004 (a line needs some besides the one left out)
                for place in law.positions.tolist():
                    held += left_out(trials, draws, [law], along, [place])
    print(f"the paper: {len(held)} cells left out in turn")
    value = _share(held)
    return Result("band_paper", value, f"{LOWEST}-{HIGHEST}", LOWEST <= value <= HIGHEST)


if __name__ == "__main__":
    sys.exit(main())
