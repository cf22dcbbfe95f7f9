"""Tokenizers: captions to ids of a pool's most frequent words, or open_clip's byte-pair encoding."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from runners.data.index.writing import split_words

BPE_VOCABULARY = 49408
"""Vocabulary size of CLIP's byte-pair encoding, which models of this size use."""

BPE_CONTEXT = 77
"""Context length of open_clip's text towers, unless a config has another one."""

_PIECE = re.compile(r"\S{256}(?=\S)")
_MOST_KEPT = 200_000

VOCABULARY_LIMIT = 100_000
"""Words that a pool keeps."""

Tokenize = Callable[[Sequence[str]], NDArray[np.int64]]
"""Texts → token ids, int64 (texts, context length)."""


def tokenizer(vocab_size: int, context_length: int, words: Sequence[str]) -> Tokenize:
    """Return the tokenizer for a model.

    A vocabulary of 49408 is open_clip's byte-pair encoding. Any other size is for the pool's words, given by
    falling frequency, of which as many as fit are known: 0 is padding, then come the words from 1, then
    *unknown*, then *end of text*. The latter has the highest id, because open_clip pools text features at the
    position of the highest id. Longer texts lose their last words.

    Raises:
        ValueError: The vocabulary or the context has no room for a word.
    """
    if vocab_size == BPE_VOCABULARY:
        return partial(_byte_pairs, context_length=context_length)
    unknown, end = vocab_size - 2, vocab_size - 1
    if min(unknown - 1, context_length - 1) < 1:
        raise ValueError(
            f"vocabulary size {vocab_size} and context length {context_length} leave no room for words; "
            "at least 4 and 2 are needed"
        )
    ids = {word: number for number, word in enumerate(words[: unknown - 1], start=1)}
    return partial(_words, ids, unknown=unknown, end=end, context_length=context_length)


def _byte_pairs(texts: Sequence[str], *, context_length: int) -> NDArray[np.int64]:
    from runners.data.pool.byte_pairs import ENCODER  # noqa: PLC0415 - takes 2 s

    ids: NDArray[np.int64] = ENCODER(list(texts), context_length).numpy()
    return ids


def _words(
    ids: Mapping[str, int], texts: Sequence[str], *, unknown: int, end: int, context_length: int
) -> NDArray[np.int64]:
    tokens = np.zeros((len(texts), context_length), np.int64)
    for row, text in zip(tokens, texts, strict=True):
        known = [ids.get(word, unknown) for word in split_words(text)[: context_length - 1]]
        row[: len(known) + 1] = [*known, end]
    return tokens


def vocabulary_of(captions: Iterable[str]) -> list[str]:
    """Return the captions' words by falling frequency, then alphabetically; at most 100,000."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    return sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY_LIMIT]


def mixed_words(pools: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the words of several pools in one list: by their best rank in any pool, then alphabetically."""
    best: dict[str, int] = {}
    for words in pools:
        for rank, word in enumerate(words):
            best[word] = min(rank, best.get(word, rank))
    return pools[0] if len(pools) == 1 else sorted(best, key=lambda word: (best[word], word))


def caption_tokens(texts: Sequence[str]) -> NDArray[np.int16]:
    """Count the tokens of each text in CLIP's byte-pair encoding, without start and end, int16 (texts,).

    Longer words than any of a language are counted in pieces: the time of one grows with its length squared.
    """
    from runners.data.pool.byte_pairs import ENCODER  # noqa: PLC0415 - takes 2 s

    most = np.iinfo(np.int16).max
    counts = [min(len(ENCODER.encode(_PIECE.sub(r"\g<0> ", text))), most) for text in texts]
    if len(ENCODER.cache) > _MOST_KEPT:  # open_clip keeps each word for good
        special = [ENCODER.decoder[number] for number in ENCODER.all_special_ids]
        ENCODER.cache = {word: word for word in special}
    return np.array(counts, np.int16)
