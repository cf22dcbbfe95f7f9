"""One belief of trunks' states and cooled runs: the map between them, and what it says of runs not cooled."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.arrays import Floats, Mask
from analysis.belief.cell_draws import cell_draws, stream
from analysis.belief.family import Family, families
from analysis.belief.trunk_map import trunk_map, weights_miss
from analysis.cells.intervals import column_intervals
from analysis.cells.table import Trials, cooled, of_trunks, records, tidy
from runners.results import AVERAGE
from tests.analysis.made_up.studies import study
from tests.analysis.made_up.trunk_states import TrueMap, with_trunk_states
from tests.analysis.public_tables import SHARED
from tests.analysis.published_pairs import score
from tests.analysis.synthetic import METRIC

MAP = TrueMap(offset=0.25, tilt=0.0, effects={"flip-50": 0.1})


def grid_of(number: int, true_map: TrueMap = MAP) -> pd.DataFrame:
    """A simulated study with the state of every run, and the true error of each cell."""
    made = study("floor", number, shared=0.5)
    generator = stream("trunk map", number)

    def truth(row: Mapping[str, Any]) -> float:
        return float(made.at(row, np.array([row["level_flops"]]))[0])

    table = with_trunk_states(made.results, truth, true_map, generator)
    return table.assign(truth=[truth(row) for row in records(table)])


def believed(grid: pd.DataFrame, known: Mask) -> tuple[Family, Trials]:
    """Return what all states and the cooled runs ``known`` say of all of a grid."""
    trials = tidy(grid[of_trunks(grid) | known], metric=METRIC)
    (family,) = families(trials, grid, draws=400).values()
    return family, trials


def some(grid: pd.DataFrame, count: int, number: int = 0) -> Mask:
    """Choose cooled runs at random."""
    chosen = stream("cooled", number).choice(np.flatnonzero(~of_trunks(grid)), count, replace=False)
    return np.isin(np.arange(len(grid)), chosen)


def unseen(family: Family, grid: pd.DataFrame, known: Mask) -> tuple[Floats, Floats]:
    """Return the draws, and the true errors, of the cells without a cooled run."""
    cells = cooled(grid[~known]).drop_duplicates(["architecture", "strategy", "level_flops"])
    curve, point = np.array([family.place_of[trial] for trial in cells["trial"]]).T
    alone = family.measured.runs[curve, point] == 0
    return family.belief.draws[:, curve, point][:, alone], cells["truth"].to_numpy()[alone]


def test_known_map_is_recovered() -> None:
    grid = grid_of(1, TrueMap(offset=0.25, tilt=0.0, own=0.0))
    family, trials = believed(grid, np.ones(len(grid), dtype=bool))
    found = trunk_map(family, trials)
    assert found is not None
    assert found.learned
    assert len(found.pairs) == len(trials.frame)
    assert np.median(found.gain) == pytest.approx(
        float((found.pairs["trunk_error"] - found.pairs["error"]).mean()), abs=0.004
    )
    assert found.miss < 0.02
    assert (
        (found.pairs["low"] <= found.pairs["error"]) & (found.pairs["error"] <= found.pairs["high"])
    ).mean() > 0.8


def test_runs_of_one_cell_with_equal_errors_are_told_apart_by_their_states() -> None:
    grid = grid_of(1)
    same = ~of_trunks(grid) & (grid["level_flops"] == grid["level_flops"].min()).to_numpy(bool)
    family, trials = believed(grid.assign(**{METRIC: grid[METRIC].mask(same, 0.5)}), same)
    found = trunk_map(family, trials)
    assert found is not None
    assert set(found.pairs["error"]) == {0.5}
    assert found.pairs["predicted"].nunique() == same.sum()


@pytest.mark.slow
def test_errors_after_a_cooldown_are_told_from_trunks_and_a_few_cooled_runs() -> None:
    held, off = [], []
    for number in range(5):
        grid = grid_of(number)
        known = some(grid, 3 + number % 4, number)
        drawn, truth = unseen(believed(grid, known)[0], grid, known)
        low, high = column_intervals(drawn)
        held += ((low <= truth) & (truth <= high)).tolist()
        off += (np.median(drawn, axis=0) - truth).tolist()
    assert np.mean(held) >= 0.85
    assert np.sqrt(np.mean(np.square(off))) < 0.02


def test_without_cooled_runs_no_map_is_learned() -> None:
    grid = grid_of(0)
    family, trials = believed(grid, np.zeros(len(grid), dtype=bool))
    assert not family.learned
    assert not family.runs(np.zeros(3, dtype=np.intp)).any()
    assert family.belief.draws[:, :, 0].std(axis=0).min() > 0.05
    found = trunk_map(family, trials)
    assert found is not None
    assert found.pairs.empty
    assert cell_draws(trials, grid).cells.empty


def test_learned_map_lets_states_count_as_runs() -> None:
    grid = grid_of(0)
    family, _ = believed(grid, some(grid, 15))
    assert family.learned
    seeds = grid.groupby(["architecture", "strategy"])["seed"].nunique().iloc[0]
    assert (family.runs(np.zeros(3, dtype=np.intp)) >= seeds - 1).all()
    assert family.ran.shape == family.x.shape


def test_curve_with_a_map_of_its_own_keeps_wide_draws_until_it_is_cooled() -> None:
    grid = grid_of(2, TrueMap(effects={"ViT-M": 0.1}, own=0.0))
    odd = (grid["architecture"] == "ViT-M").to_numpy(bool) & ~of_trunks(grid)
    others = ~of_trunks(grid) & ~odd
    drawn, truth = unseen(believed(grid, others)[0], grid, others)
    low, high = column_intervals(drawn)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.75
    once = others | (odd & ((grid["seed"] == 0) & (grid["level_flops"] > 1e12)).to_numpy(bool))
    nearer, below = unseen(believed(grid, once)[0], grid, once)
    far = [np.abs(np.median(one[:, : len(below)], axis=0) - below).mean() for one in (nearer, drawn)]
    assert far[0] < far[1]


def test_trunks_in_the_grid_that_were_not_run_change_no_number_of_runs() -> None:
    grid = grid_of(0)
    runs = cooled(grid).drop(columns=["phase"])
    (family,) = families(tidy(runs, metric=METRIC), grid, draws=50).values()
    (alone,) = families(tidy(runs, metric=METRIC), runs, draws=50).values()
    assert family.x == pytest.approx(alone.x)
    assert (family.ran == alone.ran).all()
    points = alone.x.shape[1]
    assert family.belief.draws.shape == (50, 3, 2 * points)
    middle = np.median(family.belief.draws[:, :, :points], axis=0)
    assert np.nanmax(np.abs(middle - np.median(alone.belief.draws, axis=0))) < 0.02


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "gemstones.csv").exists(), reason="the table is not shipped")
def test_losses_of_published_models_are_told_from_five_of_199_cooldowns() -> None:
    miss, held = np.mean([score("gemstones", number) for number in range(3)], axis=0)
    assert miss < 0.15
    assert held >= 0.85


def test_misses_tell_which_of_two_weights_is_nearer_to_the_cooled_ones() -> None:
    grid = grid_of(1)
    state = of_trunks(grid)
    off = stream("average").standard_normal(len(grid))
    far = grid[METRIC] + np.where(state, 0.03 * off, 0.0)
    table = grid.assign(**{METRIC: far, METRIC + AVERAGE: grid[METRIC].where(state)})
    found = trunk_map(*believed(table, np.ones(len(table), dtype=bool)))
    assert found is not None
    assert found.miss < weights_miss(table, cooled(grid), METRIC)
