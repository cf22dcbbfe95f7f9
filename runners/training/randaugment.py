"""RandAugment (arXiv 1909.13719) with timm's operations at timm's strengths, on whole batches of tensors.

timm's own implementation processes one PIL image at a time and draws from the global state of Python and
numpy. This one reproduces its ``rand-m9-n2-inc1``: two layers; in each, with a probability (timm's: 1/2), an
image gets one of fifteen operations at magnitude 9 of 10. A test compares each operation with timm's.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

from runners.models.model import full_precision
from runners.training.augment import to_device

_LAYERS = 2
_MAGNITUDE = 0.9
_FILL = 128.0  # grey of the area that moves in from outside

Operation = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (N, 3, H, W) and the direction of each, 1 or -1 → images of the same shape."""


def rand_augment(images: Tensor, generator: torch.Generator, *, probability: float = 0.5) -> Tensor:
    """Apply two random operations to each image, each with a probability.

    Images are floats in [-1, 1], (N, 3, H, W), and have 256 levels afterwards; the generator is on the CPU.
    """
    count = len(images)
    pixels = images.add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    rows: list[Tensor] = []
    directions: list[Tensor] = []
    for _ in range(_LAYERS):
        drawn = torch.randint(len(OPERATIONS), (count,), generator=generator)
        left_alone = torch.rand(count, generator=generator) >= probability
        direction = torch.randint(2, (count,), generator=generator) * 2.0 - 1
        drawn[left_alone] = -1
        for number in range(len(OPERATIONS)):
            rows.append((drawn == number).nonzero().squeeze(1))
            directions.append(direction[rows[-1]])
    # One copy for all operations: each copy from pageable memory waits for the GPU.
    sizes = [len(chosen) for chosen in rows]
    plan = to_device(torch.stack([torch.cat(rows), torch.cat(directions).long()]), images.device)
    there, which_way = plan[0].split(sizes), plan[1].to(images.dtype).split(sizes)
    for operation, chosen, signs in zip(list(OPERATIONS.values()) * _LAYERS, there, which_way, strict=True):
        if len(chosen):
            pixels[chosen] = operation(pixels[chosen], signs)
    return pixels.to(images.dtype).div_(127.5).sub_(1)


def _moved(matrix: Callable[[float, float], tuple[tuple[float, ...], tuple[float, ...]]]) -> Operation:
    """Build an operation that moves pixels by an affine map.

    ``matrix``: (direction, height / width) → 2 x 3 matrix from coordinates of the new image, from -1 to 1, to
    those of the old one.
    """

    @cache  # copied to the device once
    def both_ways(ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
        forth, back = (torch.tensor(matrix(sign, ratio), device=device) for sign in (1.0, -1.0))
        return forth, back

    def move(pixels: Tensor, direction: Tensor) -> Tensor:
        ratio = pixels.shape[2] / pixels.shape[3]
        affine = torch.where(direction.view(-1, 1, 1) > 0, *both_ways(ratio, pixels.device))
        with full_precision(pixels.device):  # bf16 cannot resolve single pixels of a 224-pixel image
            grid = functional.affine_grid(affine, list(pixels.shape), align_corners=False)
            # grid_sample fills with zeros: subtracting grey before and adding it after fills with grey.
            moved = functional.grid_sample(pixels.float() - _FILL, grid, align_corners=False)
        return (moved + _FILL).round_().to(torch.uint8)

    return move


def _rotated(sign: float, ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    angle = math.radians(30 * _MAGNITUDE) * sign
    cos, sin = math.cos(angle), math.sin(angle)
    return (cos, -sin * ratio, 0), (sin / ratio, cos, 0)


def _sheared_x(sign: float, ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    slope = 0.3 * _MAGNITUDE * sign * ratio  # around the upper left corner, as PIL does
    return (1, slope, slope), (0, 1, 0)


def _sheared_y(sign: float, ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    slope = 0.3 * _MAGNITUDE * sign / ratio
    return (1, 0, 0), (slope, 1, slope)


def _translated_x(sign: float, _ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (1, 0, 2 * 0.45 * _MAGNITUDE * sign), (0, 1, 0)


def _translated_y(sign: float, _ratio: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return (1, 0, 0), (0, 1, 2 * 0.45 * _MAGNITUDE * sign)


def _enhanced(adjust: Callable[[Tensor, float], Tensor]) -> Operation:
    """Build an operation from torchvision's ``adjust``, with factor 1 ± 0.9 x magnitude."""

    def enhance(pixels: Tensor, direction: Tensor) -> Tensor:
        least = adjust(pixels, 0.0).float()
        factor = 1 + 0.9 * _MAGNITUDE * direction.view(-1, 1, 1, 1)
        return least.lerp(pixels.float(), factor).clamp_(0, 255).to(torch.uint8)

    return enhance


def _whole(operation: Callable[[Tensor], Tensor]) -> Operation:
    """Build an operation from a function that ignores the direction."""
    return lambda pixels, _direction: operation(pixels)


def _solarized_by_addition(pixels: Tensor) -> Tensor:
    lighter = pixels + int(110 * _MAGNITUDE)  # used only below 128, so it stays below 256
    return torch.where(pixels < 128, lighter, pixels)  # noqa: PLR2004 - half


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "AutoContrast": _whole(vision.autocontrast),
        "Equalize": _whole(vision.equalize),
        "Invert": _whole(vision.invert),
        "Rotate": _moved(_rotated),
        "PosterizeIncreasing": _whole(lambda pixels: vision.posterize(pixels, 4 - int(4 * _MAGNITUDE))),
        "SolarizeIncreasing": _whole(lambda pixels: vision.solarize(pixels, 256 - int(256 * _MAGNITUDE))),
        "SolarizeAdd": _whole(_solarized_by_addition),
        "ColorIncreasing": _enhanced(vision.adjust_saturation),
        "ContrastIncreasing": _enhanced(vision.adjust_contrast),
        "BrightnessIncreasing": _enhanced(vision.adjust_brightness),
        "SharpnessIncreasing": _enhanced(vision.adjust_sharpness),
        "ShearX": _moved(_sheared_x),
        "ShearY": _moved(_sheared_y),
        "TranslateXRel": _moved(_translated_x),
        "TranslateYRel": _moved(_translated_y),
    }
)
"""timm's name → the operation at magnitude 9."""
