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
from functools import partial

from budgets.cost.strategy import Batch, Generator, Model, Module, Tensor
from runners.strategies.clip import Clip


class Clipa(Clip):
    """CLIP on fewer tokens."""

    def views(self, batch: Batch, _generator: Generator) -> tuple[Tensor, ...]:
        """Return images unchanged, and texts cut to their length."""
        return batch.images, cut_texts(batch.tokens, self.text_tokens(batch.tokens.shape[1]))

    def features(self, model: Model, head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised features of images, perhaps made smaller, and of texts."""
        if self.image_fraction == 1:
            return super().features(model, head, *views)
        from torch.func import functional_call
        from torch.nn import functional

        from runners.models.model import encode_text

        images, tokens = views
        size = [self._patches(model) * patch for patch in model.visual.patch_size]
        images = functional.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        small = {"positional_embedding": _reduced(model.visual.positional_embedding, self._patches(model))}
        features = functional_call(model.visual, small, (images,))
        return functional.normalize(features, dim=-1), encode_text(model, tokens)

    def enlarge(self, model: Model) -> None:
        """Interpolate the position embedding of smaller images to the full grid, if images were smaller."""
        if self.image_fraction == 1:
            return
        import torch
        from torch.nn import functional

        positions, full = model.visual.positional_embedding, model.visual.grid_size
        with torch.no_grad():
            square = _square(_reduced(positions, self._patches(model))[1:])
            # As in open_clip's own `resize_pos_embed`.
            square = functional.interpolate(square, full, mode="bicubic", antialias=True)
            positions[1:] = square[0].flatten(1).T

    def _patches(self, model: Model) -> int:
        """Return the number of patches along a side of the smaller images, as `Architecture.smaller` does."""
        whole: int = model.visual.grid_size[0]
        return math.ceil(whole * self.image_fraction)


def _reduced(positions: Tensor, side: int) -> Tensor:
    """Return the embedding of the class token and of a grid of ``side`` x ``side`` patches.

    Each entry of the smaller grid is a mean, of four entries for example; each of the four then gets a
    quarter of its gradient. AdamW's step does not depend on the scale of the gradient, so that the mean
    moves as a position embedding of this size would.
    """
    import torch
    from torch.nn import functional

    from runners.models.model import full_precision

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
    cut = tokens[:, :length].clone()
    end, position = tokens.max(dim=1)
    cut[:, -1] = end.where(position >= length, cut[:, -1])
    return cut


# 6 epochs are followed by 0.36 with all tokens.
_clipa = partial(Clipa, paper="Li, Wang and Xie 2023", text_fraction=0.5, unmasked_tail=0.36 / 6.36)

STRATEGIES = (
    _clipa(name="clipa", label="CLIPA", kept_fraction=0.25),
    # Its own choice for images: half the side instead of patch dropout, such as 112 of 224 pixels.
    _clipa(name="clipa-resize", label="CLIPA in two resolutions", image_fraction=0.5),
)
