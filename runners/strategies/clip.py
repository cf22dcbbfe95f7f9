"""CLIP: the symmetric contrastive loss of image and text (arXiv 2103.00020), without augmentation.

A strategy goes from a batch of images and texts to a loss in three steps, between which the batch can be
split: features of its parts are computed separately (accumulation, several devices), and the loss takes the
features of all. `budgets.cost.strategy` holds the costs; a test compares them with this code.

FLIP (arXiv 2212.00794) uses this loss too; its patch dropout is part of the model, its larger batch of the
trial.
"""

import math
from collections.abc import Callable, Sequence

import open_clip
import torch
from torch import Tensor, nn

from runners.models.model import encode_text, full_precision, patch_dropouts
from runners.strategies.row_loss import Gather, RowLoss, softmax_row_loss


class Clip:
    """The plain strategy, base class of the others; ``head`` has parameters of its own, or is None."""

    def __init__(self) -> None:
        self.head: nn.Module | None = None
        self._loss = open_clip.ClipLoss()
        self._row_loss: Callable[..., RowLoss] = softmax_row_loss

    def views(self, images: Tensor, tokens: Tensor, _generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the inputs of the towers for a batch, each with N pairs: images and texts unchanged.

        Images are floats in [-1, 1], (N, 3, H, W), tokens (N, context length). The generator, on the CPU, is
        the source of the step's augmentation.
        """
        return images, tokens

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Return features, each (pairs, width), of the views of some pairs; towers in training mode.

        Here they are the normalised features of images and texts.
        """
        images, tokens = views
        return model.encode_image(images, normalize=True), encode_text(model, tokens)

    def loss(self, model: open_clip.CLIP, *features: Tensor) -> Tensor:
        """Return the loss of the whole batch, a scalar, from the features of all its pairs."""
        image, text = (each.float() for each in features)
        # As over several ranks and in parts; in bf16 the logits would have eight bits of precision.
        with full_precision(image.device):
            loss: Tensor = self._loss(image, text, *self._scale_and_bias(model))
        return loss

    def row_loss(self, model: open_clip.CLIP, own: Sequence[Tensor], gather: Gather, first: int) -> RowLoss:
        """Compute this rank's share of the same loss, and its features' gradients, without the whole matrix.

        ``own`` are the features of its pairs, the first of which has the number ``first`` in the batch.
        """
        image, text = (features.float() for features in own)
        return self._row_loss(image, text, *self._scale_and_bias(model), gather, first)

    def _scale_and_bias(self, model: open_clip.CLIP) -> tuple[Tensor, ...]:
        """Return what turns cosines into logits: a scale, and a bias if the loss has one."""
        return (model.logit_scale.exp(),)

    def chance(self, batch_size: int) -> float:
        """Return the loss of features without information: the cross-entropy of a uniform choice."""
        return math.log(batch_size)

    def enlarge(self, model: open_clip.CLIP) -> None:
        """Prepare a model that saw smaller images for full ones; here all images have one size.

        Called once, before the tail's first step. All state of this change is in the weights, so that a
        checkpoint of the tail needs nothing else.
        """

    def unmask(self, model: open_clip.CLIP) -> None:
        """Use all tokens from now on, as in the unmasked tail of FLIP: switch off patch dropout."""
        for layer in patch_dropouts(model.visual):
            layer.prob = 0.0  # type: ignore[assignment] # a number, not a module
