"""RandAugment on whole batches equals timm's, and draws only from its own generator."""

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, AugmentOp
from torch import Tensor

from runners.training import randaugment
from runners.training.randaugment import OPERATIONS, rand_augment

if TYPE_CHECKING:
    from collections.abc import Callable

GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    return [Image.fromarray(each).resize((32, 32), Image.Resampling.BICUBIC) for each in coarse]


def to_tensor(images: list[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.array(each) for each in images])).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize("direction", [1.0, -1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_equals_timms_pixel_by_pixel(
    name: str, direction: float, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    hparams = {"translate_pct": 0.45, "img_mean": (128, 128, 128), "interpolation": Image.Resampling.BILINEAR}
    timms: Callable[[Image.Image], Image.Image]
    timms = AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(random, "random", lambda: 0.5 - direction / 4)  # above a half, timm negates

    expected = to_tensor([timms(image) for image in images]).int()
    found = OPERATIONS[name](to_tensor(images), torch.full((4,), direction)).int()

    difference = (found - expected).abs()
    if name in GEOMETRIC:  # at the edge of what moves in, PIL takes the nearest pixel
        assert (difference <= 2).float().mean() > 0.95
        assert difference.median() <= 1
    else:
        assert difference.max() <= 1


def test_operations_are_those_of_timm() -> None:
    assert set(OPERATIONS) == set(_RAND_INCREASING_TRANSFORMS)


def test_a_batch_is_augmented_with_one_copy_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[tuple[int, ...]] = []

    def copy(drawn: Tensor, _device: torch.device) -> Tensor:
        copied.append(tuple(drawn.shape))
        return drawn

    monkeypatch.setattr(randaugment, "to_device", copy)
    rand_augment(torch.rand(64, 3, 16, 16), torch.Generator().manual_seed(3))

    # Of 64 images in each of two layers, half get an operation: their rows and directions.
    ((kinds, images),) = copied
    assert kinds == 2
    assert 40 < images < 90


def test_a_batch_equals_the_operations_one_by_one() -> None:
    images = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    draw = torch.Generator().manual_seed(4)
    pixels = images.add(1).mul(127.5).round().to(torch.uint8)
    for _ in range(2):
        drawn = torch.randint(15, (200,), generator=draw)
        chosen = torch.rand(200, generator=draw) < 0.5
        direction = torch.randint(2, (200,), generator=draw) * 2.0 - 1
        for number, operation in enumerate(OPERATIONS.values()):
            rows = (chosen & (drawn == number)).nonzero().squeeze(1)
            pixels[rows] = operation(pixels[rows], direction[rows])

    assert torch.equal(rand_augment(images, torch.Generator().manual_seed(4)), pixels.float() / 127.5 - 1)


def test_generator_decides_draws_and_a_quarter_of_images_is_unchanged() -> None:
    images = (torch.rand(400, 3, 16, 16) * 255).round() / 127.5 - 1

    def augmented(seed: int) -> Tensor:
        return rand_augment(images, torch.Generator().manual_seed(seed))

    first = augmented(1)
    torch.manual_seed(99)
    assert torch.equal(first, augmented(1))
    assert not torch.equal(first, augmented(2))
    assert first.abs().max() <= 1
    same = torch.isclose(first, images, atol=1e-5).flatten(1).all(1).float().mean()
    assert 0.2 < same < 0.35


def test_probability_one_applies_two_operations_to_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = []

    def counting(pixels: torch.Tensor, _direction: torch.Tensor) -> torch.Tensor:
        applied.append(len(pixels))
        return pixels

    monkeypatch.setattr(randaugment, "OPERATIONS", dict.fromkeys(OPERATIONS, counting))
    images = torch.zeros(64, 3, 8, 8)

    rand_augment(images, torch.Generator().manual_seed(3), probability=1.0)

    assert sum(applied) == 2 * 64
