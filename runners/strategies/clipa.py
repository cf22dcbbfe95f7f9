"""CLIPA: fewer tokens on both sides (arXiv 2305.07017): patch dropout for images, shorter texts.

A text is cut to its first tokens, and the last one that is left becomes its end-of-text token, as the
tokenizer itself does with a text that is too long. Evaluation, and an unmasked tail, read texts in full. A
position beyond the cut is trained in that tail alone, as in the paper's own tuning on all tokens; without
one it keeps its initial value of small norm, and only texts that are longer than the cut ever meet it: text
attention is causal, and what is read out is the end-of-text token.
"""

import open_clip
import torch
from torch import Tensor

from runners.strategies.clip import Clip


class Clipa(Clip):
    """CLIP on fewer tokens.

    Args:
        text_tokens: Length of the texts (`budgets.cost.flops.text_tokens`).
    """

    def __init__(self, text_tokens: int) -> None:
        super().__init__()
        self._text_tokens: int | None = text_tokens

    def views(self, images: Tensor, tokens: Tensor, _generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return images as they are, and texts cut to their length."""
        return images, tokens if self._text_tokens is None else cut(tokens, self._text_tokens)

    def unmask(self, model: open_clip.CLIP) -> None:
        """End patch dropout and the cutting of texts."""
        super().unmask(model)
        self._text_tokens = None


def cut(tokens: Tensor, length: int) -> Tensor:
    """Cut texts; one that goes on beyond the cut ends with its end-of-text token, the highest of its ids.

    Args:
        tokens: Token ids, (N, context length).
        length: Tokens that are kept.
    """
    kept = tokens[:, :length].clone()
    end, position = tokens.max(dim=1)
    kept[:, -1] = torch.where(position >= length, end, kept[:, -1])
    return kept
