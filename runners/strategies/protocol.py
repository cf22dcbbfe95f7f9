"""What a training strategy is: from a batch of images and texts to a loss, in three steps.

Between the steps a batch can be cut: features of its parts are computed apart (accumulation, several
devices) and the loss reads the features of all. Its cost stands in `budgets.cost.strategy`; a test holds the
two together.
"""

from typing import Protocol

import open_clip
import torch
from torch import Tensor, nn


class TrainingStrategy(Protocol):
    """One way to train CLIP.

    Attributes:
        head: Trainable parameters beyond the model's own, or None.
    """

    head: nn.Module | None

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return what the towers see of a batch.

        Args:
            images: Float images in [-1, 1], (N, 3, H, W).
            tokens: Token ids, (N, context length).
            generator: Source of the step's augmentation, on the processor.

        Returns:
            Tensors whose first dimension is the batch's N pairs.
        """
        ...

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Run the towers, in training mode, on the views of some pairs: features, each (pairs, width)."""
        ...

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return the loss of the whole batch, a scalar, from the features of all of its pairs."""
        ...

    def chance(self, batch_size: int) -> float:
        """Return the loss of features that tell nothing apart."""
        ...

    def unmask(self, model: open_clip.CLIP) -> None:
        """Let both towers see all tokens from here on (the unmasked tail of FLIP and CLIPA)."""
        ...
