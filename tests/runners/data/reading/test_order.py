"""Order of samples: each epoch is a permutation, the same for any division into steps."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runners.data.reading.order import batch_positions, positions, rows_of_window, windows


def test_each_epoch_is_a_permutation_of_its_own() -> None:
    epochs = positions(seed=7, count=100, start=0, stop=500).reshape(5, 100)
    assert all(np.array_equal(np.sort(epoch), np.arange(100)) for epoch in epochs)
    assert len({epoch.tobytes() for epoch in epochs}) == 5


def test_seeds_give_different_orders() -> None:
    first, second = (positions(seed=seed, count=100, start=0, stop=100) for seed in (0, 1))
    assert not np.array_equal(first, second)


@given(
    count=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 150), max_size=12),
    seed=st.integers(0, 2**63),
)
@settings(deadline=None)
def test_order_does_not_depend_on_how_positions_are_split(count: int, cuts: list[int], seed: int) -> None:
    borders = [0, *sorted(cuts), 150]
    whole = positions(seed=seed, count=count, start=0, stop=150)
    pieces = [positions(seed=seed, count=count, start=start, stop=stop) for start, stop in pairwise(borders)]
    assert np.array_equal(np.concatenate(pieces), whole)


def test_an_epoch_does_not_depend_on_those_before() -> None:
    late = positions(seed=3, count=10, start=1000, stop=1010)
    assert np.array_equal(late, positions(seed=3, count=10, start=0, stop=1010)[1000:])


def test_parts_of_a_batch_are_parts_of_its_windows() -> None:
    count, size = 100 * 1024 + 7, 8192
    for step in (0, 1, 3, 12):  # the last ones reach into further windows and the next epoch
        where = {"seed": 4, "count": count, "start": step * size, "stop": (step + 1) * size}
        rows = batch_positions(**where)
        assert sorted(rows) == sorted(positions(**where, windowed=True))
        for half, part in enumerate(((0.0, 0.54), (0.46, 1.0))):
            around = [
                rows_of_window(seed=4, count=count, epoch=epoch, window=window, part=part)
                for epoch, window in windows(**where)
            ]
            assert np.isin(rows[half * size // 2 :][: size // 2], np.concatenate(around)).all()


def test_changing_returned_positions_does_not_affect_later_calls() -> None:
    first = positions(seed=1, count=10, start=0, stop=10)
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(positions(seed=1, count=10, start=0, stop=10), kept)


def test_an_empty_stretch_is_empty() -> None:
    assert positions(seed=1, count=10, start=5, stop=5).shape == (0,)
