"""Tokenizers: words by frequency, the highest id for the end, and CLIP's own encoding."""

import numpy as np
import pytest

from runners.data.pool import tokenizer as tokenizer_module
from runners.data.pool.byte_pairs import ENCODER
from runners.data.pool.pool import Pool
from runners.data.pool.tokenizer import caption_tokens, tokenizer, vocabulary_of

WORDS = ("a", "dog", "red", "cat")


@pytest.mark.parametrize(
    ("sizes", "texts", "expected"),
    [
        ((7, 8), ["A dog, RED!", "a zebra"], [[1, 2, 3, 6, 0, 0, 0, 0], [1, 5, 6, 0, 0, 0, 0, 0]]),
        ((7, 4), ["a dog red cat"], [[1, 2, 3, 6]]),  # the last words are lost, the end stays
        ((5, 5), ["a dog red cat"], [[1, 2, 3, 3, 4]]),  # only the most frequent words fit
    ],
)
def test_words_are_ids_from_one_then_unknown_then_end_of_text(
    sizes: tuple[int, int], texts: list[str], expected: list[list[int]]
) -> None:
    tokens = tokenizer(*sizes, WORDS)(texts)
    assert tokens.dtype == np.int64
    assert tokens.tolist() == expected


def test_open_clip_finds_the_end_of_text_by_argmax() -> None:
    texts = ["", "a", "a dog", "zebra cat zebra", "a " * 50]
    tokens = tokenizer(7, 6, WORDS)(texts)
    assert tokens.argmax(axis=1).tolist() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize(("vocab_size", "context_length"), [(3, 16), (100, 1)])
def test_sizes_without_room_for_a_word_are_refused(vocab_size: int, context_length: int) -> None:
    with pytest.raises(ValueError, match=f"vocabulary size {vocab_size} and context length {context_length}"):
        tokenizer(vocab_size, context_length, WORDS)


def test_the_vocabulary_is_by_falling_frequency_then_by_alphabet() -> None:
    assert vocabulary_of(["b a", "c a", "B"]) == ["a", "b", "c"]


def test_the_embedded_pool_fits_into_512_ids_and_16_tokens(pool: Pool) -> None:
    texts = pool.frame["caption"].tolist()
    assert len(pool.vocabulary) <= 509
    tokens = tokenizer(512, 16, pool.vocabulary)(texts)
    assert (tokens != 510).all()
    lengths = [len(text.split()) for text in texts]
    assert tokens.argmax(axis=1).tolist() == lengths


def test_a_vocabulary_of_49408_is_clips_byte_pair_encoding() -> None:
    tokens = tokenizer(49408, 16, WORDS)(["a dog", "a zebra"])
    assert tokens.dtype == np.int64
    assert tokens.shape == (2, 16)
    assert tokens[:, 0].tolist() == [49406, 49406]
    assert tokens.argmax(axis=1).tolist() == [3, 3]
    assert tokens.max() == 49407


def test_tokens_of_an_endless_word_are_counted_in_pieces_and_those_of_texts_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["a photo of a cat", "https://example.org/" + "path/" * 60, "schön " * 200, "words" * 50]
    exact = [len(ENCODER.encode(text)) for text in texts]
    assert caption_tokens(texts).tolist()[2:] == exact[2:]
    assert caption_tokens(texts) == pytest.approx(exact, abs=2)

    monkeypatch.setattr(tokenizer_module, "_MOST_KEPT", 3)
    assert caption_tokens(["one two three four five", "one", "seven"]).tolist() == [5, 1, 1]
    assert len(ENCODER.cache) < 10

    (count,) = caption_tokens(["x" * 100_000])  # in one piece this takes minutes
    assert 5_000 < count <= 32_767
