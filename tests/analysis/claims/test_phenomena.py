"""The shipped full grid shows the known effects of the embedded pool, with intervals above zero."""

import re
import subprocess
import sys

import pytest

from tests.root import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def judged() -> str:
    command = [sys.executable, "benchmarks/phenomena.py", "--study", "small-full"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "name",
    ["more_data_helps_points", "repetition_saturates_points", "best_size_slope", "quality_trade_slope"],
)
def test_each_truth_is_found_with_three_seeds_of_every_cell(judged: str, name: str) -> None:
    section = judged[judged.index(f"{name}: ") :]
    effect = re.search(r"^effect (\S+) \[(\S+), (\S+)\], (\d+) seeds a cell$", section, re.MULTILINE)

    assert effect is not None
    value, low, high = (float(effect[place]) for place in (1, 2, 3))
    assert 0 < low <= value <= high
    assert int(effect[4]) >= 3
    assert re.search(rf"^{name} \S+ 0 pass$", judged, re.MULTILINE)
