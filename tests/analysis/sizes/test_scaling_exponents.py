"""Growth of model size and data with compute, compared with published and simulated exponents."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cells.bootstrap import CellDraws
from analysis.charts.scaling_figures import scaling
from analysis.laws.surface_forecast import family_surfaces
from analysis.report.law_tables import exponents as exponents_table
from analysis.sizes.compute_optimal import by_envelope
from analysis.sizes.scaling_exponents import APPROACHES, differences, growths, model_sizes, undecided
from tests.analysis.language_models import exponents_of, found_in, language_models
from tests.analysis.synthetic import cells_of, figure_of
from tests.published import DATA
from tests.root import ROOT

pytestmark = pytest.mark.slow

PORIAN = DATA / "porian_2024" / "isoflops.csv"


@pytest.mark.parametrize(
    ("experiment", "published", "low", "high"),
    [
        ("kaplan", 0.835, 0.824, 0.846),
        ("last-layer", 0.706, 0.691, 0.717),
        ("warm-up", 0.602, 0.591, 0.617),
        ("cosine-decay", 0.571, 0.560, 0.589),
        ("tuned", 0.497, 0.491, 0.505),
    ],
)
def test_minima_of_porian_et_al_grow_as_published(
    experiment: str, published: float, low: float, high: float
) -> None:
    table = pd.read_csv(PORIAN)
    found = exponents_of("N", found_in(language_models(table[table["experiment"] == experiment])))
    minima = found["IsoFLOP minima"]
    assert minima["exponent"] == pytest.approx(published, abs=0.025)
    assert minima["low"] < high
    assert minima["high"] > low, "its interval meets the published one"
    assert minima["high"] - minima["low"] < 0.07
    assert {row["status"] for row in found.values()} == {"ok"}
    if experiment == "tuned":
        assert minima["exponent"] == pytest.approx(0.497, abs=0.004)
        assert minima["low"] < 0.497 < minima["high"]
        assert found["lower envelope"]["exponent"] == pytest.approx(0.497, abs=0.02)


def test_tokens_grow_as_in_llama_3_by_its_own_method() -> None:
    # Dubey et al. 2024, §3.2.1: parabolas at budgets from 6e18 to 1e22, their minima at 0.29·C^0.53 tokens.
    generator, rows = np.random.default_rng(0), []
    for compute in np.geomspace(6e18, 1e22, 9):
        best = 0.29 * compute**0.53
        tokens = best * 2.0 ** np.arange(-3, 4) * np.exp(generator.uniform(-0.3, 0.3))
        loss = 0.6 + 2.0 * (compute / 1e18) ** -0.05 + 0.02 * np.log(tokens / best) ** 2
        parameters = compute / 6 / tokens
        noisy = loss + 0.001 * generator.standard_normal(7)
        rows.append(pd.DataFrame({"parameters": parameters, "tokens": tokens, "loss": noisy}))
    table = found_in(language_models(pd.concat(rows, ignore_index=True)))
    data = exponents_of("D", table)["IsoFLOP minima"]
    assert data["exponent"] == pytest.approx(0.53, abs=0.01)
    assert data["low"] < 0.53 < data["high"]
    assert data["points"] == 9


def made_up(
    alpha: float, beta: float, *, noise: float = 0.002, seed: int = 0, sizes: int = 19
) -> pd.DataFrame:
    n, d = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e8, 1e12, 13)))
    loss = 1.7 + 1.2 * (n / 3e8) ** -alpha + 1.2 * alpha / beta * (d / 6e9) ** -beta
    shaken = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))
    return pd.DataFrame({"parameters": n, "tokens": d, "loss": shaken})


@settings(max_examples=6)
@given(st.floats(0.25, 0.6), st.floats(0.25, 0.6), st.integers(0, 9))
def test_three_approaches_agree_on_a_surface_and_sizes_and_data_share_compute(
    alpha: float, beta: float, seed: int
) -> None:
    table = found_in(language_models(made_up(alpha, beta, seed=seed)))
    found, data = exponents_of("N", table), exponents_of("D", table)
    assert tuple(found) == APPROACHES
    for approach in APPROACHES:
        assert found[approach]["exponent"] == pytest.approx(beta / (alpha + beta), abs=0.04)
        assert found[approach]["exponent"] + data[approach]["exponent"] == pytest.approx(1.0)
        assert found[approach]["low"] + data[approach]["high"] == pytest.approx(1.0)


def three_seeds(alpha: float, beta: float, *, first: int = 0, sizes: int = 19) -> CellDraws:
    """Return the cells of a surface that has three runs of each."""
    runs = pd.concat([made_up(alpha, beta, seed=first + seed, sizes=sizes) for seed in range(3)])
    return language_models(runs.sort_values(["parameters", "tokens"], ignore_index=True), seeds=3)


def test_repeated_runs_give_the_envelope_its_interval() -> None:
    draws = three_seeds(0.35, 0.35)
    assert draws.source == "runs"
    envelope = exponents_of("N", found_in(draws))["lower envelope"]
    assert "runs' noise" in envelope["reason"]
    assert envelope["low"] < 0.5 < envelope["high"]


def test_the_envelope_of_few_sizes_gives_the_true_exponent_in_nine_of_ten_intervals() -> None:
    held = []
    for place, alpha in enumerate(np.linspace(0.25, 0.45, 9)):
        table = found_in(three_seeds(alpha, 0.3, first=3 * place, sizes=7))
        envelope = exponents_of("N", table)["lower envelope"]
        truth = 0.3 / (alpha + 0.3)
        assert abs(envelope["exponent"] - truth) < 0.01
        held.append(envelope["low"] < truth < envelope["high"])
    assert sum(held) >= 8


def test_two_sizes_that_overtake_each_other_again_and_again_give_no_exponent() -> None:
    lines = {1e8: (0.80, 0.70, 0.61, 0.50), 1e9: (0.81, 0.69, 0.62, 0.49), 1e10: (0.95, 0.90, 0.85, 0.80)}
    rows = [
        {"parameters": size, "tokens": compute / (6 * size), "loss": loss + 1e-3 * seed}
        for size, losses in lines.items()
        for compute, loss in zip((1e19, 1e20, 1e21, 1e22), losses, strict=True)
        for seed in range(3)
    ]
    draws = language_models(pd.DataFrame(rows), seeds=3)
    found = by_envelope(draws, draws.column("parameters"))
    assert np.isnan(found.measured)
    assert found.reason == "1 size overtaken by another one; three are needed"


def test_approaches_with_disjoint_intervals_are_listed_with_known_reasons() -> None:
    rows = [
        {"family": "ViT", "held": "all", "approach": approach, "what": what, "exponent": middle,
         "low": middle - 0.02, "high": middle + 0.02, "points": 9, "status": "ok", "reason": "", "size": "N"}
        for approach, middle in zip(APPROACHES, (0.5, 0.51, 0.7), strict=True)
        for what in ("N", "D")
    ]  # fmt: skip
    said = differences(pd.DataFrame(rows))
    assert len(said) == 1
    assert "0.50 [0.48, 0.52] by lower envelope and 0.70 [0.68, 0.72] by surface" in said[0]
    assert "by lower envelope and 0.51" not in said[0]
    assert "Porian et al. 2024" in said[0]
    assert len(differences(pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(held="top20")]))) == 2
    assert said[0] in exponents_table(pd.DataFrame(rows)).note


def test_size_is_parameters_only_where_compute_is_proportional_to_them() -> None:
    cells = pd.DataFrame({"train_flops_per_sample": [6e9, 12e9, 24e9], "parameters": [1e9, 2e9, 4.4e9]})
    sizes, said = model_sizes(cells)
    assert said == "parameters"
    assert sizes.tolist() == [1e9, 2e9, 4.4e9]
    patches = cells.assign(parameters=[1e9, 1e9, 4e9])
    sizes, said = model_sizes(patches)
    assert said == "training FLOPs a sample / 6"
    assert sizes.tolist() == [1e9, 2e9, 4e9]
    assert model_sizes(cells.assign(parameters=np.nan))[1] == said


def test_a_study_of_few_sizes_says_why_it_has_no_exponent(small_full: pd.DataFrame) -> None:
    table = found_in(cells_of(small_full))
    found = exponents_of("N", table)
    assert {row["family"] for row in found.values()} == {"ViT"}
    assert {row["status"] for row in found.values()} == {"none"}
    assert found["lower envelope"]["reason"].endswith("three are needed; at 13,108 pairs")
    assert found["surface"]["reason"].startswith("the floor ended at zero")
    assert found["lower envelope"]["held"] == "fixed-compute, CLIP, top 40 %"
    assert exponents_table(table).frame["a (N ∝ C^a)"].tolist() == ["–"] * 3
    assert "(ViT, fixed-compute, CLIP, top 40 %)" in undecided(table)[0]


def test_samples_are_budgets_of_equal_samples_too() -> None:
    draws = language_models(made_up(0.4, 0.5))
    cells = draws.cells.assign(
        regime="equal-samples", subset_size=1e12, epochs=draws.cells["samples_seen"] / 1e12
    )
    found = exponents_of("N", found_in(replace(draws, cells=cells)))
    assert found["IsoFLOP minima"]["exponent"] == pytest.approx(5 / 9, abs=0.04)
    assert found["surface"]["exponent"] == pytest.approx(5 / 9, abs=0.02)


def test_the_scaling_panels_draw_each_line_through_the_true_best_sizes() -> None:
    draws = language_models(made_up(0.4, 0.3, seed=1))
    found = growths(draws, family_surfaces(draws))
    for what, growing in (("N", 0.3 / 0.7), ("D", 0.4 / 0.7)):
        data = figure_of(scaling(found, what=what))
        panels = dict.fromkeys(data.frame["panel"])
        assert [panel.partition(",")[0] for panel in panels] == list(APPROACHES)
        assert all(re.search(rf"{what} ∝ C\^0\.\d\d \[0\.\d\d, 0\.\d\d\]", panel) for panel in panels)
        lines = data.frame[data.frame["mark"].isin(["law", "extrapolation"])]
        for panel, line in lines.groupby("panel"):
            slope = np.polyfit(np.log(line["x"]), np.log(line["y"]), 1)[0]
            assert slope == pytest.approx(growing, abs=0.08), panel
            assert (line["low"] <= line["y"]).all()
            assert (line["y"] <= line["high"]).all()
        beyond = data.frame[data.frame["mark"] == "extrapolation"]["x"]
        assert beyond.max() == pytest.approx(10 * draws.cells["train_flops"].max())
        far = figure_of(scaling(found, what=what, target_flops=10**26))
        assert far.frame["x"].max() == pytest.approx(1e26)
        points = data.frame[data.frame["mark"] == "point"]
        assert set(points["panel"]) == set(list(panels)[:2]), "the surface is fitted to errors"
    # Compute is 6·N·D on every line.
    n, d = (figure_of(scaling(found, what=what)) for what in ("N", "D"))
    law = n.frame["mark"] == "law"
    size, compute = (n.frame.loc[law, name].to_numpy(np.float64) for name in ("y", "x"))
    np.testing.assert_allclose(6 * size * d.frame.loc[law, "y"].to_numpy(np.float64), compute)


@pytest.mark.parametrize(("seed", "noise"), [(0, 0.008), (4, 0.015)])
def test_minima_at_the_edge_of_the_sizes_tried_give_no_interval(seed: int, noise: float) -> None:
    generator, rows = np.random.default_rng(seed), []
    # Model size should grow as C^0.3, from beyond the largest size tried on.
    for n in 1e10 * 2.2 ** np.arange(-2, 3):
        for compute in 1e17 * 4.0 ** np.arange(-1, 3):
            loss = 0.2 + 0.15 * (n / 1e10) ** -0.35 + 0.15 * (compute / n / 1e7) ** -0.15
            shaken = loss * (1 + noise * generator.standard_normal(2))
            rows += [{"parameters": n, "tokens": compute / n, "loss": each} for each in shaken]

    minima = exponents_of("N", found_in(language_models(pd.DataFrame(rows), seeds=2)))["IsoFLOP minima"]

    assert minima["status"] == "unstable"
    assert np.isnan(minima["low"])


def test_minima_that_the_draws_disagree_on_are_hollow() -> None:
    draws = cells_of(pd.read_parquet(ROOT / "results" / "small" / "results.parquet"))
    found = growths(draws, family_surfaces(draws))
    far = figure_of(scaling(found, what="N", target_flops=10**20))  # a whole number, as `--target` reads it
    assert set(far.frame["mark"]) == {"law", "undecided"}, "too few minima for a forecast"
    assert far.frame.loc[far.frame["mark"] == "law", "low"].isna().all()
    data = figure_of(scaling(found, what="N", target_flops=1e12))
    minima = data.frame[data.frame["panel"].str.startswith("IsoFLOP") & (data.frame["text"] != "")]
    assert set(minima["mark"]) == {"undecided"}
    assert "Hollow" in data.caption
    assert "extrapolat" not in data.caption, "the target lies within the data"
