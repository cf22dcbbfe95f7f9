"""CLIP: the symmetric contrastive loss of image and text (arXiv 2103.00020), without augmentation.

FLIP (arXiv 2212.00794) uses this loss too; its patch dropout is part of the model, its larger batch of the
trial.
"""

import math
from collections.abc import Sequence

import open_clip
import torch
from open_clip.transformer import PatchDropout
from torch import Tensor, nn

from runners.models.model import encode_text
from runners.strategies.row_loss import Gather, RowLoss, softmax_row_loss


class Clip:
    """The plain strategy, base class of the others."""

    def __init__(self) -> None:
        self.head: nn.Module | None = None
        self._loss = open_clip.ClipLoss()

    def views(self, images: Tensor, tokens: Tensor, _generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return images and texts unchanged."""
        return images, tokens

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised features of images and texts, (pairs, embedding) each."""
        images, tokens = views
        return model.encode_image(images, normalize=True), encode_text(model, tokens)

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return open_clip's contrastive loss of image and text features."""
        loss: Tensor = self._loss(*features, model.logit_scale.exp())
        return loss

    def row_loss(self, model: open_clip.CLIP, own: Sequence[Tensor], gather: Gather, first: int) -> RowLoss:
        """Return the same loss by this rank's rows."""
        image, text = (each.float() for each in own)
        return softmax_row_loss(image, text, model.logit_scale.exp(), gather, first)

    def chance(self, batch_size: int) -> float:
        """Return the cross-entropy of a uniform choice among the batch."""
        return math.log(batch_size)

    def enlarge(self, model: open_clip.CLIP) -> None:
        """Leave the model as it is: its images have one size."""

    def unmask(self, model: open_clip.CLIP) -> None:
        """Switch off patch dropout."""
        for module in model.visual.modules():
            if isinstance(module, PatchDropout):
                module.prob = 0.0
