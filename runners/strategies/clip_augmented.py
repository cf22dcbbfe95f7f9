"""CLIP on augmented images: cropped and mirrored, with RandAugment, or both ("stacked").

"Scaling (Down) CLIP" (arXiv 2404.08197, section 7) names stacked RandAugment without defining it; here it is
crop & flip followed by RandAugment. Augmentation costs no FLOPs.
"""

from dataclasses import dataclass

from budgets.cost.strategy import Batch, Generator, Tensor
from runners.strategies.clip import Clip


@dataclass(frozen=True, kw_only=True)
class ClipAugmented(Clip):
    """CLIP's contrastive loss on cropped images.

    Attributes:
        least_area: Smallest share of the area that a crop keeps; 1 crops and mirrors nothing.
        flip: Whether half of the images are mirrored.
    """

    least_area: float = 1.0
    flip: bool = True

    @property
    def view_bytes(self) -> int:
        """Measured with torch's MemTracker: 11 for a crop, 9 for RandAugment, 13 for both."""
        return 13

    def views(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        """Return augmented images, and texts unchanged."""
        from runners.training.augment import crop_and_flip

        images = batch.images
        if self.least_area < 1:
            images = crop_and_flip(images, generator, least_area=self.least_area, flip=self.flip)
        return images, batch.tokens


@dataclass(frozen=True, kw_only=True)
class ClipRandAugment(ClipAugmented):
    """The same, followed by RandAugment, each of its two operations with the probability ``randaugment``."""

    randaugment: float = 1.0

    def views(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        """Return augmented images, and texts unchanged."""
        from runners.training.randaugment import rand_augment

        images, tokens = super().views(batch, generator)
        return rand_augment(images, generator, probability=self.randaugment), tokens


_PAPER = "Li, Xie and Cubuk 2024"
# As in SLIP's CLIP view (arXiv 2112.12750). A caption describes the whole image, so more of it is kept than
# for self-supervised views.
_LEAST_AREA = 0.5

STRATEGIES = (
    ClipAugmented(
        name="clip-crop-flip", label="CLIP + crop and flip", paper=_PAPER, least_area=_LEAST_AREA
    ),
    ClipRandAugment(name="clip-randaugment", label="CLIP + RandAugment", paper=_PAPER),
    ClipRandAugment(
        name="clip-stacked-randaugment", label="CLIP + stacked RandAugment", paper=_PAPER,
        least_area=_LEAST_AREA,
    ),
    # CLIP's only augmentation, a random crop of the resized image: open_clip's ``scale`` of 0.9 to 1.
    ClipAugmented(
        name="clip-random-crop", label="CLIP + random crop", paper="Radford et al. 2021",
        least_area=0.9, flip=False,
    ),
)  # fmt: skip
