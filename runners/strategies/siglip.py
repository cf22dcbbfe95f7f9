"""SigLIP: a sigmoid loss on every image-text pair of the batch separately (arXiv 2303.15343)."""

import math
from collections.abc import Sequence

import open_clip
from open_clip.loss import SigLipLoss
from torch import Tensor

from runners.models.model import full_precision
from runners.strategies.clip import Clip
from runners.strategies.row_loss import Gather, RowLoss, sigmoid_row_loss


class SigLip(Clip):
    """CLIP's views and features with SigLIP's loss; the model has a learned bias (`runners.models.model`)."""

    def __init__(self) -> None:
        super().__init__()
        self._loss = SigLipLoss()

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return open_clip's sigmoid loss of image and text features."""
        image, text = (each.float() for each in features)
        # The sum over the whole matrix needs more than bf16's eight bits of precision.
        with full_precision(image.device):
            loss: Tensor = self._loss(image, text, model.logit_scale.exp(), model.logit_bias)
        return loss

    def row_loss(self, model: open_clip.CLIP, own: Sequence[Tensor], gather: Gather, first: int) -> RowLoss:
        """Return the same loss by this rank's rows."""
        image, text = (each.float() for each in own)
        return sigmoid_row_loss(image, text, model.logit_scale.exp(), model.logit_bias, gather, first)

    def chance(self, batch_size: int) -> float:
        """Return the lowest loss of a constant answer for all image-text pairs of the batch."""
        others = batch_size - 1
        return math.log(batch_size) + (others * math.log(batch_size / others) if others else 0.0)
