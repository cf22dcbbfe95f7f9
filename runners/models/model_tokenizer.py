"""The tokenizer of a model: the one its config names, CLIP's byte-pair encoding, or the pool's words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer

from budgets.cost.architecture import Architecture
from runners.data.pool.tokenizer import Tokenize, tokenizer


def model_tokenizer(architecture: Architecture, words: Sequence[str]) -> Tokenize:
    """Return the tokenizer for a model.

    Args:
        architecture: The architecture; ``text_cfg.hf_tokenizer_name`` names a tokenizer of Hugging Face.
        words: The pool's words, most frequent first; used by a model with neither that nor CLIP's vocabulary.

    Raises:
        ValueError: The named tokenizer cannot be loaded, or the vocabulary has no room for a word.
    """
    text = architecture.config["text_cfg"]
    name, length = text.get("hf_tokenizer_name"), architecture.costs.context_length
    if not name:
        return tokenizer(architecture.costs.vocab_size, length, words)
    try:
        theirs: Any = HFTokenizer(name, context_length=length, **(text.get("tokenizer_kwargs") or {}))
    except Exception as error:  # a missing package, a network that is down, a name that is not known
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{architecture.name}: text_cfg.hf_tokenizer_name {name} cannot be loaded: {reason}. Install "
            "transformers and download it, or remove the setting to split texts into the pool's words"
        ) from error

    def encode(texts: Sequence[str]) -> NDArray[np.int64]:
        tokens: NDArray[np.int64] = theirs(list(texts)).numpy()
        return tokens

    return encode
