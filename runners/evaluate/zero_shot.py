"""Zero-shot classification: top-1, top-5 and mean per class, by cosine to each class's mean prompt."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from runners.evaluate import standard_error

_ALIKE = 1e-9  # distance from 1 of the cosine of equal weights, which differ by rounding in fp32
_AT_ONCE = 1024
_LOGITS = 2**27  # in memory at once


def zero_shot(image_features: Tensor, labels: Tensor, classifier: Tensor) -> dict[str, float]:
    """Classify images by the class of highest cosine similarity.

    Classes whose weights are equal share their hits, whatever their order: of two such classes, each image of
    either counts half. A vocabulary of a pool's words has one token for all words that it lacks. Features are
    normalised, (N, D); the classifier has the weights of the classes, float32 (D, classes).

    Returns ``top1`` and ``top5`` as shares of the images; ``mean_per_class``, the mean over classes of the
    share of correct images; the standard error of each as ``<name>_se``; and ``count``, the number of images.
    """
    first, five = (torch.empty(len(labels), dtype=torch.float64, device=labels.device) for _ in range(2))
    # In float64, which neither TF32 nor autocast rounds.
    weights = normalize(classifier.double(), dim=0)
    equals = [(part.T @ weights > 1 - _ALIKE).sum(1) for part in weights.split(_AT_ONCE, dim=1)]
    has_equals = torch.cat(equals) > 1
    for rows in torch.arange(len(labels), device=labels.device).split(max(1, _LOGITS // len(has_equals))):
        logits = image_features[rows].float() @ classifier
        best = logits.topk(min(5, len(has_equals)), dim=1).indices
        hits = best == labels[rows].unsqueeze(1)
        first[rows], five[rows] = hits[:, 0].double(), hits.any(1).double()
        for place in torch.nonzero(has_equals[labels[rows]]).flatten().split(_AT_ONCE):
            among = weights.T[labels[rows[place]]] @ weights > 1 - _ALIKE
            lowest = logits[place].masked_fill(~among, -math.inf).amax(1, keepdim=True)
            above = (~among & (logits[place] > lowest)).sum(1)
            for kept, hit in ((1, first), (best.shape[1], five)):
                hit[rows[place]] = ((kept - above).double() / among.sum(1)).clamp(0, 1)
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
    kept = images > 0
    recall, square = ((labels.bincount(weights) / images)[kept] for weights in (right, right**2))
    images, count = images[kept], len(right)
    # Unbiased variance of each class's recall; classes are independent, so variances of the mean add up. A
    # class with a single image has no variance of its own: it takes that of one of all images.
    of_one = _spread(right.mean(), (right**2).mean()) * count / (count - 1) if count > 1 else math.nan
    variance = torch.where(images > 1, _spread(recall, square) / (images - 1).clamp(min=1), of_one)
    return recall.mean().item(), variance.sum().sqrt().item() / len(images)


def _spread(mean: Tensor, square: Tensor) -> Tensor:
    """Return the mean square around a mean: p(1 − p), less where shared hits lie between 0 and 1."""
    return (mean * (1 - mean) - (mean - square)).clamp(min=0)
