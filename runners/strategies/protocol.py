"""Protocol of a training strategy: from a batch of images and texts to a loss, in three steps.

The batch can be split between the steps: features of its parts are computed separately (accumulation, several
devices), and the loss takes the features of all. `budgets.cost.strategy` holds the costs; a test compares
them with this code.
"""

from collections.abc import Sequence
from typing import Protocol

import open_clip
import torch
from torch import Tensor, nn

from runners.strategies.row_loss import Gather, RowLoss


class TrainingStrategy(Protocol):
    """A way to train CLIP.

    Attributes:
        head: Trainable parameters beyond the model's own, or None.
    """

    head: nn.Module | None

    def views(self, images: Tensor, tokens: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the inputs of the towers for a batch.

        Args:
            images: Float images in [-1, 1], (N, 3, H, W).
            tokens: Token ids, (N, context length).
            generator: Source of the step's augmentation, on the CPU.

        Returns:
            Tensors whose first dimension is the batch's N pairs.
        """
        ...

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Return features, each (pairs, width), of the views of some pairs; towers in training mode."""
        ...

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return the loss of the whole batch, a scalar, from the features of all its pairs."""
        ...

    def row_loss(self, model: open_clip.CLIP, own: Sequence[Tensor], gather: Gather, first: int) -> RowLoss:
        """Compute this rank's share of the same loss, and its features' gradients, without the whole matrix.

        Args:
            model: The model.
            own: Features of this rank's pairs.
            gather: Joins tensors of all ranks.
            first: Number of this rank's first pair in the batch.
        """
        ...

    def chance(self, batch_size: int) -> float:
        """Return the loss of features that carry no information."""
        ...

    def enlarge(self, model: open_clip.CLIP) -> None:
        """Prepare a model that saw smaller images for full ones; called once, before the tail's first step.

        All state of this change is in the weights, so that a checkpoint of the tail needs nothing else.
        """
        ...

    def unmask(self, model: open_clip.CLIP) -> None:
        """Use all tokens in both towers from now on (the unmasked tail of FLIP and CLIPA)."""
        ...
