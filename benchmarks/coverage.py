"""Whether the 90 % intervals hold the truth: ``python benchmarks/coverage.py`` from the root of the checkout.

200 made-up studies with known laws, noise, seeds and crossovers are analysed, and 200 curves that are noise
alone. Each of the last lines says what was measured, its value, the target, and pass or fail; the exit code
is 1 when one fails.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.analysis.made_up_coverage import NAMES, Repeat, repeat, share

REPEATS = 200
LOWEST, HIGHEST = 0.85, 0.95
FOUND, INVENTED = 0.95, 0.05


def main() -> int:
    """Measures and judges."""
    began = time.process_time()
    repeats: list[Repeat] = [repeat(number) for number in range(REPEATS)]
    print(f"{REPEATS} studies in {time.process_time() - began:.1f} s of processor time")
    lines = []
    for name in NAMES:
        held, given = share(one.held[name] for one in repeats)
        print(f"{name}: {given} of {REPEATS} studies gave an interval")
        lines.append((f"coverage_{name}", held, f"{LOWEST}-{HIGHEST}", LOWEST <= held <= HIGHEST))
    found, invented = (share(getattr(one, name) for one in repeats)[0] for name in ("found", "invented"))
    lines.append(("laws_found", found, f"{FOUND}", found >= FOUND))
    lines.append(("laws_invented", invented, f"{INVENTED}", invented <= INVENTED))
    print()
    for name, value, target, good in lines:
        print(f"{name} {value:.3f} {target} {'pass' if good else 'fail'}")
    return 0 if all(line[-1] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
