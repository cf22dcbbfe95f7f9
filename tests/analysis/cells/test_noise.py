"""Configurations of unequal noise: the noise of others never makes one of them the clear best."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.noise import moderated
from tests.analysis.made_up.two_configurations import NOISE, TWO, share_of_clear
from tests.analysis.synthetic import METRIC, cells_of


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_of_two_equal_configurations_one_is_called_clear_in_at_most_one_budget_of_ten(ratio: float) -> None:
    # In 7.0 and 8.5 % of 4,000 verdicts.
    assert share_of_clear(ratio) <= 0.1


@pytest.mark.slow
def test_at_a_level_that_is_four_times_as_noisy_as_the_others_few_of_two_equal_ones_are_clear() -> None:
    # In 18 % of 1,000 verdicts; with one noise for all levels it would be 33 %.
    assert share_of_clear(1.0, by_level=(1, 1, 1, 4), repeats=200) <= 0.25


@pytest.mark.slow
def test_a_gap_of_five_times_the_noise_is_found() -> None:
    assert share_of_clear(1.0, gap=5.0, repeats=20) >= 0.95


def test_a_noisy_configuration_is_drawn_as_noisy_and_a_quiet_one_as_quiet() -> None:
    generator = np.random.default_rng(3)
    first = (TWO["architecture"] == "ViT-X").to_numpy(bool)
    noise = NOISE * np.where(first, 8.0, 1.0) * generator.standard_normal(len(TWO))
    draws = cells_of(TWO.assign(**{METRIC: 0.5 + noise}))
    (family,) = draws.families.values()
    noise_sd = dict(
        zip(family.configurations["architecture"], np.sqrt(family.belief.noise[:, 0]), strict=True)
    )
    assert noise_sd["ViT-X"] / noise_sd["ViT-S"] > 5
    spread = pd.Series(draws.draws.std(axis=0)).groupby(draws.cells["architecture"]).mean()
    # The noisy one also takes from the law, which the quiet one sets.
    assert spread["ViT-X"] / spread["ViT-S"] > 2


def test_equal_variances_are_pooled_and_a_group_without_a_second_run_gets_the_pooled_noise() -> None:
    noise, degrees = moderated(np.array([8.0, 8.0, 0.0]), np.array([8.0, 8.0, 0.0]))
    np.testing.assert_allclose(noise[2], 1.0)
    assert degrees[2] in (16.0, np.inf)
    many = np.random.default_rng(0).chisquare(8, size=200)
    noise, degrees = moderated(many, np.full(200, 8.0))
    np.testing.assert_allclose(noise, 1.0, atol=0.12)


def test_variances_that_differ_are_shrunk_less_the_better_they_are_known() -> None:
    scale = np.tile([1.0, 100.0], 20)
    few, _ = moderated(2 * scale, np.full(40, 2.0))
    many, degrees = moderated(50 * scale, np.full(40, 50.0))
    assert many[1] / many[0] > few[1] / few[0]
    assert few[1] / few[0] > 2
    assert 6 < many[1] / many[0] < 10
    assert (degrees >= 50).all()
