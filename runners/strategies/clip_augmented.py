"""CLIP on augmented images: cropped and mirrored, with RandAugment, or both ("stacked").

"Scaling (Down) CLIP" (arXiv 2404.08197, section 7) names stacked RandAugment without defining it; here it is
crop & flip followed by RandAugment.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from runners.strategies.augment import crop_and_flip
from runners.strategies.clip import Clip
from runners.strategies.randaugment import rand_augment

LEAST_AREA = 0.5
"""Smallest share of the area that a crop keeps, as in SLIP's CLIP view (arXiv 2112.12750).

A caption describes the whole image, so more is kept than for self-supervised views.
"""

LEAST_AREA_OF_CLIP = 0.9
"""The same for CLIP's own random crop, unmirrored: open_clip's ``scale`` of 0.9 to 1."""

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""Float images in [-1, 1], (N, 3, H, W), and the step's random generator → images of the same shape."""


_crop_flip = partial(crop_and_flip, least_area=LEAST_AREA)

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "clip-crop-flip": _crop_flip,
        "clip-random-crop": partial(crop_and_flip, least_area=LEAST_AREA_OF_CLIP, flip=False),
        "clip-randaugment": lambda images, _generator: images,
        "clip-stacked-randaugment": _crop_flip,
    }
)
"""Strategy → augmentation of its images, before RandAugment if the strategy has it."""


class ClipAugmented(Clip):
    """CLIP's contrastive loss on augmented images.

    Args:
        augment: Augmentation of a batch.
        randaugment: Probability of each of RandAugment's operations, which follow; 0 without it.
    """

    def __init__(self, augment: Augmentation, randaugment: float = 0.0) -> None:
        super().__init__()
        self._augment, self._randaugment = augment, randaugment

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return augmented images, and texts unchanged."""
        images = self._augment(images, generator)
        if self._randaugment:
            images = rand_augment(images, generator, probability=self._randaugment)
        return images, tokens
