"""Interface of a trial's training data, and the pools that it comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runners.data.index.subset import Subset
from runners.data.pool.damage import Damage
from runners.data.pool.pool import Pool

Tokens = Callable[[Sequence[str]], Tensor]
"""Texts → token ids, int64 (texts, context length)."""

Empty = Callable[..., Tensor]
"""Memory for a tensor, as `torch.empty` makes it of sizes and ``dtype``."""

Batches = Iterator[tuple[Tensor, Tensor]]
"""Images, uint8 (batch, 3, S, S), and token ids, int64 (batch, context length), step by step."""


GatherObjects = Callable[[Any], Sequence[Any]]
"""An object of this rank → those of all ranks."""


NotedDamage = Sequence[tuple[int, str, str, str]]
"""Damage as plain data: number of the source, and shard, key and reason."""


class TrainingData(ABC):
    """The data that training reads; by default it finds no damage after it was opened."""

    __slots__ = ()

    @abstractmethod
    def batches(
        self, *, seed: int, batch_size: int, first_step: int, steps: int, empty: Empty = torch.empty
    ) -> Batches:
        """Return this rank's part of the steps from ``first_step`` on, in the global order of samples.

        A step's images and tokens are a function of (seed, step, rank) alone.

        Args:
            seed: Seed of the order.
            batch_size: Pairs in a step, of all ranks.
            first_step: First step.
            steps: Steps of the whole run.
            empty: Makes the memory that images are gathered in, for example pinned memory for a GPU.

        Raises:
            ValueError: More pairs are damaged than tolerated, or a batch cannot be split into equal parts.
        """

    @property
    def damage(self) -> list[Damage]:
        """The damaged pairs found so far, by any rank; others replaced them."""
        return []

    def exchange_damage(self, gather: GatherObjects) -> None:  # noqa: B027 - nothing found, nothing exchanged
        """Learn the damage that other ranks have found, and judge the tolerance on all of it.

        Raises:
            ValueError: More pairs are damaged than tolerated.
        """

    def noted_damage(self) -> NotedDamage:
        """Return the damage that a later start would not find again, for `remember`."""
        return ()

    def remember(self, noted: NotedDamage) -> None:  # noqa: B027 - nothing noted, nothing remembered
        """Add the damage that an earlier start has noted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A pool's part of a trial's pairs.

    Attributes:
        pool: The pool.
        rows: The part: positions in the pool's index, ascending.
        share: Its samples in each period of a mixture (`runners.data.reading.mixing`).
    """

    pool: Pool
    rows: Subset | NDArray[np.int64]
    share: int = 1


def rank_slice(batch_size: int, rank: int, ranks: int) -> slice:
    """Return a rank's slice of a batch; the whole batch does not depend on the number of ranks."""
    if batch_size % ranks:
        raise ValueError(f"a batch of {batch_size} cannot be split into {ranks} equal parts")
    size = batch_size // ranks
    return slice(rank * size, (rank + 1) * size)
