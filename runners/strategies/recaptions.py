"""CLIP on rewritten captions beside the pairs' own, as LaCLIP mixes them (arXiv 2305.20088)."""

from dataclasses import dataclass

from budgets.cost.strategy import Batch, Generator, Tensor
from runners.strategies.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Recaptions(Clip):
    """CLIP whose texts are drawn from several captions of a pair, again in each step.

    Attributes:
        share: Share of the pairs whose text is one of ``columns``, each as often as the others; the rest have
            their own caption.
    """

    share: float = 0.5

    def views(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        """Return images unchanged, and for each pair one of its texts."""
        import torch

        texts = torch.stack([batch.tokens, *(batch.columns[name] for name in self.columns)])
        drawn = torch.rand(2, len(batch.tokens), generator=generator)
        others = 1 + (drawn[0] * len(self.columns)).long()
        chosen = others.where(drawn[1] < self.share, 0).to(texts.device, non_blocking=True)
        return batch.images, texts[chosen, torch.arange(len(chosen), device=texts.device)]


STRATEGIES = (
    Recaptions(name="recaptions", label="CLIP + recaptions", paper="Fan et al. 2023", columns=("recaption",)),
)
