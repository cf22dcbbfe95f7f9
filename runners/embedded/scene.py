"""Scenes of the embedded pool: one or two sprites on a tinted background, 32 x 32 RGB."""

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runners.embedded.bank import Sprite

SCENE_SIZE = 32

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

_BASES = np.array(list(TINTS.values()), np.float32)
_X, _Y = np.meshgrid(*[(np.arange(SCENE_SIZE, dtype=np.float32) + 0.5) / SCENE_SIZE - 0.5] * 2)

_NOISE_LEVEL = 4
_TURN_SD_DEGREES = 6.0
_FLIPPED = 0.35
_GRADIENTS = 0.5


def draw_scene(rng: np.random.Generator, sprites: Sequence[Sprite], tint: int) -> NDArray[np.uint8]:
    """Draw a scene.

    Args:
        rng: Source of position, rotation, flip and scale of the sprites, background pattern and noise.
        sprites: One sprite in the middle, or two side by side.
        tint: Index of the background in ``TINTS``.

    Returns:
        uint8 (32, 32, 3), RGB.
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
        size = SCENE_SIZE * (0.79 + 0.21 * scale)
        centre = 0.5 * SCENE_SIZE
        drawing = sprite.full
    else:
        size = SCENE_SIZE * (0.5 + 0.1 * scale)
        centre = (0.27 + 0.46 * place) * SCENE_SIZE
        drawing = sprite.half  # the full drawing would alias at this size
    centre_x = centre + 2 * right - 1
    centre_y = 0.5 * SCENE_SIZE + (2 * down - 1) * (1 if of == 1 else 5)
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
    canvas = (SCENE_SIZE, SCENE_SIZE)
    return np.asarray(drawing.transform(canvas, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
