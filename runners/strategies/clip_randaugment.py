"""CLIP + RandAugment: two random operations on each image before the contrastive loss."""

import torch
from torch import Tensor

from runners.strategies.clip import Clip
from runners.strategies.randaugment import rand_augment


class ClipRandAugment(Clip):
    """CLIP on images with RandAugment."""

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return augmented images, and texts as they are."""
        return rand_augment(images, generator), tokens
