"""The least compute that reaches an error: the inverse of a recommendation for a compute."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import brentq

from analysis.answers.least_compute import least_compute, least_text
from analysis.answers.options import Asked
from analysis.answers.recommendation import recommend
from analysis.arrays import Floats
from analysis.belief.cell_draws import CellDraws, study_draws
from analysis.error_unit import PERCENT
from study.show.study_report import prior_frames
from tests.analysis.answers.test_recommend import (
    LEVELS,
    POOL,
    crossing,
    drawn,
    large,
    lines_of,
    shipped,
    small,
)
from tests.analysis.synthetic import study

ASKED = Asked(flops=0, pairs=POOL, limit=30)


def table(name: str) -> CellDraws:
    return study_draws(prior_frames(name, None))


@pytest.mark.parametrize(
    ("draws", "pairs", "levels"),
    [
        (lambda: drawn(crossing()), POOL, np.geomspace(3e11, 5e13, 5)),
        (lambda: drawn(*shipped("small")), 32_768, np.geomspace(4e11, 1e13, 4)),
        (lambda: table("open-clip-scaling"), 1.4e9, np.geomspace(1e18, 1e21, 4)),
    ],
    ids=["made up", "small", "open-clip-scaling"],
)
def test_compute_and_error_are_inverse(draws: Callable[[], CellDraws], pairs: float, levels: Floats) -> None:
    known = draws()
    for flops in levels:
        error = recommend(known, flops=flops, pairs=pairs).candidates["error"][0]
        # A lower error may have been reached with less, where a more probable leader is no lower.
        found = recommend(known, error=error, pairs=pairs)
        assert found.flops <= flops * 1.001
        assert found.candidates["error"][0] <= error + 1e-6
        less = recommend(known, flops=flops * 0.95, pairs=pairs).candidates["error"][0]
        if less > error * 1.01:
            assert found.flops == pytest.approx(flops, rel=0.02)
        assert found.least is not None
        assert found.least.low <= found.flops <= found.least.high


def test_the_interval_holds_the_truth_and_widens_with_the_distance() -> None:
    draws, widths = drawn(crossing()), []
    for error in (0.5, 0.45, 0.42, 0.39):
        truth = brentq(lambda flops, at=error: min(small(flops), large(flops)) - at, 1e11, 1e14)
        found = least_compute(draws, error, ASKED)
        assert found.low <= truth <= found.high
        if truth < LEVELS[-1]:
            assert found.flops == pytest.approx(truth, rel=0.1)
        widths.append(found.high / found.low)
    assert widths[-1] == max(widths)


def test_draws_that_do_not_reach_the_error_within_the_limit_leave_the_interval_open() -> None:
    draws = drawn(crossing())
    lowest = recommend(draws, flops=3e14, pairs=POOL).candidates["error"][0]
    found = least_compute(draws, lowest + 1e-4, ASKED)
    assert found.high == np.inf
    assert least_text(found, PERCENT).endswith(", beyond the limit] of training")


def test_without_noise_there_is_no_interval() -> None:
    results = crossing(seeds=1)
    draws = drawn(results[results["level_flops"] < 6e11])
    assert not draws.known
    found = recommend(draws, error=0.6, pairs=POOL)
    assert found.least is not None
    assert np.isnan(found.least.low)
    assert lines_of(found)[0].startswith("error 60.0 % takes ")
    assert "[" not in lines_of(found)[0]


@pytest.mark.parametrize(
    ("error", "limit", "message"),
    [
        (0.01, 30, r"no compute reaches error 1\.0 % with 90,000 pairs: the lowest is \d"),
        (0.39, 1.2, r"39\.0 % is not reached within 1.2 times the measured compute: the lowest there is 4"),
        (0.0, 30, r"must be above 0 % and below 100 %, such as 30%; found 0\.0 %"),
        (30, 30, r"must be above 0 % and below 100 %, such as 30%; found 3000\.0 %"),
    ],
)  # fmt: skip
def test_an_error_that_is_not_reached_is_refused_with_the_lowest(
    error: float, limit: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recommend(drawn(crossing()), error=error, pairs=POOL, limit=limit)


def test_either_compute_or_error_is_asked_for() -> None:
    draws = study_draws(study())
    for flops, error in ((None, None), (1e12, 0.5)):
        with pytest.raises(ValueError, match="either the flops of a trial or the error to reach"):
            recommend(draws, pairs=POOL, flops=flops, error=error)
