"""Configurations that were not run at a level: the best there is not clear if one of them may be lower."""

import pandas as pd
import pytest

from analysis.answers.frontier import frontier
from analysis.cells.bootstrap import cell_draws
from analysis.cells.table import records, tidy
from tests.analysis.synthetic import trial_row

LEVELS = (1e11, 3e11, 9e11)
ERRORS = {"ViT-X": (0.6, 0.5, 0.42), "ViT-S": (0.5, 0.42, 0.35), "ViT-M": (0.7, 0.59, 0.5)}


def best(without: dict[str, set[int]], **errors: tuple[float, ...]) -> list[dict[str, object]]:
    """Return the best at each level of architectures that were not run at some levels."""
    rows = [
        trial_row((1024, "all", architecture, "clip"), level, seed, error + 0.003 * (seed - 1))
        for architecture, line in (ERRORS | errors).items()
        for number, (level, error) in enumerate(zip(LEVELS, line, strict=True))
        if number not in without.get(architecture, set())
        for seed in range(3)
    ]
    return records(frontier(cell_draws(tidy(pd.DataFrame(rows), metric="held-out/top1"), question="absent")))


def test_all_were_run_at_every_level() -> None:
    assert [(row["architecture"], row["verdict"]) for row in best({})] == [("ViT-S", "clear")] * 3


@pytest.mark.parametrize("levels", [{1}, {1, 2}], ids=["below and above", "below"])
def test_a_configuration_that_leads_at_other_levels_makes_the_best_undecided(levels: set[int]) -> None:
    first, second, last = best({"ViT-S": levels})
    assert (first["architecture"], first["verdict"]) == ("ViT-S", "clear")
    assert (second["architecture"], second["verdict"]) == ("ViT-X", "undecided")
    where = "levels below and above only" if levels == {1} else "lower levels only"
    assert f", but ViT-S, CLIP, 1,024 pairs, all was measured at {where}" in str(second["reason"])
    assert last["verdict"] == ("clear" if levels == {1} else "undecided")


@pytest.mark.parametrize("levels", [{1}, {1, 2}], ids=["below and above", "below"])
def test_one_that_is_behind_at_other_levels_leaves_it_clear(levels: set[int]) -> None:
    assert [row["verdict"] for row in best({"ViT-M": levels})] == ["clear"] * 3


def test_one_that_overtakes_between_two_levels_may_be_lower_there() -> None:
    _, second, _ = best({"ViT-M": {1}}, **{"ViT-M": (0.6, 0.4, 0.2)})
    assert (second["architecture"], second["verdict"]) == ("ViT-S", "undecided")
