"""Image augmentation on whole batches of tensors: one affine resampling and a few multiplications.

Images are floats in [-1, 1], (N, 3, H, W), before and after. The parameters of each image are drawn from the
given generator, on the CPU, so a step's augmentation depends only on the trial's seed and the step.
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from runners.models.model import full_precision

_COARSE_PIXELS = 64  # largest side of images whose grid is computed in the trial's own precision
_GREY = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601
_BLUR_SIGMA = (0.1, 2.0)  # pixels
_BLUR_RADIUS = 6  # three times the largest sigma
_MOST_PADDED = 2**31 - 1  # numbers that CUDA pads at once


def crop_and_flip(
    images: Tensor, generator: torch.Generator, *, least_area: float, flip: bool = True
) -> Tensor:
    """Crop a random part of each image, resize it to the full size, and perhaps mirror half of the images.

    The share of the area is drawn from ``least_area`` to 1, the aspect ratio from 3:4 to 4:3, as usual. A
    side longer than the image's is cut to it, so the least that is kept is √(3/4·least_area).
    """
    count = len(images)
    area = _uniform(count, generator, least_area, 1.0)
    ratio = _uniform(count, generator, math.log(3 / 4), math.log(4 / 3)).exp()
    width = (area * ratio).sqrt().clamp(max=1.0)
    height = (area / ratio).sqrt().clamp(max=1.0)
    left = _uniform(count, generator, -1.0, 1.0) * (1 - width)
    top = _uniform(count, generator, -1.0, 1.0) * (1 - height)
    mirror = torch.ones(count)
    if flip:
        mirror[torch.rand(count, generator=generator) < 0.5] = -1.0  # noqa: PLR2004 - half
    # The matrix maps output to input coordinates, both from -1 to 1: scaling crops, a negative x mirrors.
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 0, 2] = width * mirror, left
    affine[:, 1, 1], affine[:, 1, 2] = height, top
    # bf16 cannot resolve single pixels of large images. Small ones keep it: finished rows were computed so.
    fine = max(images.shape[2:]) > _COARSE_PIXELS
    with full_precision(images.device) if fine else nullcontext():
        grid = functional.affine_grid(
            to_device(affine, images.device), list(images.shape), align_corners=False
        )
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jitter_colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast and saturation of 80 % of the images and turn 20 % grey.

    Strengths as in SimCLR for small images (arXiv 2002.05709, appendix B.9), without hue.
    """
    count = len(images)
    device = images.device
    changed = torch.rand(count, generator=generator) < 0.8  # noqa: PLR2004
    grey_only = torch.rand(count, generator=generator) < 0.2  # noqa: PLR2004
    brightness, contrast, saturation = (
        torch.where(changed, _uniform(count, generator, 0.6, 1.4), 1.0) for _ in range(3)
    )
    saturation = torch.where(grey_only, 0.0, saturation)
    drawn = to_device(torch.stack([brightness, contrast, saturation]), device).view(3, -1, 1, 1, 1)
    brightness, contrast, saturation = drawn
    # In place where the old values are not needed: allocating memory costs more than the arithmetic.
    bright = (images + 1).div_(2).mul_(brightness)
    grey = _luma(bright)
    coloured = bright.sub_(grey).mul_(saturation).add_(grey)
    mean = grey.mean((2, 3), keepdim=True)
    return coloured.sub_(mean).mul_(contrast).add_(mean).clamp_(0, 1).mul_(2).sub_(1)


def jitter_colour_and_hue(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of 80 % of the images, and turn 20 % grey.

    Strengths 0.4, 0.4, 0.4 and 0.1 of torchvision's ``ColorJitter``, as in SLIP's code (arXiv 2112.12750) and
    MoCo v3. The order of the four is random, one for all images of a call.
    """
    count = len(images)
    changed = torch.rand(count, generator=generator) < 0.8  # noqa: PLR2004
    grey_only = torch.rand(count, generator=generator) < 0.2  # noqa: PLR2004
    factors = [torch.where(changed, _uniform(count, generator, 0.6, 1.4), 1.0) for _ in range(3)]
    turn = torch.where(changed, _uniform(count, generator, -0.1, 0.1), 0.0)
    order = torch.randperm(4, generator=generator).tolist()
    drawn = to_device(torch.stack([*factors, turn, grey_only.float()]), images.device).view(5, -1, 1, 1, 1)
    pixels = (images + 1).div_(2)
    for number in order:
        pixels = (_brightened, _contrasted, _saturated, turn_hue)[number](pixels, drawn[number])
    return torch.where(drawn[4] > 0, _luma(pixels), pixels).mul_(2).sub_(1)


def turn_hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """Add to the hue of images in [0, 1], in whole turns of the colour circle, (N, 1, 1, 1)."""
    value, least = pixels.amax(1, keepdim=True), pixels.amin(1, keepdim=True)
    chroma = value - least
    red, green, blue = pixels.split(1, dim=1)
    scale = chroma.clamp(min=1e-8)
    # The hue in sixths of a turn, by the channel that is the largest.
    hue = torch.where(
        value == red,
        (green - blue) / scale,
        torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    # Channel n of a colour: value - chroma * max(0, min(k, 4 - k, 1)) with k = (n + hue) mod 6.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=pixels.device).view(1, 3, 1, 1)
    k = (offsets + hue + 6 * turn).remainder(6)
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the images by a Gaussian of 0.1 to 2 pixels, as in SLIP's code (arXiv 2112.12750).

    They have more than six pixels a side.
    """
    count = len(images)
    blurred = torch.rand(count, generator=generator) < 0.5  # noqa: PLR2004 - half
    sigma = torch.where(blurred, _uniform(count, generator, *_BLUR_SIGMA), _BLUR_SIGMA[0])
    taps = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    kernel = (-0.5 * (taps / sigma[:, None]) ** 2).exp()
    kernel = to_device((kernel / kernel.sum(1, keepdim=True)).T.contiguous(), images.device)
    widest = 3 * (images.shape[2] + 2 * _BLUR_RADIUS) * (images.shape[3] + 2 * _BLUR_RADIUS)
    parts = images.split(max(1, _MOST_PADDED // widest))
    done = [
        _blurred(part, weights)
        for part, weights in zip(parts, kernel.split([len(part) for part in parts], dim=1), strict=True)
    ]
    return done[0] if len(done) == 1 else torch.cat(done)


def _blurred(images: Tensor, kernel: Tensor) -> Tensor:
    """Return images convolved in both dimensions with a kernel of each, (taps, N)."""
    weights = kernel.view(len(kernel), -1, 1, 1, 1)
    for dimension in (2, 3):
        side = images.shape[dimension]
        edges = (0, 0, _BLUR_RADIUS, _BLUR_RADIUS) if dimension == 2 else (_BLUR_RADIUS, _BLUR_RADIUS, 0, 0)  # noqa: PLR2004 - rows
        padded = functional.pad(images, edges, mode="reflect")
        images = torch.zeros_like(images)
        for start, weight in enumerate(weights):
            images.addcmul_(padded.narrow(dimension, start, side), weight)
    return images


def _brightened(pixels: Tensor, factor: Tensor) -> Tensor:
    return (pixels * factor).clamp_(0, 1)


def _contrasted(pixels: Tensor, factor: Tensor) -> Tensor:
    return _luma(pixels).mean((2, 3), keepdim=True).lerp(pixels, factor).clamp_(0, 1)


def _saturated(pixels: Tensor, factor: Tensor) -> Tensor:
    return _luma(pixels).lerp(pixels, factor).clamp_(0, 1)


def _luma(pixels: Tensor) -> Tensor:
    return (pixels * torch.tensor(_GREY, device=pixels.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def to_device(drawn: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU without waiting for the GPU."""
    return drawn.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else drawn


def _uniform(count: int, generator: torch.Generator, low: float, high: float) -> Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low
