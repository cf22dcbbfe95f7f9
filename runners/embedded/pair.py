"""Pairs of the embedded pool, scenes of sprites with captions: pure functions of (stream, seed, index)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.embedded.bank import Bank, Sprite

SHARES = {"full": 0.39, "medium": 0.18, "vague": 0.14, "near-miss": 0.10, "swapped": 0.19}
"""Mild noise mix: share of each kind of caption, modelled on web captions.

``near-miss`` names a related concept instead of the one shown; ``swapped`` belongs to another scene.
"""

STREAMS = ("mild", "none", "held-out", "seen", "style", "validation", "retrieval")
"""Uses of pairs. Streams share no random numbers, so no seed can make training meet evaluation."""

_TWO_SPRITES = 0.2

_KINDS = tuple(SHARES)
_UP_TO = np.cumsum(list(SHARES.values()))

# Captions are all lower case, at three levels of detail. The second half omits the background, as a zero-shot
# prompt does.
_ONE_THING = (
    "{thing} on {a_tint} background",
    "a picture of {thing} on {tint}",
    "an image of {thing} on {a_tint} background",
    "a drawing of {thing} on {tint} paper",
    "{tint} background with {thing}",
    "{thing}",
    "a picture of {thing}",
    "a photo of {thing}",
    "an image of {thing}",
    "a drawing of {thing}",
)

# Shorter templates, so that two names of three words still fit into 16 tokens.
_TWO_THINGS = (
    "{thing} and {other} on {a_tint} background",
    "a picture of {thing} and {other} on {tint}",
    "{thing} next to {other} on {tint} paper",
)

_MEDIUM = (
    "something {tag}",
    "a picture with the word {tag}",
    "{tag} sticker",
    "my {tag} picture",
    "{tag} clip art for free",
)

_VAGUE = (
    "some {category} thing",
    "a nice {category} picture",
    "{category} sticker",
    "my favourite {category} image",
)

ZERO_SHOT = ("a {c}", "a picture of a {c}", "a photo of a {c}", "an image of a {c}", "a drawing of a {c}")
"""Templates for zero-shot classification, with ``{c}`` for the class name, as CLIP_benchmark writes them."""

_SCENE_SIZE = 32

TINTS = {
    "red": (226, 146, 144),
    "orange": (241, 191, 145),
    "yellow": (245, 230, 160),
    "green": (161, 203, 157),
    "teal": (144, 198, 197),
    "blue": (152, 179, 224),
    "purple": (187, 160, 214),
    "pink": (244, 197, 216),
    "brown": (185, 162, 146),
    "grey": (150, 150, 150),
    "white": (236, 236, 232),
    "black": (44, 44, 50),
}
"""Name of a background colour in captions → RGB."""

_TINT_NAMES = tuple(TINTS)
_BASES = np.array(list(TINTS.values()), np.float32)
_X, _Y = np.meshgrid(*[(np.arange(_SCENE_SIZE, dtype=np.float32) + 0.5) / _SCENE_SIZE - 0.5] * 2)

_NOISE_LEVEL = 4
_TURN_SD_DEGREES = 6.0
_FLIPPED = 0.35
_GRADIENTS = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """An image, its caption and the truth about both."""

    image: NDArray[np.uint8]  # (32, 32, 3), RGB
    caption: str
    kind: str  # of caption, a key of ``SHARES``; only for checks, never for training or filtering
    things: tuple[int, ...]  # numbers of the concepts shown, one or two
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

    The noise ``mild`` draws the caption's kind by ``SHARES``, ``none`` only from the true kinds. The two
    share no scenes, even at the same seed.
    """
    return _pair(noise, seed, index, bank)


def retrieval_pair(seed: int, index: int, *, bank: Bank) -> Pair:
    """Generate one pair for retrieval: a scene as in training, with a full and true caption."""
    return _pair("retrieval", seed, index, bank)


def _pair(stream: str, seed: int, index: int, bank: Bank) -> Pair:
    rng = generator(stream, seed, index)
    kind_draw, two_draw, tag_draw, draw, *concept_draws = rng.random(8)
    kind = "full" if stream == "retrieval" else _kind(kind_draw, true_only=stream == "none")
    things = _different(concept_draws[:2] if two_draw < _TWO_SPRITES else concept_draws[:1], len(bank))
    tint = int(rng.integers(len(TINTS)))
    sprites = [_any_of(bank[thing].training, rng) for thing in things]
    image = _draw_scene(rng, sprites, tint)
    said_tint = _TINT_NAMES[tint]
    if kind == "medium":
        caption = _choose(_MEDIUM, draw).format(tag=_choose(bank[things[0]].tags, tag_draw))
    elif kind == "vague":
        caption = _choose(_VAGUE, draw).format(category=bank[things[0]].category)
    elif kind == "near-miss":
        related = bank[things[0]].related
        named = (related[int(concept_draws[2] * len(related))], *things[1:])
        caption = _full_caption(bank, named, said_tint, draw)
    elif kind == "swapped":
        others = [number for number in range(len(bank)) if number not in things]
        named = (others[int(concept_draws[2] * len(others))],)
        caption = _full_caption(bank, named, _TINT_NAMES[int(concept_draws[3] * len(TINTS))], draw)
    else:
        # Retrieval needs captions that distinguish scenes: the first half of the templates has the tint.
        caption = _full_caption(bank, things, said_tint, draw / 2 if stream == "retrieval" else draw)
    return Pair(image=image, caption=caption, kind=kind, things=things, tint=said_tint)


def _kind(draw: float, *, true_only: bool) -> str:
    """Return a kind of caption by its share; ``true_only`` renormalises the shares of the true kinds."""
    last = _KINDS.index("near-miss") if true_only else len(_KINDS)
    return _KINDS[int(np.searchsorted(_UP_TO[: last - 1], draw * _UP_TO[last - 1], side="right"))]


def evaluation_image(stream: str, seed: int, index: int, *, bank: Bank) -> tuple[NDArray[np.uint8], int]:
    """Generate one image of a zero-shot set, uint8 (32, 32, 3), and its label, the concept's number.

    It shows a single sprite, classes in turn: for ``held-out`` and ``validation`` held-out renditions, for
    ``seen`` those of training, for ``style`` those of a maker unseen in training.
    """
    rng = generator(stream, seed, index)
    label = index % len(bank)
    concept = bank[label]
    tint = int(rng.integers(len(TINTS)))
    if stream == "seen":
        sprite = _any_of(concept.training, rng)
    else:
        sprite = concept.style if stream == "style" else concept.held_out
    return _draw_scene(rng, [sprite], tint), label


def _any_of(sprites: tuple[Sprite, ...], rng: np.random.Generator) -> Sprite:
    return sprites[int(rng.integers(len(sprites)))]


def _different(draws: list[float], count: int) -> tuple[int, ...]:
    """Return one or two different numbers below ``count``, each pair equally likely."""
    first = int(draws[0] * count)
    if len(draws) == 1:
        return (first,)
    second = int(draws[1] * (count - 1))
    return first, second + (second >= first)


def _with_article(words: str) -> str:
    """Prepend the indefinite article: ``dog`` → ``a dog``, ``orange`` → ``an orange``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _full_caption(bank: Bank, things: Sequence[int], tint: str, draw: float) -> str:
    """Name every thing in the scene and its tint; ``draw`` in [0, 1) chooses the template."""
    templates = _ONE_THING if len(things) == 1 else _TWO_THINGS
    named = [_with_article(bank[thing].name) for thing in things]
    return _choose(templates, draw).format(
        thing=named[0], other=named[-1], tint=tint, a_tint=_with_article(tint)
    )


def _choose(options: Sequence[str], draw: float) -> str:
    """Return the option that a draw in [0, 1) chooses."""
    return options[int(draw * len(options))]


def _draw_scene(rng: np.random.Generator, sprites: Sequence[Sprite], tint: int) -> NDArray[np.uint8]:
    """Draw one sprite in the middle of a tint, or two side by side; returns uint8 (32, 32, 3), RGB.

    Position, rotation, flip and scale of the sprites, pattern of the background and noise are drawn from
    ``rng``.
    """
    canvas = _background(rng, tint)
    for place, sprite in enumerate(sprites):
        layer = _placed(rng, sprite, place, of=len(sprites))
        # Alpha compositing with premultiplied colours: canvas · (1 - alpha) + layer.
        canvas *= 1 - layer[..., 3:].astype(np.float32) / 255
        canvas += layer[..., :3]
    canvas += rng.integers(-_NOISE_LEVEL, _NOISE_LEVEL, canvas.shape, np.int8, endpoint=True)
    return (canvas.clip(0, 255) + 0.5).astype(np.uint8)


def _background(rng: np.random.Generator, tint: int) -> NDArray[np.float32]:
    """Draw a tint with a gradient (half of the scenes) or stripes, float32 (32, 32, 3)."""
    kind, angle, strength, phase, frequency = rng.random(5)
    along = _X * np.float32(cos(2 * pi * angle)) + _Y * np.float32(sin(2 * pi * angle))
    if kind >= _GRADIENTS:
        along = np.sign((along * np.float32(3 + 5 * frequency) + np.float32(phase)) % 1 - np.float32(0.5)) / 2
    shade = 1 + np.float32(0.04 + 0.1 * strength) * along
    background: NDArray[np.float32] = _BASES[tint] * shade[..., None]
    return background


def _placed(rng: np.random.Generator, sprite: Sprite, place: int, of: int) -> NDArray[np.uint8]:
    """Draw a scaled, rotated, flipped and moved sprite on a canvas, premultiplied uint8 (32, 32, 4)."""
    scale, flip, right, down = rng.random(4)
    turn = rng.standard_normal() * _TURN_SD_DEGREES * pi / 180
    if of == 1:
        size = _SCENE_SIZE * (0.79 + 0.21 * scale)
        centre = 0.5 * _SCENE_SIZE
        drawing = sprite.full
    else:
        size = _SCENE_SIZE * (0.5 + 0.1 * scale)
        centre = (0.27 + 0.46 * place) * _SCENE_SIZE
        drawing = sprite.half  # the full drawing would alias at this size
    centre_x = centre + 2 * right - 1
    centre_y = 0.5 * _SCENE_SIZE + (2 * down - 1) * (1 if of == 1 else 5)
    # PIL needs the inverse map: from a pixel of the canvas to its place in the drawing.
    per_pixel = drawing.width / size
    a, b = cos(turn) * per_pixel, sin(turn) * per_pixel
    mirror = -1 if flip < _FLIPPED else 1
    x_from = (mirror * a, mirror * b)
    y_from = (-b, a)
    middle = drawing.width / 2
    # The linear part plus the translation that maps the sprite's centre on the canvas to the drawing's
    # middle.
    matrix = (
        *x_from,
        middle - x_from[0] * centre_x - x_from[1] * centre_y,
        *y_from,
        middle - y_from[0] * centre_x - y_from[1] * centre_y,
    )
    canvas = (_SCENE_SIZE, _SCENE_SIZE)
    return np.asarray(drawing.transform(canvas, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
