"""Whether the 90 % intervals hold the truth: ``python benchmarks/coverage.py`` from the root of the checkout.

200 made-up studies with known laws, noise, seeds and crossovers are analysed. Each of the last lines says
what was measured, its value, the target, and pass or fail; the exit code is 1 when one fails.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.analysis.made_up_coverage import Repeat, repeat, share

REPEATS = 200
LOWEST, HIGHEST = 0.85, 0.95
NAMES = ("exponent", "crossover", "optimum", "surface_exponent", "surface_optimum")


def main() -> int:
    """Measures and judges."""
    began = time.process_time()
    repeats: list[Repeat] = [repeat(number) for number in range(REPEATS)]
    print(f"{REPEATS} studies in {time.process_time() - began:.1f} s of processor time")
    passed = True
    lines = []
    for name in NAMES:
        held, given = share(getattr(one, name) for one in repeats)
        print(f"{name}: {given} of {REPEATS} studies gave an interval")
        good = LOWEST <= held <= HIGHEST
        passed &= good
        lines.append(f"coverage_{name} {held:.3f} {LOWEST}-{HIGHEST} {'pass' if good else 'fail'}")
    print()
    print("\n".join(lines))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
