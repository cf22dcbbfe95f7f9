"""CLIP + data augmentation: each image is cropped and mirrored at random before the contrastive loss."""

import open_clip
import torch
from torch import Tensor

from runners.augment import crop_and_flip
from runners.strategies.clip import Clip

# A caption speaks of the whole image: half of its area stays, as in SLIP's CLIP view (arXiv 2112.12750).
_LEAST_AREA = 0.5


class ClipCropFlip(Clip):
    """CLIP on cropped and mirrored images."""

    def loss(
        self, model: open_clip.CLIP, images: Tensor, tokens: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Gives the contrastive loss of the augmented batch (see `TrainingStrategy.loss`)."""
        return super().loss(
            model, crop_and_flip(images, generator, least_area=_LEAST_AREA), tokens, generator
        )
