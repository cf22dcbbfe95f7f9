"""Mixtures of pools: shares are exact, and the order does not depend on divisions, workers and ranks."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from budgets.quantity import divide_count
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import mixed_words
from runners.data.reading import training_set
from runners.data.reading.order import CYCLE, positions, stretches
from runners.data.reading.training_data import Source, TrainingData
from runners.data.reading.training_set import StreamedSet, open_data
from runners.embedded.embedded_pool import build_embedded_pool
from tests.runners.data.conftest import brightness
from tests.runners.data.reading.test_training_set import BATCH, lengths, seen

SHARES = st.lists(st.integers(1, 3 * CYCLE), min_size=1, max_size=4)


def mixed_positions(
    *, seed: int, counts: list[int], shares: list[int], start: int, stop: int
) -> NDArray[np.int64]:
    """Return the row at each position of training, of the rows of all pools one after another."""
    found, before = np.full(stop - start, -1), 0
    for count, own in zip(counts, stretches(seed=seed, shares=shares, start=start, stop=stop), strict=True):
        found[own.places] = before + positions(seed=own.seed, count=count, start=own.start, stop=own.stop)
        before += count
    return found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    path = tmp_path_factory.mktemp("pools") / "other"
    return build_embedded_pool(path, pairs=97, seed=8, score=brightness, evaluation_sizes={"held-out": 100})


@given(total=st.integers(0, 10**12), more=st.integers(0, 10**6), shares=SHARES)
def test_parts_of_a_count_are_its_shares_to_a_rounding_and_never_shrink(
    total: int, more: int, shares: list[int]
) -> None:
    parts = divide_count(total, shares)
    assert sum(parts) == total
    for part, share in zip(parts, shares, strict=True):
        assert abs(part - total * share / sum(shares)) < len(shares)
    assert all(after >= part for part, after in zip(parts, divide_count(total + more, shares), strict=True))


@given(shares=SHARES, seed=st.integers(0, 2**63), periods=st.integers(1, 2))
@settings(deadline=None)
def test_every_period_has_each_pool_as_often_as_its_share_says(
    shares: list[int], seed: int, periods: int
) -> None:
    period = sum(shares)
    found = stretches(seed=seed, shares=shares, start=0, stop=periods * period)
    assert [each.stop for each in found] == [periods * share for share in shares]
    cycle = stretches(seed=seed, shares=shares, start=0, stop=min(CYCLE, period))
    for each, share in zip(cycle, shares, strict=True):
        assert abs(each.stop - share * min(CYCLE, period) / period) < len(shares)


@pytest.mark.slow
@given(
    parts=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 2 * CYCLE)), min_size=1, max_size=3),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
    seed=st.integers(0, 2**63),
)
@settings(deadline=None, max_examples=40)
def test_mixed_order_does_not_depend_on_how_positions_are_split(
    parts: list[tuple[int, int]], cuts: list[int], seed: int
) -> None:
    counts, shares = [count for count, _ in parts], [share for _, share in parts]
    whole = mixed_positions(seed=seed, counts=counts, shares=shares, start=0, stop=5000)
    pieces = [
        mixed_positions(seed=seed, counts=counts, shares=shares, start=start, stop=stop)
        for start, stop in pairwise([0, *sorted(cuts), 5000])
    ]
    assert np.array_equal(np.concatenate(pieces), whole)
    # Each pool's rows come as without the others: one epoch after the other, each a permutation.
    before = 0
    for count in counts:
        mine = whole[(whole >= before) & (whole < before + count)] - before
        epochs = mine[: len(mine) // count * count].reshape(-1, count)
        assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(count), (len(epochs), 1)))
        before += count


def test_pools_of_one_size_are_shuffled_apart() -> None:
    order = mixed_positions(seed=0, counts=[50, 50], shares=[1, 1], start=0, stop=100)
    assert not np.array_equal(order[order < 50], order[order >= 50] - 50)


def test_words_of_pools_are_merged_by_rank() -> None:
    assert mixed_words([["a", "cat", "dog"]]) == ["a", "cat", "dog"]
    assert mixed_words([["a", "cat", "dog"], ["an", "emu", "a"]]) == ["a", "an", "cat", "emu", "dog"]


def opened(
    kind: str, sources: list[Source], *, workers: int = 0, rank: int = 0, ranks: int = 1
) -> TrainingData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_set, "IN_MEMORY_BYTES", 0 if kind == "streamed" else 2**30)
        streamed = StreamedSet(
            sources=sources, image_size=32, tokens=lengths, workers=workers, rank=rank, ranks=ranks
        )
        data = open_data(streamed)
    assert isinstance(data, StreamedSet) == (kind == "streamed")
    return data


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_a_mixture_is_the_same_for_any_workers_ranks_and_resumed_runs(
    kind: str, pool: Pool, other: Pool
) -> None:
    sources = [
        Source(pool=pool, rows=pool.subset(size=None, quality="top40"), share=1024),
        Source(pool=other, rows=np.arange(other.count), share=3072),
    ]
    whole = seen(opened(kind, sources), 0, 8)
    assert len(whole) == 8 * BATCH
    for workers, ranks in ((1, 1), (2, 2)):
        parts = [
            seen(opened(kind, sources, workers=workers, rank=rank, ranks=ranks), 0, 8)
            for rank in range(ranks)
        ]
        size = BATCH // ranks
        joined = [
            image for step in range(8) for part in parts for image in part[step * size : (step + 1) * size]
        ]
        assert joined == whole
    assert seen(opened(kind, sources), 5, 8) == whole[5 * BATCH :]
    theirs = set(seen(opened(kind, sources[1:]), 0, 8)) & set(whole)
    assert abs(sum(image in theirs for image in whole) - 0.75 * len(whole)) < 0.05 * len(whole)


@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_images_and_tokens_of_a_mixture_belong_together(kind: str, pool: Pool, other: Pool) -> None:
    sources = [Source(pool=each, rows=np.arange(each.count), share=each.count) for each in (pool, other)]
    texts: dict[bytes, int] = {}
    for source in sources:
        alone = opened("in memory", [source]).batches(seed=0, batch_size=1, first_step=0, steps=source.share)
        texts |= {each.images.numpy().tobytes(): int(each.tokens) for each in alone}
    for batch in opened(kind, sources).batches(seed=1, batch_size=50, first_step=2, steps=12):
        expected = [texts[image.numpy().tobytes()] for image in batch.images]
        assert expected == batch.tokens[:, 0].tolist()


@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_a_mixture_of_one_pool_is_the_pool_to_the_bit(kind: str, pool: Pool) -> None:
    alone = Source(pool=pool, rows=np.arange(0, pool.count, 3))
    batches = [
        list(opened(kind, [source]).batches(seed=9, batch_size=32, first_step=1, steps=20))
        for source in (alone, replace(alone, share=4096))
    ]
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.ids, two.ids)


def test_damage_counts_against_the_pool_that_has_it(pool: Pool, tmp_path: Path) -> None:
    damaged = build_embedded_pool(
        tmp_path / "damaged", pairs=100, seed=1, score=None, evaluation_sizes={"held-out": 100}
    )
    shard = damaged.path / damaged.frame["shard"][0]
    content = bytearray(shard.read_bytes())
    content[damaged.frame["offset"][10] + 60] ^= 255
    shard.write_bytes(content)
    sources = [
        Source(pool=pool, rows=np.arange(pool.count), share=1),
        Source(pool=damaged, rows=np.arange(100), share=1),
    ]
    message = rf"^{damaged.path}: 1 of 100 pairs are damaged, more than the tolerated 0\.10 %"
    with pytest.raises(ValueError, match=message):
        opened("in memory", sources)
    with pytest.raises(ValueError, match=message):
        seen(opened("streamed", sources), 0, 8)
    strict = opened("streamed", sources)
    assert isinstance(strict, StreamedSet)
    tolerant = replace(strict, tolerance=0.01, damaged={})
    assert len(seen(tolerant, 0, 8)) == 8 * BATCH
    assert [each.reason for each in tolerant.damage] == ["not the bytes that were indexed"]
