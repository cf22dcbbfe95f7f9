"""The points of Hoffmann et al. 2022 give the optimum that Besiroglu et al. 2024 published."""

import numpy as np
import pandas as pd
import pytest

from analysis.arrays import Floats
from analysis.cells.imported_table import import_table
from analysis.cells.table import Trials, tidy
from analysis.laws.surface import fit, fit_draws
from analysis.laws.surface_search import Data, project, search
from analysis.sizes.scaling_exponents import differences
from study.declare.column_maps import find_column_map, load_column_map, read_any_table
from tests.analysis.language_models import exponents_of, found_in, language_models
from tests.published import CHINCHILLA

if not CHINCHILLA.exists():
    pytest.skip(f"{CHINCHILLA} is not there", allow_module_level=True)


OUTLIERS = 5  # the highest losses


def points(table: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Return model size, tokens and loss."""
    n, flops, loss = (table[name].to_numpy(np.float64) for name in ("Model Size", "Training FLOP", "loss"))
    return n, flops / (6 * n), loss


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(CHINCHILLA).sort_values("loss")


@pytest.fixture(scope="module")
def imported() -> Trials:
    """Return the points as they come through their column map."""
    how = load_column_map(find_column_map("chinchilla"))
    return tidy(import_table(read_any_table(CHINCHILLA), how), metric=how.metric)


def test_the_chinchilla_points_give_the_published_optimum_from_any_of_100_starts(
    table: pd.DataFrame,
) -> None:
    starts = np.exp(np.random.default_rng(0).uniform(np.log(0.03), np.log(3), (100, 2)))
    found = fit(*points(table[:-OUTLIERS]), starts=starts)
    assert found.agreement == found.starts == 100
    assert f"{found.floor:.5f} {found.a:.2f} {found.b:.2f}" == "1.81722 477.83 2143.42"
    assert f"{found.alpha:.5f} {found.beta:.5f}" == "0.34731 0.36717"
    assert f"{found.objective:.9f}" == "0.001018274"


def test_five_outliers_move_the_exponent_of_data(table: pd.DataFrame) -> None:
    assert fit(*points(table)).beta == pytest.approx(0.453, abs=0.0006)


@pytest.mark.slow
def test_each_of_4000_refits_is_at_its_optimum(table: pd.DataFrame) -> None:
    n, d, y = points(table[:-OUTLIERS])
    generator = np.random.default_rng(1)
    weights = generator.multinomial(len(y), np.full(len(y), 1 / len(y)), size=4000).astype(np.float64)
    around = fit(n, d, y)
    drawn = fit_draws(n, d, y[None, :], weights=weights, around=around)
    starts = np.exp(np.random.default_rng(2).uniform(np.log(0.05), np.log(2), (40, 2)))
    for draw in range(0, 4000, 250):
        data = Data.of(n, d, y[None, :], weights[[draw]], 1e-3)
        lowest = search(data, project(data, starts))[1].min()
        assert drawn.objective[draw] == pytest.approx(lowest, rel=1e-9)


def test_the_chinchilla_points_come_through_their_map_to_the_published_optimum(imported: Trials) -> None:
    assert len(imported.frame) == 245
    assert imported.excluded.empty
    assert imported.frame["train_flops"].max() == pytest.approx(1.30e22, rel=0.005)
    frame = imported.frame.sort_values("error")[:-OUTLIERS]
    n, d, y = (frame[name].to_numpy(np.float64) for name in ("parameters", "samples_seen", "error"))
    assert fit(n, d, y).objective == pytest.approx(0.001018274, abs=5e-10)


@pytest.mark.slow
def test_chinchilla_points_give_the_exponents_of_besiroglu_et_al(imported: Trials) -> None:
    best = imported.frame.sort_values("error")[:-OUTLIERS]
    exponents = found_in(language_models(best.rename(columns={"samples_seen": "tokens", "error": "loss"})))
    found = exponents_of("N", exponents)
    surface = found["surface"]
    assert surface["exponent"] == pytest.approx(0.36717 / (0.34731 + 0.36717), abs=0.001)
    assert 0.48 < surface["low"] < 0.513 < surface["high"] < 0.55
    assert differences(exponents) == []
    assert found["IsoFLOP minima"]["exponent"] == pytest.approx(0.49, abs=0.03), "Hoffmann et al.: 0.49"
    assert {row["size"] for row in found.values()} == {"parameters"}
