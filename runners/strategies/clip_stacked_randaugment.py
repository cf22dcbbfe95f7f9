"""CLIP + stacked RandAugment: crop & flip, and RandAugment on top of it, before the contrastive loss.

"Scaling (Down) CLIP" (arXiv 2404.08197, section 7) names it and does not define it: its two other
augmentations are stacked here.
"""

import torch
from torch import Tensor

from runners.strategies.augment import crop_and_flip
from runners.strategies.clip import Clip
from runners.strategies.clip_crop_flip import LEAST_AREA
from runners.strategies.randaugment import rand_augment


class ClipStackedRandAugment(Clip):
    """CLIP on images that are cropped, mirrored and augmented."""

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return augmented images, and texts as they are."""
        return rand_augment(crop_and_flip(images, generator, least_area=LEAST_AREA), generator), tokens
