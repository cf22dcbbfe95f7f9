"""Augmentation of whole batches as tensors."""

import pytest
import torch
from torch import Tensor

from runners.strategies.augment import crop_and_flip, jitter_colour


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_same_generator_gives_the_same_images_and_another_gives_others() -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1

    def augment(seed: int) -> Tensor:
        return jitter_colour(crop_and_flip(images, seeded(seed), least_area=0.5), seeded(seed))

    assert torch.equal(augment(1), augment(1))
    assert not torch.equal(augment(1), augment(2))


def test_a_crop_of_the_whole_area_of_a_square_only_mirrors() -> None:
    images = torch.arange(32.0).view(1, 1, 1, 32).expand(64, 3, 32, 32)
    brightest_left = torch.zeros(64, dtype=torch.bool)

    for seed in range(3):
        crops = crop_and_flip(images, seeded(seed), least_area=1.0)
        ramps = crops[:, 0, 16]
        steps = ramps[:, 2:-2].diff(dim=1)
        # Every row still rises or falls all the way: nothing but a mirrored, slightly stretched ramp.
        rising = (steps >= -1e-4).all(1)
        falling = (steps <= 1e-4).all(1)
        assert (rising | falling).all()
        brightest_left |= falling

    assert brightest_left.any()


def test_crops_keep_the_range_of_values_and_cover_at_least_the_least_area() -> None:
    ramp = torch.linspace(-1, 1, 32).view(1, 1, 1, 32).expand(256, 3, 32, 32)

    crops = crop_and_flip(ramp, seeded(), least_area=0.5)

    assert crops.min() >= -1
    assert crops.max() <= 1
    widths = (crops[:, 0, 16].amax(1) - crops[:, 0, 16].amin(1)) / 2
    # The narrowest crop of half the area has the ratio 3:4.
    assert widths.min() > (0.5 * 3 / 4) ** 0.5 - 0.05
    assert widths.min() < 0.75


@pytest.mark.parametrize(("side", "exact"), [(32, False), (64, False), (65, True), (224, True)])
def test_crops_of_large_images_are_placed_in_fp32(side: int, *, exact: bool) -> None:
    images = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))

    def cropped() -> Tensor:
        return crop_and_flip(images, torch.Generator().manual_seed(1), least_area=0.5)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cropped()

    assert torch.equal(found, cropped()) == exact


def test_colour_jitter_leaves_some_images_as_they_are_and_turns_some_grey() -> None:
    images = (torch.rand(400, 3, 1, 1) * 2 - 1).expand(400, 3, 8, 8)

    jittered = jitter_colour(images, seeded())

    grey = (jittered - jittered[:, :1]).abs().amax((1, 2, 3)) < 1e-6
    same = (jittered - images).abs().amax((1, 2, 3)) < 1e-5
    assert 0.12 < grey.float().mean() < 0.28
    assert 0.10 < same.float().mean() < 0.23
    assert jittered.abs().max() <= 1
