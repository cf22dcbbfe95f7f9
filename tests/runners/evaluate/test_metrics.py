"""Metrics on features, compared with hand-made shares, repeated sampling and scikit-learn."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from runners.data.evaluation.paper_suite import variant_means
from runners.evaluate import probe
from runners.evaluate.evaluate import SetFeatures, measure
from runners.evaluate.metrics import error_of_clusters, error_of_crossed, error_of_mean, retrieval, zero_shot
from runners.evaluate.probe import few_shot, fit_probe

pytestmark = pytest.mark.slow

CLASSES, WIDTH = 12, 16


def clouds(images: int, *, seed: int, noise: float = 0.25) -> tuple[Tensor, Tensor]:
    """Return features around a centre for each class; the centres do not depend on the seed."""
    centres = normalize(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(7)), dim=1)
    labels = torch.arange(images) % CLASSES
    spread = torch.randn(images, WIDTH, generator=torch.Generator().manual_seed(seed))
    return normalize(centres[labels] + noise * spread, dim=1), labels


def test_image_counts_as_found_by_any_of_its_captions() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0.9, 0.1], [0, 1, 0]])  # the last belongs to image 2
    found = retrieval(images, texts, torch.tensor([0, 0, 1, 2]))
    # Image 0 by its first caption; image 1 finds a caption of image 0 first, image 2 one of image 1.
    assert found["image_to_text_r1"] == pytest.approx(1 / 3)
    assert found["text_to_image_r1"] == pytest.approx(2 / 4)
    assert found["image_to_text_r5"] == found["text_to_image_r10"] == 1
    assert found["count"] == 3


def test_mean_per_class_weighs_classes_not_images() -> None:
    classifier = torch.eye(2)
    images = torch.tensor([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    found = zero_shot(images, torch.tensor([0, 0, 0, 1]), classifier)
    assert found["top1"] == 0.75
    assert found["mean_per_class"] == 0.5
    assert found["top1_se"] == pytest.approx(0.25)  # sqrt(.75 · .25 / 3)
    # A class of one image has the variance of any image, .75 · .25 · 4/3; that of the other class is 0.
    assert found["mean_per_class_se"] == pytest.approx(math.sqrt(0.75 * 0.25 * 4 / 3) / 2)


def test_zero_shot_of_a_few_images_at_once_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = clouds(60, seed=1, noise=0.6)
    classifier = normalize(torch.randn(WIDTH, CLASSES, generator=torch.Generator().manual_seed(7)), dim=0)
    classifier[:, 3] = classifier[:, 5]
    whole = zero_shot(images, labels, classifier)
    monkeypatch.setattr("runners.evaluate.metrics._LOGITS", 7 * CLASSES)
    assert zero_shot(images, labels, classifier) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6], [6, 2, 1, 0, 5, 4, 3]])
def test_classes_with_equal_weights_share_their_hits_in_any_order(order: list[int]) -> None:
    weights = torch.eye(7)[:, [0, 0, 0, 3, 4, 5, 6]]  # the first three can't be told apart
    images = torch.eye(7)[[0, 0, 3, 3]] + 0.01 * torch.eye(7)[[4, 4, 0, 0]]
    labels = torch.tensor([order.index(each) for each in (0, 0, 3, 1)])
    found = zero_shot(normalize(images, dim=1), labels, weights[:, order])
    assert found["top1"] == pytest.approx((1 / 3 + 1 / 3 + 1 + 0) / 4)
    assert found["top5"] == 1
    assert found["mean_per_class"] == pytest.approx((1 / 3 + 1 + 0) / 3)
    two = zero_shot(torch.eye(7)[[0, 0, 0]], torch.tensor([order.index(0)] * 3), weights[:, order])
    assert (two["mean_per_class"], two["mean_per_class_se"]) == pytest.approx((1 / 3, 0), abs=1e-7)


def test_mean_per_class_of_one_image_each_is_as_uncertain_as_top1() -> None:
    labels = torch.arange(8)
    found = zero_shot(torch.eye(8)[[0, 1, 2, 3, 4, 4, 4, 4]], labels, torch.eye(8))
    assert found["mean_per_class"] == found["top1"] == 5 / 8
    assert found["mean_per_class_se"] == pytest.approx(found["top1_se"])
    assert math.isnan(zero_shot(torch.eye(2)[:1], labels[:1], torch.eye(2))["mean_per_class_se"])


def test_clustered_error_equals_spread_of_resampled_images() -> None:
    rng = np.random.default_rng(0)
    images, captions = 300, 5

    def draw() -> Tensor:
        hard = rng.random(images) < 0.5  # all captions of an image share how hard it is
        return torch.from_numpy(rng.random((images, captions)) < np.where(hard, 0.1, 0.9)[:, None]).flatten()

    cluster = torch.arange(images).repeat_interleave(captions)
    spread = np.std([draw().double().mean() for _ in range(2000)])
    estimated = np.mean([error_of_clusters(draw(), cluster, images) for _ in range(20)])
    assert estimated == pytest.approx(spread, rel=0.05)
    assert error_of_mean(draw()) < 0.6 * spread
    alone = draw()
    assert error_of_clusters(alone, torch.arange(len(alone)), len(alone)) == pytest.approx(
        error_of_mean(alone)
    )


def test_crossed_error_equals_spread_of_resampled_draws_and_images() -> None:
    rng = np.random.default_rng(0)

    def draw() -> Tensor:
        chance = 0.5 + 0.1 * rng.standard_normal((3, 1)) + 0.25 * rng.standard_normal((1, 200))
        return torch.from_numpy(rng.random((3, 200)) < chance)

    spread = np.std([draw().double().mean() for _ in range(4000)])
    estimated = np.sqrt(np.mean([error_of_crossed(draw()) ** 2 for _ in range(4000)]))
    assert estimated == pytest.approx(spread, rel=0.05)


def test_probe_equals_scikit_learns_logistic_regression() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="a test dependency")
    features, labels = clouds(600, seed=0)
    test, truth = clouds(600, seed=1)
    fitted = fit_probe(features, labels, CLASSES, seed=0)
    # Its C multiplies the sum of losses, our strength goes with their mean.
    theirs = linear_model.LogisticRegression(C=1 / (fitted.strength * len(labels)), max_iter=5000, tol=1e-8)
    theirs.fit(features.double().numpy(), labels.numpy())
    ours, expected = fitted.classes(test).numpy(), theirs.predict(test.double().numpy())
    assert (ours == expected).mean() > 0.995
    assert (ours == truth.numpy()).mean() > 0.7
    assert 1e-8 < fitted.strength < 1e-1, "the best is within the sweep, not at its end"


def test_a_search_in_float32_leaves_a_few_evaluations_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clouds(600, seed=0)
    test, _ = clouds(600, seed=1)
    loss, seen = probe._loss, Counter[torch.dtype]()  # noqa: SLF001 - only it shows the precision

    def counted(parts: Iterable[tuple[int, Tensor]], *rest: Tensor, gradient: bool) -> tuple[float, Tensor]:
        (part,) = parts
        seen[part[1].dtype] += gradient
        return loss([part], *rest, gradient=gradient)

    monkeypatch.setattr(probe, "_loss", counted)
    on_cpu = fit_probe(features, labels, CLASSES, seed=0)
    usual = seen.pop(torch.float64)
    monkeypatch.setattr(probe, "_ON_CPU", probe._ON_GPU)  # noqa: SLF001
    as_on_gpu = fit_probe(features, labels, CLASSES, seed=0)

    assert on_cpu.strength == as_on_gpu.strength
    assert torch.equal(on_cpu.classes(test), as_on_gpu.classes(test))
    assert seen[torch.float64] < usual / 4


def test_few_shot_improves_with_shots_and_draws_are_shared_by_models() -> None:
    train, labels = clouds(360, seed=0)
    test, truth = clouds(480, seed=1)
    found = few_shot(train, labels, features=test, labels=truth, classes=CLASSES)
    assert list(found) == ["few_shot_5_top1", "few_shot_5_top1_se", "few_shot_10_top1", "few_shot_10_top1_se"]
    assert 1 / CLASSES < found["few_shot_5_top1"] < found["few_shot_10_top1"] < 1
    assert found == few_shot(train, labels, features=test, labels=truth, classes=CLASSES)
    few = few_shot(train[:84], labels[:84], features=test, labels=truth, classes=CLASSES)
    assert list(few) == ["few_shot_5_top1", "few_shot_5_top1_se"], "no class has ten images to draw"


def test_probe_is_tested_on_sets_whose_classes_it_covers() -> None:
    names = tuple(f"thing {number}" for number in range(CLASSES))
    train, train_labels = clouds(360, seed=0)
    images, labels = clouds(240, seed=1)
    some = labels < 4
    order = torch.tensor([3, 1, 0, 2])  # the shifted set lists its four classes in another order
    shifted, _ = clouds(240, seed=2, noise=0.5)
    classifier = torch.zeros(WIDTH, CLASSES)
    sets = {
        "plain": SetFeatures(
            images=images,
            truth=labels,
            texts=classifier,
            classnames=names,
            train=(train, train_labels),
        ),
        "shifted": SetFeatures(
            images=shifted[some],
            truth=order.argsort()[labels[some]],
            classnames=tuple(names[place] for place in order),
            texts=classifier[:, :4],
        ),
        "strange": SetFeatures(
            images=images[:4], truth=labels[:4] * 0, texts=classifier[:, :1], classnames=("other",)
        ),
    }
    found = measure(sets)
    assert found["plain/probe_top1"] > 0.8
    assert 0.5 < found["shifted/probe_top1"] < 1
    assert "strange/probe_top1" not in found
    assert "shifted/few_shot_5_top1" not in found


def test_variant_means_need_all_six_or_five_sets() -> None:
    names = ("imagenet-a", "imagenet-r", "imagenet_sketch", "imagenetv2", "imagenet-real", "objectnet")
    metrics = {f"{name}/top1": 0.1 * place for place, name in enumerate(names, start=1)}
    metrics |= {f"{name}/top1_se": 0.01 for name in names} | {"imagenet1k/top1": 0.9, "cars/top1": 0.9}
    found = variant_means(metrics)
    assert found["variants-6/top1"] == pytest.approx(0.35)
    assert found["variants-6/top1_se"] == pytest.approx(0.01 / 6**0.5)
    assert found["variants-5/top1"] == pytest.approx((0.1 + 0.2 + 0.3 + 0.4 + 0.6) / 5)
    del metrics["imagenet-real/top1"]
    assert list(variant_means(metrics)) == ["variants-5/top1", "variants-5/top1_se"]
    del metrics["objectnet/top1"]
    assert variant_means(metrics) == {}
