"""SLIP: CLIP's loss plus SimCLR's on two augmented views of the same images (arXiv 2112.12750).

The self-supervised head reads the image tower's features before their projection; for a ModifiedResNet, whose
attention pooling ends with the projection, it reads the projected ones.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from runners.models.model import full_precision, unprojected
from runners.strategies.augment import blur, crop_and_flip, jitter_colour, jitter_colour_and_hue
from runners.strategies.clip import Clip
from runners.strategies.row_loss import Gather, RowLoss, simclr_row_loss

_TEMPERATURE = 0.1
_SCALE = 1.0
_LEAST_AREA = 0.2  # SimCLR's 0.08 would leave 9 pixels of a small image
_ORIGINAL_LEAST_AREA, _LEAST_AREA_OF_CLIP = 0.08, 0.5


class Slip(Clip):
    """CLIP and SimCLR together.

    ``head_dims`` are the widths of the self-supervised head (`budgets.cost.flops.slip_head_dims`): in,
    hidden, out. ``original_views`` are those of SLIP's code (facebookresearch/SLIP, ``main.py``).
    """

    def __init__(self, head_dims: tuple[int, int, int], *, original_views: bool = False) -> None:
        super().__init__()
        self._original = original_views
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

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return images, with the original views cropped, texts, and two augmented views of the images."""
        if self._original:
            cropped = crop_and_flip(images, generator, least_area=_LEAST_AREA_OF_CLIP, flip=False)
            first, second = (_original_view(images, generator) for _ in range(2))
            return cropped, tokens, first, second
        first, second = (
            jitter_colour(crop_and_flip(images, generator, least_area=_LEAST_AREA), generator)
            for _ in range(2)
        )
        return images, tokens, first, second

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Return CLIP's features, and the head's features of both augmented views."""
        assert self.head is not None
        images, tokens, first, second = views
        with unprojected(model.visual):
            embeddings = self.head(model.visual(torch.cat([first, second])))
        return (*super().features(model, images, tokens), *embeddings.chunk(2))

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return CLIP's loss plus SimCLR's."""
        image, text, first, second = features
        with full_precision(first.device):  # as in CLIP's own loss
            self_supervised = simclr_loss(torch.cat([first, second]), temperature=_TEMPERATURE)
        return super().loss(model, image, text) + _SCALE * self_supervised

    def row_loss(self, model: open_clip.CLIP, own: Sequence[Tensor], gather: Gather, first: int) -> RowLoss:
        """Return the same loss by this rank's rows."""
        image, text, *views = own
        contrastive = super().row_loss(model, (image, text), gather, first)
        with torch.enable_grad():
            raw = [view.detach().requires_grad_() for view in views]
            embeddings = [functional.normalize(view.float(), dim=-1) for view in raw]
        simclr = simclr_row_loss(
            *(each.detach() for each in embeddings), temperature=_TEMPERATURE, gather=gather, first=first
        )
        gradients = torch.autograd.grad(embeddings, raw, simclr.features)
        return replace(
            contrastive,
            share=contrastive.share + _SCALE * simclr.share,
            features=(*contrastive.features, *(_SCALE * each for each in gradients)),
        )

    def chance(self, batch_size: int) -> float:
        """Add the cross-entropy of a uniform choice among all other views of the batch."""
        return super().chance(batch_size) + _SCALE * math.log(2 * batch_size - 1)


def _original_view(images: Tensor, generator: torch.Generator) -> Tensor:
    cropped = crop_and_flip(images, generator, least_area=_ORIGINAL_LEAST_AREA)
    return blur(jitter_colour_and_hue(cropped, generator), generator)


def simclr_loss(embeddings: Tensor, *, temperature: float) -> Tensor:
    """Return SimCLR's normalised cross-entropy (arXiv 2002.05709, equation 1).

    Embeddings, (2N, D), are of the first views, then of the second views of the same images in their order;
    the temperature divides the cosines.
    """
    normalised = functional.normalize(embeddings.float(), dim=-1)
    cosines = (normalised @ normalised.T) / temperature
    cosines.fill_diagonal_(float("-inf"))
    count = len(embeddings) // 2
    partner = torch.arange(2 * count, device=embeddings.device).roll(count)  # the other view of each image
    return functional.cross_entropy(cosines, partner)
