"""The shipped full grid has four known effects of CLIP training, each with its 90 % interval above zero."""

from typing import Any

import numpy as np
import pytest

from analysis.answers.contrasts import compared
from analysis.answers.crossing import quality_trades
from analysis.arrays import Floats, Indices
from analysis.belief.cell_draws import CellDraws, cell_draws
from analysis.cells.intervals import interval
from analysis.cells.table import records, tidy
from runners.results import read_table
from tests.root import ROOT

pytestmark = pytest.mark.slow

Comparison = tuple[dict[str, Any], Indices]

REPEATED = 16
"""Epochs after which repeated data lose their worth (Muennighoff et al. 2023)."""


@pytest.fixture(scope="module")
def draws() -> CellDraws:
    results = read_table(ROOT / "results" / "small-full" / "results.parquet")
    return cell_draws(tidy(results, metric="held-out/top1"))


def densest(draws: CellDraws, axis: str) -> list[Comparison]:
    """Return the comparisons that share the fixed parts under which most cells are compared, by budget."""
    ways: dict[str, list[Comparison]] = {}
    for one in compared(draws, axis):
        ways.setdefault(str({**one[0], "budget": None}), []).append(one)
    most = max(ways.values(), key=lambda way: sum(len(positions) for _, positions in way))
    return sorted(most, key=lambda one: float(one[0]["budget"]))


@pytest.fixture(scope="module")
def sizes(draws: CellDraws) -> list[Comparison]:
    """Return the comparisons of 1,024, 4,096 and 13,108 pairs of one quality and model, by level."""
    found = densest(draws, "subset_size")
    assert len(found) == 4
    return found


def check(draws: CellDraws, positions: Indices, effect: Floats, measured: float) -> None:
    """Check an effect, measured (first) and drawn (the rest), of cells with three seeds or more."""
    low, high = interval(effect[1:])
    assert draws.cells["runs"].to_numpy()[positions].min() >= 3
    assert effect[0] == pytest.approx(measured, rel=0.005)
    assert 0 < low <= effect[0] <= high


def test_more_data_helps_at_equal_samples(draws: CellDraws, sizes: list[Comparison]) -> None:
    _, largest = sizes[-1]
    samples = draws.cells["samples_seen"].to_numpy()[largest]
    assert np.ptp(samples) == 0, "equal compute of one model is equal samples"
    error = draws.with_measured()
    check(draws, largest, 100 * (error[:, largest[0]] - error[:, largest[-1]]), 24.4)


def test_repeating_a_small_set_saturates(draws: CellDraws, sizes: list[Comparison]) -> None:
    epochs, error = draws.cells["epochs"].to_numpy(), draws.with_measured()
    repeated = [positions for _, positions in sizes if epochs[positions[0]] >= REPEATED]
    # By how much less the small set gains than the large one, from its sixteenth epoch to the largest level.
    gain = 100 * (error[:, repeated[0]] - error[:, repeated[-1]])
    assert len(repeated) > 1
    check(draws, np.concatenate([repeated[0], repeated[-1]]), gain[:, -1] - gain[:, 0], 13.3)


def test_the_best_model_grows_with_compute(draws: CellDraws) -> None:
    found = densest(draws, "architecture")
    assert len(found) == 4
    vit = (draws.cells["family"] != "ConvNeXt").to_numpy(bool)
    levels = [positions[vit[positions]] for _, positions in found]
    assert all(len(places) >= 3 for places in levels)
    cost, error = draws.column("train_flops_per_sample"), draws.with_measured()
    best = np.stack([cost[places[error[:, places].argmin(axis=1)]] for places in levels])
    level = np.log([float(held["budget"]) for held, _ in found])
    centred = level - level.mean()
    slope = centred @ np.log(best) / (centred @ centred)
    check(draws, np.concatenate(levels), slope, 0.205)


def test_the_best_share_of_the_pool_grows_with_compute(draws: CellDraws) -> None:
    trades = [trade for trade in records(quality_trades(draws)) if trade["along"] == "budget"]
    trade = max(trades, key=lambda trade: len(trade["x"]))
    names = ("architecture", "strategy")
    same = np.logical_and.reduce([(draws.cells[name] == trade[name]).to_numpy() for name in names])
    assert draws.cells[same]["runs"].min() >= 3
    assert trade["slope"] == pytest.approx(0.3, abs=0.05)
    assert 0 < trade["low"] <= trade["slope"] <= trade["high"]
