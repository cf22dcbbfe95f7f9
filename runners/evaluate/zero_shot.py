"""Zero-shot classification: top-1, top-5 and mean per class, by cosine to each class's mean prompt."""

import math

import torch
from torch import Tensor

from runners.evaluate import standard_error

_ALIKE = 1e-6  # distance from 1 of the cosine of equal weights, which differ by rounding


def zero_shot(image_features: Tensor, labels: Tensor, classifier: Tensor) -> dict[str, float]:
    """Classify images by the class of highest cosine similarity.

    Classes whose weights are equal share their hits, whatever their order: of two such classes, each image
    of either counts half. A vocabulary of a pool's words has one token for all words that it lacks.

    Args:
        image_features: Normalised features of the set's images, (N, D).
        labels: Class of each image, (N,).
        classifier: Weights of the classes, float32 (D, classes).

    Returns:
        ``top1`` and ``top5`` as shares of the images; ``mean_per_class``, the mean over classes of the share
        of correct images; the standard error of each as ``<name>_se``; and ``count``, the number of images.
    """
    logits = image_features.float() @ classifier
    best = logits.topk(min(5, classifier.shape[1]), dim=1).indices
    hits = best == labels.unsqueeze(1)
    first, five = hits[:, 0].double(), hits.any(1).double()
    alike = classifier.T @ classifier > 1 - _ALIKE
    shared = alike.sum(1)[labels] > 1
    if shared.any():
        own = alike[labels[shared]]
        highest = logits[shared].masked_fill(~own, -math.inf).amax(1, keepdim=True)
        above = ((logits[shared] > highest) & ~own).sum(1)
        first[shared], five[shared] = (
            ((k - above) / own.sum(1)).clamp(0, 1).double() for k in (1, best.shape[1])
        )
    recall, recall_se = _mean_per_class(first, labels)
    return {
        "top1": first.sum().item() / len(labels),
        "top1_se": standard_error.of_mean(first),
        "top5": five.sum().item() / len(labels),
        "top5_se": standard_error.of_mean(five),
        "mean_per_class": recall,
        "mean_per_class_se": recall_se,
        "count": float(len(labels)),
    }


def _mean_per_class(right: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean recall over classes that have images, and its standard error over their images."""
    images = labels.bincount()
    recall = (labels.bincount(right) / images)[images > 0]
    images = images[images > 0]
    # Unbiased variance of each class's recall; classes are independent, so variances of the mean add up. A
    # class with a single image has no variance of its own: it takes that of one of all images.
    overall = right.mean()
    of_one = overall * (1 - overall) * len(right) / (len(right) - 1) if len(right) > 1 else math.nan
    variance = torch.where(images > 1, recall * (1 - recall) / (images - 1).clamp(min=1), of_one)
    return recall.mean().item(), variance.sum().sqrt().item() / len(images)
