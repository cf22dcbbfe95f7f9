"""Training strategies compute what their papers say."""

import math
from dataclasses import replace

import open_clip
import pytest
import torch
from torch import nn

from budgets.cost.architecture import load_architecture
from budgets.cost.strategy import Batch, Strategy, find_strategy, strategies
from budgets.declaration.recipe import Recipe
from runners.models.model import build_model, encode_text, unprojected
from runners.strategies.clipa import cut_texts
from runners.strategies.slip import simclr_loss
from runners.training.learner import make_optimizer
from runners.training.pair_state import loss_of_new_pairs
from tests.runners.tiny import batch_of

BATCH = 8


def build(architecture_name: str, name: str) -> tuple[open_clip.CLIP, Strategy]:
    strategy = find_strategy(name)
    return build_model(load_architecture(architecture_name).config, strategy).train(), strategy


@pytest.mark.parametrize("name", strategies())
def test_features_without_information_have_chance_loss(name: str) -> None:
    model, how = build("mini-ViT-XXS-8", name)
    same = torch.ones(BATCH, 64) / 8

    with torch.no_grad():
        model.logit_scale.fill_(0.0)
        if model.logit_bias is not None:
            model.logit_bias.fill_(-1.0 - math.log(BATCH - 1))  # a cosine of 1, and odds of 1 to all others
        features = [same] * (how.image_views + how.text_views)
        if name == "reinforced":  # whatever its teacher says
            features += nn.functional.normalize(torch.randn(2, BATCH, 64), dim=-1)
        loss = loss_of_new_pairs(how, model, features)

    assert loss.item() == pytest.approx(how.chance(BATCH))


def test_siglip_starts_at_its_papers_temperature_and_bias_and_decays_neither() -> None:
    model, how = build("mini-ViT-XXS-8", "siglip")
    images, texts = nn.functional.normalize(torch.randn(2, 4, 64), dim=-1)

    assert model.logit_scale.exp().item() == pytest.approx(10)
    assert model.logit_bias is not None
    assert model.logit_bias.item() == -10
    # Equation 1 of arXiv 2303.15343, over a batch of four.
    answers = 2 * torch.eye(4) - 1
    expected = torch.log1p(torch.exp(answers * (-10 * images @ texts.T + 10))).sum() / 4
    assert how.loss(model, images, texts).item() == pytest.approx(expected.item(), rel=1e-5)
    _, plain = make_optimizer(model, Recipe(), lr_peak=1e-3).param_groups
    assert any(parameter is model.logit_bias for parameter in plain["params"])


def test_clipa_cuts_texts_like_the_tokenizer_until_unmasked() -> None:
    how = find_strategy("clipa")
    images = torch.randn(2, 3, 32, 32)
    texts = torch.tensor([[1, 5, 99, *[0] * 13], [1, *range(2, 16), 99]])

    _, short = how.views(batch_of(how, images, texts), torch.Generator())
    assert short.tolist() == [[1, 5, 99, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 99]]
    assert torch.equal(cut_texts(texts, 16), texts)

    assert torch.equal(how.unmasked.views(batch_of(how, images, texts), torch.Generator())[1], texts)


def test_slips_original_views_crop_the_image_of_its_clip_part_without_mirroring_it() -> None:
    how = find_strategy("slip").configured(Recipe(slip_views="original"))
    ramp = torch.linspace(-1, 1, 64).view(1, 1, 1, 64).expand(64, 3, 64, 64)
    texts = torch.ones(64, 77, dtype=torch.long)

    image, tokens, first, second = how.views(batch_of(how, ramp, texts), torch.Generator().manual_seed(0))

    rises = image[:, 0, 32, 8:-8].diff(dim=1)
    assert (rises >= -1e-4).all()
    width = (image[:, 0, 32].amax(1) - image[:, 0, 32].amin(1)) / 2
    assert 0.55 < width.min() < 0.8
    assert torch.equal(tokens, texts)
    assert first.shape == second.shape == ramp.shape
    assert not torch.equal(first, second)
    # Half of the augmented views are mirrored, and crops keep down to 8 % of the area.
    falls = first[:, 0, 32, -9] < first[:, 0, 32, 8]
    assert 0.3 < falls.float().mean() < 0.7


def test_distillation_has_the_divergence_from_the_teacher_as_its_gradient() -> None:
    model, how = build("mini-ViT-XXS-8", "reinforced")
    image, text, their_image, their_text = nn.functional.normalize(torch.randn(4, BATCH, 64), dim=-1)
    image.requires_grad_()
    (found,) = torch.autograd.grad(how.loss(model, image, text, their_image, their_text), image)

    # Equations 1 to 3 of arXiv 2311.17049 with one teacher.
    ours, theirs = model.logit_scale.exp() * image @ text.T, their_image @ their_text.T / 0.01
    distilled = hard = torch.zeros(())
    for mine, teacher in ((ours, theirs), (ours.T, theirs.T)):
        choices = teacher.softmax(1)
        distilled = distilled + (choices * (choices.log() - mine.log_softmax(1))).sum(1).mean() / 2
        hard = hard + nn.functional.cross_entropy(mine, torch.arange(BATCH)) / 2
    (expected,) = torch.autograd.grad(0.25 * hard + 0.75 * distilled, image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_recaptions_are_a_share_of_the_texts_drawn_by_the_steps_generator() -> None:
    how = replace(find_strategy("recaptions"), columns=("one", "two"))
    own, one, two = (torch.full((3000, 4), number) for number in range(3))
    batch = Batch(images=own, tokens=own, ids=own[:, 0], columns={"one": one, "two": two})

    first, again, later = (how.views(batch, torch.Generator().manual_seed(seed))[1] for seed in (5, 5, 6))

    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert (first == first[:, :1]).all()  # whole texts
    for number, share in enumerate((0.5, 0.25, 0.25)):
        assert (first[:, 0] == number).float().mean().item() == pytest.approx(share, abs=0.03)


def test_text_features_do_not_depend_on_padding() -> None:
    model = build_model(load_architecture("mini-ViT-XXS-8").config).eval()
    texts = torch.tensor([[1, 5, 99, *[0] * 13], [1, 6, 7, 8, 99, *[0] * 11]])

    short = encode_text(model, texts[:, :5])

    torch.testing.assert_close(short, model.encode_text(texts, normalize=True))


@pytest.mark.parametrize("architecture_name", ["mini-ViT-XS-8", "mini-ConvNeXt", "mini-RN"])
def test_projection_is_restored_after_unprojected_features(architecture_name: str) -> None:
    model = build_model(load_architecture(architecture_name).config).eval()
    images = torch.randn(2, 3, 32, 32)
    before = model.encode_image(images)

    with unprojected(model.visual):
        model.visual(images)

    assert torch.equal(model.encode_image(images), before)


def test_simclr_loss_is_least_when_both_views_of_an_image_agree() -> None:
    views = torch.eye(4)

    agreeing = simclr_loss(torch.cat([views, views]), temperature=0.1)
    crossed = simclr_loss(torch.cat([views, views.roll(1, 0)]), temperature=0.1)

    # Each view has its partner at cosine 1 and six others at cosine 0.
    expected = torch.log(1 + 6 * torch.exp(torch.tensor(-10.0)))
    assert agreeing.item() == pytest.approx(expected.item(), rel=1e-3)
    assert crossed.item() == pytest.approx(10 + expected.item(), rel=1e-3)
