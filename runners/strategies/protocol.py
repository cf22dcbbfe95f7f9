"""What a training strategy is: from a batch of images and texts to a loss.

Its cost stands in `budgets.strategy`; a test holds the two together.
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

    def loss(
        self, model: open_clip.CLIP, images: Tensor, tokens: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Gives the batch's loss, a scalar.

        Args:
            model: The model in training mode.
            images: Float images in [-1, 1], (N, 3, H, W).
            tokens: Token ids, (N, context length).
            generator: Source of the step's augmentation, on the processor.
        """
        ...
