"""Definition of a word, shared by vocabulary and tokenizer."""

import re

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """Return the lower-case words of a text, without punctuation."""
    return _WORD.findall(text.lower())
