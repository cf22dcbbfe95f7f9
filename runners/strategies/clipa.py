"""CLIPA (arXiv 2305.07017): fewer tokens in both towers, by patch dropout or smaller images, shorter texts.

A text is cut to its first tokens, and its last remaining token becomes the end-of-text token, as the
tokenizer does with a text that is too long. Evaluation and an unmasked tail read texts in full. Positions
beyond the cut are trained only in that tail, as in the paper's own tuning on all tokens. Without a tail they
keep their initial values of small norm, which affect only texts longer than the cut: text attention is
causal, and the features are read at the end-of-text token.

Smaller images have a position embedding of fewer patches, each the mean of the full grid's part that it
covers. Before the tail it is interpolated to the full grid, as CLIPA does between its phases.
"""

import math

import open_clip
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from runners.models.model import encode_text, full_precision
from runners.strategies.clip import Clip


class Clipa(Clip):
    """CLIP on fewer tokens, ``text_tokens`` a text (`budgets.cost.flops.text_tokens`).

    ``image_size`` is the side of the images in pixels, in whole patches; None for the model's own.
    """

    def __init__(self, text_tokens: int, image_size: int | None = None) -> None:
        super().__init__()
        self._text_tokens: int | None = text_tokens
        self._image_size = image_size

    def views(self, images: Tensor, tokens: Tensor, _generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return images in their size, and texts cut to their length."""
        size = self._image_size
        if size is not None:
            images = functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(-1, 1)
        return images, tokens if self._text_tokens is None else cut_texts(tokens, self._text_tokens)

    def features(self, model: open_clip.CLIP, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised features of images, perhaps smaller than the model's own, and of texts."""
        if self._image_size is None:
            return super().features(model, *views)
        images, tokens = views
        small = {"positional_embedding": _reduced(model.visual.positional_embedding, self._grid(model))}
        features = functional_call(model.visual, small, (images,))
        return functional.normalize(features, dim=-1), encode_text(model, tokens)

    def enlarge(self, model: open_clip.CLIP) -> None:
        """Interpolate the position embedding of smaller images to the full grid, if images were smaller."""
        if self._image_size is None:
            return
        positions, full = model.visual.positional_embedding, model.visual.grid_size
        with torch.no_grad():
            square = _square(_reduced(positions, self._grid(model))[1:])
            # As in open_clip's own `resize_pos_embed`.
            square = functional.interpolate(square, full, mode="bicubic", antialias=True)
            positions[1:] = square[0].flatten(1).T

    def unmask(self, model: open_clip.CLIP) -> None:
        """Switch off patch dropout, smaller images and the cutting of texts."""
        super().unmask(model)
        self._text_tokens = self._image_size = None

    def _grid(self, model: open_clip.CLIP) -> int:
        """Return the number of patches along a side of the smaller images."""
        assert self._image_size is not None, "checked by the callers"
        return int(self._image_size // model.visual.patch_size[0])


def _reduced(positions: Tensor, side: int) -> Tensor:
    """Return the embedding of the class token and of a grid of ``side`` x ``side`` patches.

    Each entry of the smaller grid is a mean, of four entries for example; each of the four then gets a
    quarter of its gradient. AdamW's step does not depend on the scale of the gradient, so that the mean
    moves as a position embedding of this size would.
    """
    with full_precision(positions.device):
        means = functional.adaptive_avg_pool2d(_square(positions[1:]), side)
        return torch.cat([positions[:1], means[0].flatten(1).T])


def _square(positions: Tensor) -> Tensor:
    """Turn (patches, width) into (1, width, side, side)."""
    side = math.isqrt(len(positions))
    return positions.T.reshape(1, -1, side, side)


def cut_texts(tokens: Tensor, length: int) -> Tensor:
    """Keep the first tokens, (N, length); the last one kept of a longer text becomes its end-of-text token.

    The end-of-text token has the highest id, so its position is the maximum of the ids.
    """
    kept = tokens[:, :length].clone()
    end, position = tokens.max(dim=1)
    kept[:, -1] = torch.where(position >= length, end, kept[:, -1])
    return kept
