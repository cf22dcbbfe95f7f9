"""CLIP: the symmetric contrastive loss of image and text (arXiv 2103.00020), on images as they are.

FLIP (arXiv 2212.00794) is this loss too: its patch dropout is the model's, its larger batch the trial's.
"""

import open_clip
import torch
from torch import Tensor, nn


class Clip:
    """The plain strategy."""

    def __init__(self) -> None:
        self.head: nn.Module | None = None
        self._loss = open_clip.ClipLoss()

    def loss(
        self, model: open_clip.CLIP, images: Tensor, tokens: Tensor, _generator: torch.Generator
    ) -> Tensor:
        """Gives the contrastive loss of the batch (see `TrainingStrategy.loss`)."""
        return contrastive_loss(self._loss, model, images, tokens)


def contrastive_loss(loss: nn.Module, model: open_clip.CLIP, images: Tensor, tokens: Tensor) -> Tensor:
    """Encodes both sides and gives open_clip's loss of them."""
    image_features = model.encode_image(images, normalize=True)
    text_features = model.encode_text(tokens, normalize=True)
    result: Tensor = loss(image_features, text_features, model.logit_scale.exp())
    return result
