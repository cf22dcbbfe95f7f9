"""What a word is, for the vocabulary and for the tokenizer alike."""

import re

_WORD = re.compile(r"\w+")


def split_words(text: str) -> list[str]:
    """The lower-case words of a text, punctuation left out."""
    return _WORD.findall(text.lower())
