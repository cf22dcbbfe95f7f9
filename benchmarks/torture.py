"""Results and book of a study under many random kills, compared with an undisturbed run.

Run ``python benchmarks/torture.py [KILLS]`` from the root of the checkout (default: 200 kills). Workers and
drivers are killed, or sent a signal to stop, while they train. The last lines are name, value, target, and
pass or fail; the exit code is 1 if one fails. Each value must equal its target.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measured import at_least, at_most, printed, verdict


def main() -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(description="Kill workers and drivers of a study, and compare it.")
    parser.add_argument("kills", type=int, nargs="?", default=200, help="number of kills (200)")
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts = json.loads(printed("-m", "tests.study.run.faults.torture", folder, kills))
        print(
            f"killed: {counts['killed']}; {counts['quiet_s']:.0f} s quiet, "
            f"{counts['tortured_s']:.0f} s tortured"
        )
        tables = ("results.parquet", "curves.parquet")
        quiet, tortured = folder / "quiet", folder / "tortured"
        same = sum(pd.read_parquet(tortured / each).equals(pd.read_parquet(quiet / each)) for each in tables)
        plan = pd.read_parquet(tortured / "plan.parquet")
        book = pd.read_parquet(tortured / "spent.parquet")
    step_flops = int((plan["batch_size"] * plan["train_flops_per_sample"]).unique().item())
    wasted, kept = int(book["wasted_flops"].sum()), int(book["kept_flops"].sum())
    booked = int(book["spent_flops"].sum()) + wasted
    computed, announced = counts["steps_computed"] * step_flops, counts["steps_announced"] * step_flops
    print(f"{booked:,} FLOP booked, {wasted / booked:.1%} of them wasted; a witness counted {computed:,}")
    return verdict([
        at_least("tables_equal_to_the_quiet_run", same, len(tables)),
        at_most("flop_beside_the_witness", max(0, booked - announced, computed - booked), 0),
        at_most("flop_in_checkpoints_left", kept, 0),
        at_most("processes_left_behind", len(counts["left_behind"]), 0),
    ])  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
