"""Export of a pool's vocabulary as a Hugging Face tokenizer, which open_clip can read."""

from collections.abc import Sequence
from typing import Any

_FINAL_SIGMA = {"type": "Replace", "pattern": {"Regex": r"(?<=\p{L})Σ(?!\p{L})"}, "content": "ς"}
"""Python lowers a Greek word's last letter so; `Lowercase` lowers each letter by itself."""

PAD, UNKNOWN, END = "[padding]", "[unknown]", "[end of text]"


def tokenizer_files(vocab_size: int, context_length: int, words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Describe a tokenizer with the same ids as `runners.data.pool.tokenizer.Tokenizer`.

    Args:
        vocab_size: Number of token ids of the model.
        context_length: Length of the model's texts, in tokens.
        words: Words of the vocabulary, most frequent first.

    Returns:
        File name → content.
    """
    special = {PAD: 0, UNKNOWN: vocab_size - 2, END: vocab_size - 1}
    ended = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": place, "content": token, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for token, place in special.items()
        ],
        "normalizer": {"type": "Sequence", "normalizers": [_FINAL_SIGMA, {"type": "Lowercase"}]},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\p{L}\p{N}_]+"},  # Python's \w: without the marks of other scripts
            "behavior": "Removed",
            "invert": True,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": ended,
            "pair": ended,
            "special_tokens": {END: {"id": END, "ids": [vocab_size - 1], "tokens": [END]}},
        },
        "model": {
            "type": "WordLevel",
            "vocab": special | {word: place for place, word in enumerate(words, start=1)},
            "unk_token": UNKNOWN,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "eos_token": END,
        "model_max_length": context_length,
        "padding_side": "right",
        "truncation_side": "right",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
