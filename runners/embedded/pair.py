"""Pairs of the embedded pool: each is a pure function of (stream, seed, index)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runners.embedded.bank import Bank, Sprite
from runners.embedded.caption import full_caption, medium_caption, vague_caption
from runners.embedded.scene import TINTS, draw_scene

SHARES = {"full": 0.39, "medium": 0.18, "vague": 0.14, "near-miss": 0.10, "swapped": 0.19}
"""Mild noise mix: share of each kind of caption, modelled on web captions.

``near-miss`` names a related concept instead of the one shown; ``swapped`` belongs to another scene.
"""

STREAMS = ("mild", "none", "held-out", "seen", "style", "validation", "retrieval")
"""Uses of pairs. Streams share no random numbers, so no seed can make training meet evaluation."""

TWO_SPRITES = 0.2

_TINT_NAMES = tuple(TINTS)
_KINDS = tuple(SHARES)
_UP_TO = np.cumsum(list(SHARES.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An image, its caption and the truth about both.

    Attributes:
        image: uint8 (32, 32, 3), RGB.
        caption: Lower-case words.
        kind: Kind of caption, a key of ``SHARES``; only for checks, never for training or filtering.
        things: Numbers of the concepts shown, one or two.
        tint: Name of the background's colour.
    """

    image: NDArray[np.uint8]
    caption: str
    kind: str
    things: tuple[int, ...]
    tint: str

    @property
    def facts(self) -> dict[str, Any]:
        """Fields stored with the pair."""
        return {"kind": self.kind, "concepts": list(self.things), "tint": self.tint}


def generator(stream: str, seed: int, index: int) -> np.random.Generator:
    """Return the random generator of one pair."""
    return np.random.default_rng((STREAMS.index(stream), seed, index))


def training_pair(seed: int, index: int, *, bank: Bank, noise: Literal["mild", "none"] = "mild") -> Pair:
    """Generate the pair at ``index`` of an endless pool.

    Args:
        seed: Seed of the pool, 0 or more.
        index: Index of the pair, 0 or more.
        bank: The sprites.
        noise: ``mild`` draws the caption's kind by ``SHARES``; ``none`` draws only from the true kinds. The
            two share no scenes, even at the same seed.
    """
    return _pair(noise, seed, index, bank)


def retrieval_pair(seed: int, index: int, *, bank: Bank) -> Pair:
    """Generate one pair for retrieval: a scene as in training, with a full and true caption."""
    return _pair("retrieval", seed, index, bank)


def _pair(stream: str, seed: int, index: int, bank: Bank) -> Pair:
    rng = generator(stream, seed, index)
    kind_draw, two_draw, tag_draw, draw, *concept_draws = rng.random(8)
    kind = "full" if stream == "retrieval" else _kind(kind_draw, true_only=stream == "none")
    things = _different(concept_draws[:2] if two_draw < TWO_SPRITES else concept_draws[:1], len(bank))
    tint = int(rng.integers(len(TINTS)))
    sprites = [_any_of(bank[thing].training, rng) for thing in things]
    image = draw_scene(rng, sprites, tint)
    said_tint = _TINT_NAMES[tint]
    if kind == "medium":
        caption = medium_caption(bank, things[0], tag_draw, draw)
    elif kind == "vague":
        caption = vague_caption(bank, things[0], draw)
    elif kind == "near-miss":
        related = bank[things[0]].related
        named = (related[int(concept_draws[2] * len(related))], *things[1:])
        caption = full_caption(bank, named, said_tint, draw)
    elif kind == "swapped":
        others = [number for number in range(len(bank)) if number not in things]
        named = (others[int(concept_draws[2] * len(others))],)
        caption = full_caption(bank, named, _TINT_NAMES[int(concept_draws[3] * len(TINTS))], draw)
    else:
        # Retrieval needs captions that distinguish scenes: the first half of the templates has the tint.
        caption = full_caption(bank, things, said_tint, draw / 2 if stream == "retrieval" else draw)
    return Pair(image=image, caption=caption, kind=kind, things=things, tint=said_tint)


def _kind(draw: float, *, true_only: bool) -> str:
    """Return a kind of caption by its share; ``true_only`` renormalises the shares of the true kinds."""
    last = _KINDS.index("near-miss") if true_only else len(_KINDS)
    return _KINDS[int(np.searchsorted(_UP_TO[: last - 1], draw * _UP_TO[last - 1], side="right"))]


def evaluation_image(stream: str, seed: int, index: int, *, bank: Bank) -> tuple[NDArray[np.uint8], int]:
    """Generate one labelled image of a zero-shot set: a single sprite, classes in turn.

    Args:
        stream: ``held-out`` and ``validation`` show held-out renditions, ``seen`` those of training,
            ``style`` those of a maker unseen in training.
        seed: Seed of the set.
        index: Index of the image.
        bank: The sprites.

    Returns:
        uint8 (32, 32, 3) and the concept's number.
    """
    rng = generator(stream, seed, index)
    label = index % len(bank)
    concept = bank[label]
    tint = int(rng.integers(len(TINTS)))
    if stream == "seen":
        sprite = _any_of(concept.training, rng)
    else:
        sprite = concept.style if stream == "style" else concept.held_out
    return draw_scene(rng, [sprite], tint), label


def _any_of(sprites: tuple[Sprite, ...], rng: np.random.Generator) -> Sprite:
    return sprites[int(rng.integers(len(sprites)))]


def _different(draws: list[float], count: int) -> tuple[int, ...]:
    """Return one or two different numbers below ``count``, each pair equally likely."""
    first = int(draws[0] * count)
    if len(draws) == 1:
        return (first,)
    second = int(draws[1] * (count - 1))
    return first, second + (second >= first)
