"""SigLIP: a sigmoid loss on every image-text pair of the batch separately (arXiv 2303.15343)."""

import math

import open_clip
from open_clip.loss import SigLipLoss
from torch import Tensor

from runners.strategies.clip import Clip
from runners.strategies.row_loss import sigmoid_row_loss


class SigLip(Clip):
    """CLIP's views and features with SigLIP's loss; the model has a learned bias (`runners.models.model`)."""

    def __init__(self) -> None:
        super().__init__()
        self._loss, self._row_loss = SigLipLoss(), sigmoid_row_loss

    def _scale_and_bias(self, model: open_clip.CLIP) -> tuple[Tensor, ...]:
        return model.logit_scale.exp(), model.logit_bias

    def chance(self, batch_size: int) -> float:
        """Return the lowest loss of a constant answer for all image-text pairs of the batch."""
        others = batch_size - 1
        return math.log(batch_size) + (others * math.log(batch_size / others) if others else 0.0)
