"""SLIP: CLIP's loss plus SimCLR's on two augmented views of the same images (arXiv 2112.12750)."""

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from runners.augment import crop_and_flip, jitter_colour
from runners.model import unprojected
from runners.strategies.clip import contrastive_loss

_TEMPERATURE = 0.1
_SCALE = 1.0
_LEAST_AREA = 0.2  # SimCLR's 0.08 leaves 9 pixels of a small image


class Slip:
    """CLIP and SimCLR together.

    Args:
        head_dims: Widths of the self-supervised head: in, hidden, out (`budgets.flops.slip_head_dims`).
    """

    def __init__(self, head_dims: tuple[int, int, int]) -> None:
        width, hidden, out = head_dims
        self.head: nn.Module | None = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )
        self._loss = open_clip.ClipLoss()

    def loss(
        self, model: open_clip.CLIP, images: Tensor, tokens: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Gives CLIP's loss plus SimCLR's (see `TrainingStrategy.loss`)."""
        assert self.head is not None
        views = torch.cat(
            [
                jitter_colour(crop_and_flip(images, generator, least_area=_LEAST_AREA), generator)
                for _ in range(2)
            ]
        )
        with unprojected(model.visual):
            embeddings = self.head(model.visual(views))
        self_supervised = simclr_loss(embeddings, temperature=_TEMPERATURE)
        return contrastive_loss(self._loss, model, images, tokens) + _SCALE * self_supervised


def simclr_loss(embeddings: Tensor, *, temperature: float) -> Tensor:
    """Gives SimCLR's normalised cross-entropy (arXiv 2002.05709, equation 1).

    Args:
        embeddings: First views, then second views of the same images in the same order, (2N, D).
        temperature: Divides the cosines.
    """
    normalised = functional.normalize(embeddings.float(), dim=-1)
    cosines = (normalised @ normalised.T) / temperature
    cosines.fill_diagonal_(float("-inf"))
    count = len(embeddings) // 2
    partner = torch.arange(2 * count, device=embeddings.device).roll(count)
    return functional.cross_entropy(cosines, partner)
