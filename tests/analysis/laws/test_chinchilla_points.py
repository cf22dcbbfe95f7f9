"""The points of Hoffmann et al. 2022 give the optimum that Besiroglu et al. 2024 published."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from analysis.cells.imported_table import import_table
from analysis.cells.table import tidy
from analysis.laws.surface import fit, fit_draws
from analysis.laws.surface_search import Data, project, search
from analysis.sizes.scaling_exponents import differences
from study.declare.column_maps import find_column_map, load_column_map, read_any_table
from tests.analysis.language_models import exponents_of, found_in, language_models
from tests.published import CHINCHILLA

if not CHINCHILLA.exists():
    pytest.skip(f"{CHINCHILLA} is not there", allow_module_level=True)

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def chinchilla() -> tuple[Floats, Floats, Floats]:
    """Return model size, tokens and loss of the published points, without the five highest losses."""
    table = pd.read_csv(CHINCHILLA).sort_values("loss").iloc[:-5]
    n = table["Model Size"].to_numpy(np.float64)
    return n, table["Training FLOP"].to_numpy(np.float64) / (6 * n), table["loss"].to_numpy(np.float64)


def test_the_chinchilla_points_give_the_published_optimum_from_any_of_100_starts(
    chinchilla: tuple[Floats, Floats, Floats],
) -> None:
    starts = np.exp(np.random.default_rng(0).uniform(np.log(0.03), np.log(3), (100, 2)))
    found = fit(*chinchilla, starts=starts)
    assert found.agreement == found.starts == 100
    assert f"{found.floor:.5f} {found.a:.2f} {found.b:.2f}" == "1.81722 477.83 2143.42"
    assert f"{found.alpha:.5f} {found.beta:.5f}" == "0.34731 0.36717"
    assert f"{found.objective:.9f}" == "0.001018274"


def test_five_outliers_move_the_exponent_of_data() -> None:
    table = pd.read_csv(CHINCHILLA)
    n = table["Model Size"].to_numpy(np.float64)
    found = fit(n, table["Training FLOP"].to_numpy(np.float64) / (6 * n), table["loss"].to_numpy(np.float64))
    assert found.beta == pytest.approx(0.453, abs=0.0006)


@pytest.mark.slow
def test_each_of_4000_refits_is_at_its_optimum(chinchilla: tuple[Floats, Floats, Floats]) -> None:
    n, d, y = chinchilla
    generator = np.random.default_rng(1)
    weights = generator.multinomial(len(y), np.full(len(y), 1 / len(y)), size=4000).astype(np.float64)
    around = fit(n, d, y)
    drawn = fit_draws(n, d, y[None, :], weights=weights, around=around)
    starts = np.exp(np.random.default_rng(2).uniform(np.log(0.05), np.log(2), (40, 2)))
    for draw in range(0, 4000, 250):
        data = Data.of(n, d, y[None, :], weights[[draw]], 1e-3)
        lowest = search(data, project(data, starts))[1].min()
        assert drawn.objective[draw] == pytest.approx(lowest, rel=1e-9)


def test_the_chinchilla_points_come_through_their_map_to_the_published_optimum() -> None:
    how = load_column_map(find_column_map("chinchilla"))
    trials = tidy(import_table(read_any_table(CHINCHILLA), how), metric=how.metric)
    assert len(trials.frame) == 245
    assert trials.excluded.empty
    assert trials.frame["train_flops"].max() == pytest.approx(1.30e22, rel=0.005)
    frame = trials.frame.sort_values("error")[:-5]
    n, d, y = (frame[name].to_numpy(np.float64) for name in ("parameters", "samples_seen", "error"))
    assert fit(n, d, y).objective == pytest.approx(0.001018274, abs=5e-10)


@pytest.mark.slow
def test_chinchilla_points_give_the_exponents_of_besiroglu_et_al() -> None:
    how = load_column_map(find_column_map("chinchilla"))
    trials = tidy(import_table(read_any_table(CHINCHILLA), how), metric=how.metric)
    best = trials.frame.sort_values("error")[:-5].rename(columns={"samples_seen": "tokens", "error": "loss"})
    table = found_in(language_models(best))
    found = exponents_of("N", table)
    surface = found["surface"]
    assert surface["exponent"] == pytest.approx(0.36717 / (0.34731 + 0.36717), abs=0.001)
    assert 0.48 < surface["low"] < 0.513 < surface["high"] < 0.55
    assert differences(table) == []
    assert found["IsoFLOP minima"]["exponent"] == pytest.approx(0.49, abs=0.03), "Hoffmann et al.: 0.49"
    assert {row["size"] for row in found.values()} == {"parameters"}
