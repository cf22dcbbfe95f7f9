"""Sums over the pairs of a batch, by each rank its own and in chunks: no process holds a whole matrix."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from budgets.cost.memory import CHUNK_ENTRIES
from runners.training.ranks import rank, rank_count, sum_over_ranks


def over_pairs(features: Tensor, share: Callable[[Tensor], Tensor]) -> Tensor:
    """Return Σ share(i) over all rows i of the features of the whole batch, a scalar with a graph.

    ``share`` takes row numbers, int64 (n,), and returns the scalar sum of their terms. A term compares a row
    with all rows, as that of a similarity matrix: at most `CHUNK_ENTRIES` such entries are computed at once,
    and with more than one chunk ``share`` is called again in the backward pass, so it must change nothing.

    Over several ranks each computes the terms of its own rows. The sum is the whole one on all ranks, and the
    mean of the ranks' gradients is the gradient, also of a loss that is not linear in the sum.
    """
    rows = torch.arange(len(features), device=features.device).tensor_split(rank_count())[rank()]
    chunks = rows.split(max(1, CHUNK_ENTRIES // len(features)))
    if len(chunks) == 1:
        local_sum = share(rows)
    else:
        local_sum = torch.stack([checkpoint(share, chunk, use_reentrant=False) for chunk in chunks]).sum()
    over_ranks: Callable[[Tensor], Tensor] = _SumOverRanks.apply
    return local_sum if rank_count() == 1 else over_ranks(local_sum)


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; gradients are multiplied by the ranks' number, so that their mean is the sum's."""

    @staticmethod
    def forward(_context: object, local_sum: Tensor) -> Tensor:
        return sum_over_ranks(local_sum)

    @staticmethod
    def backward(_context: object, slope: Tensor) -> Tensor:
        return slope * rank_count()
