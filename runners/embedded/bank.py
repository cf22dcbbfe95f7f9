"""The sprite bank: emoji artwork of 100 concepts by several makers, as premultiplied RGBA sprites.

Makers, licences and attributions are in ``ATTRIBUTION.md`` beside this file.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from runners.embedded.concepts import CONCEPTS

BANK_FILE = Path(__file__).parent / "bank.npz"
SPRITE_SIZE = 40
TRAINING, HELD_OUT, STYLE = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sprite:
    """One drawing at two sizes, mode RGBa (premultiplied): 40 x 40 and, for two-sprite scenes, 20 x 20."""

    full: Image.Image
    half: Image.Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """One concept: its words in captions, and its sprites.

    Attributes:
        name: Name in captions and class names, such as ``bunch of grapes``.
        category: Word in vague captions, such as ``fruit``.
        tags: Single words that replace the name in captions of medium detail.
        training: Sprites of the renditions for training.
        held_out: Sprite of the rendition that never occurs in training.
        style: Sprite by a maker whose artwork never occurs in training.
        related: Numbers of the other concepts of the same category.
    """

    name: str
    category: str
    tags: tuple[str, ...]
    training: tuple[Sprite, ...]
    held_out: Sprite
    style: Sprite
    related: tuple[int, ...]


Bank = tuple[Concept, ...]
"""All concepts; a concept's number (its class label) is its index here."""


@lru_cache(maxsize=1)
def load_bank() -> Bank:
    """Load the bank shipped with the project."""
    with np.load(BANK_FILE) as file:
        data = {name: file[name] for name in file.files}
    sprites = [_sprite(pixels) for pixels in data["sprites"]]

    def of(concept: int, use: int) -> tuple[Sprite, ...]:
        places = np.flatnonzero((data["concept"] == concept) & (data["used_for"] == use))
        return tuple(sprites[place] for place in places)

    return tuple(
        Concept(
            name=words.name,
            category=words.category,
            tags=words.tags,
            training=of(number, TRAINING),
            held_out=of(number, HELD_OUT)[0],
            style=of(number, STYLE)[0],
            related=tuple(
                other
                for other, others in enumerate(CONCEPTS)
                if others.category == words.category and other != number
            ),
        )
        for number, words in enumerate(CONCEPTS)
    )


def _sprite(pixels: np.ndarray) -> Sprite:
    full = Image.frombytes("RGBa", (SPRITE_SIZE, SPRITE_SIZE), pixels.tobytes())
    return Sprite(full=full, half=full.reduce(2))
