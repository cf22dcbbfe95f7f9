"""One rule of verdict: it depends on the leader, its probability and its distance from its own runs alone."""

import numpy as np
import pandas as pd
import pytest

from analysis.answers.recommendation import recommend
from analysis.belief.family import families
from analysis.belief.verdict import CLEAR, MATTERS, NEAR
from analysis.cells.table import records, tidy
from study import Study
from tests.analysis.answers.test_recommend import at_levels
from tests.analysis.synthetic import METRIC

SHIPPED = ("open-clip-scaling", "small-full", "small", "small-trunk")
ALL_PAIRS = 1e15
BUDGETS = 60


@pytest.fixture(scope="module", params=SHIPPED)
def study(request: pytest.FixtureRequest) -> Study:
    return Study(str(request.param))


def test_recommend_says_what_the_report_does_at_each_of_its_budgets(study: Study) -> None:
    best = study.analysis.best
    for row in records(best):
        found = recommend(study.analysis.draws, flops=row["flops"], pairs=ALL_PAIRS)
        first = found.candidates.iloc[0]
        assert (first["architecture"], first["strategy"]) == (row["architecture"], row["strategy"])
        assert (found.verdict.kind, found.verdict.distance) == (row["verdict"], row["distance"])
        assert found.verdict.probability[0] == row["probability"]


def test_the_verdict_follows_from_leader_probability_and_distance_alone(study: Study) -> None:
    draws = study.analysis.draws
    x = draws.cells["train_flops"]
    kinds = set()
    for flops in np.geomspace(1.01 * x.min(), 4 * x.max(), BUDGETS):
        verdict = recommend(draws, flops=flops, pairs=ALL_PAIRS).verdict
        sure = verdict.probability[0] >= CLEAR - 1e-9
        rivals = (verdict.probability[1:] >= MATTERS - 1e-9).any()
        expected = "tie" if rivals and not sure else "undecided" if not sure else "clear"
        if sure and verdict.distance > NEAR:
            expected = "forecast"
        assert verdict.kind == expected, f"{flops:.3g}: {verdict.reason}"
        kinds.add(verdict.kind)
    assert len(kinds) > 1


def test_what_others_have_at_a_budget_plays_no_part() -> None:
    """Runs of one architecture change its own distance, and no other's."""
    results = at_levels(
        ViT_M={1e12: 0.7, 4e12: 0.6, 1.6e13: 0.5}, ViT_X={1e12: 0.6, 4e12: 0.55}, ConvNeXt_C={1e12: 0.8}
    )
    more = at_levels(ConvNeXt_C={6e12: 0.7, 1.9e13: 0.65})
    some, every = (families(tidy(rows, metric=METRIC)) for rows in (results, pd.concat([results, more])))
    for flops, distances in ((6e12, (1.0, 1.5, 1.0)), (1.9e13, (1.1875, 4.75, 1.0))):
        for before, after in zip(some.values(), every.values(), strict=True):
            told = dict(zip(after.names, after.distance(flops), strict=True))
            for name, distance in zip(before.names, before.distance(flops), strict=True):
                if "ConvNeXt" not in name:
                    assert told[name] == distance
            assert sorted(told.values()) == pytest.approx(sorted(distances))
