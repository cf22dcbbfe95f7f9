"""Order of samples: each epoch is a permutation, the same for any division into steps."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from runners.data.reading.order import BLOCK, WINDOW, batch_positions, positions, rows_of_window, windows

Order = Callable[..., NDArray[np.int64]]


@pytest.mark.parametrize("order", [positions, batch_positions])
@pytest.mark.parametrize("count", [1, 1023, BLOCK * WINDOW, BLOCK * WINDOW * 2 + 700])
def test_each_epoch_is_a_permutation_of_its_own_however_it_is_split(order: Order, count: int) -> None:
    cuts = [0, *np.sort(np.random.default_rng(0).integers(0, 2 * count, 9)).tolist(), 2 * count]
    pieces = [order(seed=7, count=count, start=start, stop=stop) for start, stop in pairwise(cuts)]
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.repeat(np.arange(count), 2))
    epoch = order(seed=7, count=count, start=count, stop=2 * count)
    assert np.array_equal(np.sort(epoch), np.arange(count))
    first, second = (order(seed=7, count=count, start=start, stop=start + count // 2) for start in (0, count))
    assert count == 1 or not np.array_equal(first, second)


def test_a_window_reads_few_long_stretches_and_mixes_them() -> None:
    count = 200 * BLOCK
    blocks = np.unique(batch_positions(seed=0, count=count, start=0, stop=WINDOW * BLOCK) // BLOCK)
    assert len(blocks) == WINDOW
    assert np.diff(blocks).max() > 1  # not neighbours of each other
    first = batch_positions(seed=0, count=count, start=0, stop=WINDOW)
    assert len(np.unique(first // BLOCK)) > WINDOW // 2


def test_seeds_give_different_orders() -> None:
    first, second = (positions(seed=seed, count=100, start=0, stop=100) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_parts_of_a_batch_are_parts_of_its_windows() -> None:
    count, size = 100 * 1024 + 7, 8192
    for step in (0, 1, 3, 12):  # the last ones reach into further windows and the next epoch
        where = {"seed": 4, "count": count, "start": step * size, "stop": (step + 1) * size}
        rows = batch_positions(**where)
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
