"""Augmentation of whole batches as tensors."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from runners.training import augment
from runners.training.augment import blur, crop_and_flip, jitter_colour, jitter_colour_and_hue, turn_hue


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize("turn", [-0.1, 0.0, 0.07, 0.1])
def test_hue_turns_as_in_torchvision(turn: float) -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded())
    images[0] = images[0, :1]  # grey, without a hue

    turned = turn_hue(images, torch.full((4, 1, 1, 1), turn))

    torch.testing.assert_close(turned, vision.adjust_hue(images, turn), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.amax(1), images.amax(1))


def test_full_colour_jitter_also_moves_the_hue_of_four_fifths_of_the_images() -> None:
    images = torch.tensor([0.6, 0.2, -0.2]).view(1, 3, 1, 1).expand(600, 3, 8, 8)

    jittered = jitter_colour_and_hue(images, seeded())

    grey = (jittered - jittered[:, :1]).abs().amax((1, 2, 3)) < 1e-5
    same = (jittered - images).abs().amax((1, 2, 3)) < 1e-5
    assert 0.15 < grey.float().mean() < 0.25
    assert 0.11 < same.float().mean() < 0.21  # 20 % unchanged, of which a fifth is grey
    red, green, blue = ((jittered[~grey, :, 0, 0] + 1) / 2).T
    # 1/12 of a turn before, and at most a tenth added.
    degrees = 360 * torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)
    assert -7 < degrees.min() < 0
    assert 60 < degrees.max() < 67
    assert jittered.abs().max() <= 1


def test_a_batch_too_large_to_be_padded_at_once_is_blurred_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(10, 3, 16, 16, generator=seeded())
    at_once = blur(images, seeded())

    monkeypatch.setattr(augment, "_MOST_PADDED", 4 * 3 * 28 * 28)

    assert torch.equal(blur(images, seeded()), at_once)


def test_half_of_the_images_are_blurred_by_up_to_two_pixels() -> None:
    images = torch.zeros(400, 3, 33, 33)
    images[:, :, 16, 16] = 1.0

    blurred = blur(images, seeded())

    along = torch.arange(-16.0, 17.0)
    rows = blurred[:, 0].sum(1)
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(400, 3))
    sigma = (rows * along**2).sum(1).sqrt()
    assert 0.42 < (sigma < 1e-3).float().mean() < 0.6  # a sigma below a quarter of a pixel changes nothing
    assert 1.9 < sigma.max() < 2.01
    torch.testing.assert_close(rows, blurred[:, 0].sum(2))
