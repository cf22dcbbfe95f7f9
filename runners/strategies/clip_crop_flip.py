"""CLIP + data augmentation: each image is cropped and mirrored at random before the contrastive loss."""

import torch
from torch import Tensor

from runners.strategies.augment import crop_and_flip
from runners.strategies.clip import Clip

LEAST_AREA = 0.5
"""A caption speaks of the whole image: half of its area stays, as in SLIP's CLIP view (arXiv 2112.12750)."""


class ClipCropFlip(Clip):
    """CLIP on cropped and mirrored images."""

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return cropped and mirrored images, and texts as they are."""
        return crop_and_flip(images, generator, least_area=LEAST_AREA), tokens
