"""Interface of a trial's training data, the pools that it comes from, and its way to a device."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from budgets.cost.strategy import Batch
from runners.data.index.selection import Subset
from runners.data.pool.damage import DAMAGE_TOLERANCE, Damage, check_tolerance
from runners.data.pool.pool import Pool

Tokens = Callable[[Sequence[str]], Tensor]
"""Texts → token ids, int64 (texts, context length)."""

Empty = Callable[..., Tensor]
"""Memory for a tensor, as `torch.empty` makes it of sizes and ``dtype``."""

Batches = Iterator[Batch]
"""Pairs step by step; images are uint8."""

GatherObjects = Callable[[Any], Sequence[Any]]
"""An object of this rank → those of all ranks."""

NotedDamage = Sequence[tuple[int, str, str, str]]
"""Damage as plain data: number of the source, and shard, key and reason."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A pool's part of a trial's pairs."""

    pool: Pool
    rows: Subset | NDArray[np.int64]  # positions in the pool's index, ascending
    share: int = 1  # its samples in each period of a mixture (`runners.data.reading.order`)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingData(ABC):
    """The data that training reads: this rank's part of every batch.

    ``damaged`` has the damaged pairs found so far by any rank, each with the number of its source; others
    replaced them. ``news`` are those that other ranks do not know yet.
    """

    rank: int = 0
    ranks: int = 1
    sources: Sequence[Source] = ()
    tolerance: float = DAMAGE_TOLERANCE
    damaged: dict[tuple[int, Damage], None] = field(default_factory=dict)
    news: list[tuple[int, Damage]] = field(default_factory=list)

    @abstractmethod
    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Return this rank's part of the steps from ``first_step`` on, in the global order of samples.

        A step's pairs are a function of (seed, step, rank) alone. ``batch_size`` is that of all
        ranks together, ``steps`` are those of the whole run, and ``empty`` makes the memory that images are
        gathered in, for example pinned memory for a GPU.

        Raises:
            ValueError: More pairs are damaged than tolerated, or a batch cannot be split into equal parts.
        """

    @property
    def damage(self) -> list[Damage]:
        """The damaged pairs found so far."""
        return [pair for _, pair in list(self.damaged)]  # copied at once, since a thread may load ahead

    def found(self, damage: Collection[tuple[int, Damage]]) -> None:
        """Add damage, and judge the tolerance on all of it; ValueError if it is exceeded."""
        self.damaged.update(dict.fromkeys(damage))
        for number in {number for number, _ in damage}:
            mine = [pair for source, pair in list(self.damaged) if source == number]
            pool, count = self.sources[number].pool, len(self.sources[number].rows)
            check_tolerance(mine, pool=pool.path, of=count, tolerance=self.tolerance)

    def exchange_damage(self, gather: GatherObjects) -> None:
        """Learn other ranks' damage and judge the tolerance on all of it; ValueError if it is exceeded."""
        news = list(self.news)
        del self.news[: len(news)]  # a thread that loads ahead may have added to it
        self.found([pair for some in gather(news) for pair in some])

    def noted_damage(self) -> NotedDamage:
        """Return all damage, for `remember`: a later start reads only the pairs of its own steps."""
        return [(number, *astuple(pair)) for number, pair in list(self.damaged)]

    def remember(self, noted: NotedDamage) -> None:
        """Add the damage that an earlier start has noted."""
        for number, shard, key, reason in noted:
            self.damaged[number, Damage(shard=shard, key=key, reason=reason)] = None


def column_tensors(rows: pd.DataFrame, names: Sequence[str], tokens: Tokens) -> dict[str, Tensor]:
    """Return columns of the index of some pairs, which come with their captions, as in a batch."""

    def tensor(column: "pd.Series[Any]") -> Tensor:
        if (kind := column.dtype.kind) in "biuf":
            return torch.from_numpy(column.to_numpy(np.float32 if kind == "f" else None, copy=True))
        if isinstance(column.iloc[0], bytes):
            return torch.frombuffer(bytearray().join(column), dtype=torch.float16).view(len(column), -1)
        return tokens(column.fillna(rows["caption"]).tolist())

    return {name: tensor(rows[name]) for name in names}


def rank_slice(batch_size: int, rank: int, ranks: int) -> slice:
    """Return a rank's slice of a batch; the whole batch does not depend on the number of ranks."""
    if batch_size % ranks:
        raise ValueError(f"a batch of {batch_size} cannot be split into {ranks} equal parts")
    size = batch_size // ranks
    return slice(rank * size, (rank + 1) * size)


def on_device(batches: Batches, device: torch.device) -> Batches:
    """Yield batches on a device; for a GPU, the next batch is gathered and pinned in the background.

    A copy from unpinned memory would wait until the GPU has finished all queued work.
    """
    if device.type != "cuda":
        yield from batches
        return
    # A new thread uses the first GPU by default, so without this each rank would open a context there.
    pinned = (
        batch.changed(lambda field: field if field.is_pinned() else field.pin_memory()) for batch in batches
    )
    for batch in ahead(pinned, before=partial(torch.cuda.set_device, device)):
        yield batch.changed(lambda field: field.to(device, non_blocking=True))


def ahead(batches: Iterator[T], *, before: Callable[[], None] = lambda: None) -> Iterator[T]:
    """Yield the same batches; a thread fetches the next one while the current one is used.

    ``before`` is called once in that thread, before it fetches.
    """
    # One thread: generators cannot be advanced by two threads at once.
    with ThreadPoolExecutor(1, initializer=before) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def empty_for(device: torch.device) -> Callable[..., Tensor]:
    """Return a function that allocates batches for a device, pinned for a GPU to avoid a second copy."""
    return partial(torch.empty, pin_memory=True) if device.type == "cuda" else torch.empty
