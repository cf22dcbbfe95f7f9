"""CLIPA (arXiv 2305.07017): fewer tokens in both towers, by patch dropout and shorter texts.

A text is cut to its first tokens, and its last remaining token becomes the end-of-text token, as the
tokenizer does with a text that is too long. Evaluation and an unmasked tail read texts in full. Positions
beyond the cut are trained only in that tail, as in the paper's own tuning on all tokens. Without a tail they
keep their initial values of small norm, which affect only texts longer than the cut: text attention is
causal, and the features are read at the end-of-text token.
"""

import open_clip
import torch
from torch import Tensor

from runners.strategies.clip import Clip


class Clipa(Clip):
    """CLIP on fewer tokens.

    Args:
        text_tokens: Length of the texts in tokens (`budgets.cost.flops.text_tokens`).
    """

    def __init__(self, text_tokens: int) -> None:
        super().__init__()
        self._text_tokens: int | None = text_tokens

    def views(self, images: Tensor, tokens: Tensor, _generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return images unchanged, and texts cut to their length."""
        return images, tokens if self._text_tokens is None else cut(tokens, self._text_tokens)

    def unmask(self, model: open_clip.CLIP) -> None:
        """Switch off patch dropout and the cutting of texts."""
        super().unmask(model)
        self._text_tokens = None


def cut(tokens: Tensor, length: int) -> Tensor:
    """Cut texts; the last token of a text longer than the cut becomes its end-of-text token.

    The end-of-text token has the highest id, so its position is the maximum of the ids.

    Args:
        tokens: Token ids, (N, context length).
        length: Number of tokens to keep.
    """
    kept = tokens[:, :length].clone()
    end, position = tokens.max(dim=1)
    kept[:, -1] = torch.where(position >= length, end, kept[:, -1])
    return kept
