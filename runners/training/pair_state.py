"""State by pair: numbers that a strategy keeps for each pair of the subset from one step to the next."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from budgets.cost.strategy import Model, PairValues, Strategy
from runners.training.ranks import broadcast, gather, rank, rank_count


class PairState:
    """Numbers of all pairs by name, float32 (pairs,).

    Rank 0 has them, on its device, and sends the others those of a batch: it alone decides when a checkpoint
    is written, so a state that is divided among ranks could not be written then.
    """

    def __init__(self, initial: Mapping[str, float], pairs: int, device: torch.device) -> None:
        self.pairs, self._names, self._device = pairs, tuple(initial), device
        self._values = torch.empty(len(initial), 0 if rank() else pairs, device=device)
        for values, first in zip(self._values, initial.values(), strict=True):
            values.fill_(first)

    def look_up(self, ids: Tensor, *, progress: float, epochs: float) -> PairValues:
        """Return the values of the pairs of all ranks' batch, given their ids in the order of ranks, (N,)."""
        values = torch.empty(len(self._names), len(ids), device=self._device)
        values = broadcast(values if rank() else self._values[:, ids])
        before = dict(zip(self._names, values, strict=True))
        after = dict(zip(self._names, values.clone(), strict=True))
        return PairValues(progress=progress, epochs=epochs, before=before, after=after)

    def update(self, ids: Tensor, after: Mapping[str, Tensor]) -> None:
        """Keep the values of all ranks' pairs after a step, of which each rank has set those of its rows."""
        local = torch.stack([after[name].tensor_split(rank_count())[rank()] for name in self._names], dim=1)
        every = gather(local).T
        if rank():
            return
        # Of a pair that a batch has twice the last one counts, on any device.
        ordered, order = ids.sort(stable=True)
        last = torch.ones_like(ids, dtype=torch.bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        chosen = order[last]
        self._values[:, ids[chosen]] = every[:, chosen]

    def state_dict(self) -> dict[str, Tensor]:
        """Return all values by name, on rank 0."""
        return dict(zip(self._names, self._values, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore all values, on rank 0; the number of ranks may be another one."""
        if rank() == 0:
            for name, values in zip(self._names, self._values, strict=True):
                values.copy_(state[name])


def loss_of_new_pairs(strategy: Strategy, model: Model, features: Sequence[Tensor]) -> Tensor:
    """Return the loss of a first step, from the features of all its pairs, on one rank."""
    if not (initial := strategy.pair_state()):
        return strategy.loss(model, *features)
    ids = torch.arange(len(features[0]), device=features[0].device)
    values = PairState(initial, len(ids), ids.device).look_up(ids, progress=0.0, epochs=1.0)
    return strategy.loss_by_pair(model, values, *features)
