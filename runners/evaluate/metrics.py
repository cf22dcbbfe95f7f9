"""Zero-shot classification, retrieval, and the standard errors of metrics over the images of a set."""

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

RECALLS = (1, 5, 10)

_ALIKE = 1e-9  # distance from 1 of the cosine of equal weights, which differ by rounding in fp32
_CLASSES, _QUERIES = 1024, 4096  # at once
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
    equals = [(part.T @ weights > 1 - _ALIKE).sum(1) for part in weights.split(_CLASSES, dim=1)]
    has_equals = torch.cat(equals) > 1
    for rows in torch.arange(len(labels), device=labels.device).split(max(1, _LOGITS // len(has_equals))):
        logits = image_features[rows].float() @ classifier
        best = logits.topk(min(5, len(has_equals)), dim=1).indices
        hits = best == labels[rows].unsqueeze(1)
        first[rows], five[rows] = hits[:, 0].double(), hits.any(1).double()
        for place in torch.nonzero(has_equals[labels[rows]]).flatten().split(_CLASSES):
            among = weights.T[labels[rows[place]]] @ weights > 1 - _ALIKE
            lowest = logits[place].masked_fill(~among, -math.inf).amax(1, keepdim=True)
            above = (~among & (logits[place] > lowest)).sum(1)
            for k, hit in ((1, first), (best.shape[1], five)):
                hit[rows[place]] = ((k - above).double() / among.sum(1)).clamp(0, 1)
    recall, recall_se = _mean_per_class(first, labels)
    return {
        "top1": first.sum().item() / len(labels),
        "top1_se": error_of_mean(first),
        "top5": five.sum().item() / len(labels),
        "top5_se": error_of_mean(five),
        "mean_per_class": recall,
        "mean_per_class_se": recall_se,
        "count": float(len(labels)),
    }


def _mean_per_class(right: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean recall over classes that have images, and its standard error over their images."""
    images = labels.bincount()
    present = images > 0
    recall, square = ((labels.bincount(weights) / images)[present] for weights in (right, right**2))
    images, count = images[present], len(right)
    # Unbiased variance of each class's recall; classes are independent, so variances of the mean add up. A
    # class with a single image has no variance of its own: it takes that of one of all images.
    of_one = _spread(right.mean(), (right**2).mean()) * count / (count - 1) if count > 1 else math.nan
    variance = torch.where(images > 1, _spread(recall, square) / (images - 1).clamp(min=1), of_one)
    return recall.mean().item(), variance.sum().sqrt().item() / len(images)


def _spread(mean: Tensor, square: Tensor) -> Tensor:
    """Return the mean square around a mean: p(1 − p), less where shared hits lie between 0 and 1."""
    return (mean * (1 - mean) - (mean - square)).clamp(min=0)


@torch.no_grad()
def retrieval(image_features: Tensor, text_features: Tensor, image_of_text: Tensor) -> dict[str, float]:
    """Measure retrieval of each image's text and of each text's image among all of the set.

    An image counts as found at K if any of its texts is among the K nearest, as in papers on CLIP. Features
    are normalised, (N, D) of the images and (M, D) of the texts; an image may have several texts, each of
    which has its image's index in ``image_of_text``, (M,).

    Returns ``image_to_text_r<K>`` and ``text_to_image_r<K>`` as shares, the standard error of each as
    ``<name>_se``, and ``count``, the number of images. Texts of one image are treated as a cluster.
    """
    images, texts = image_features.float(), text_features.float()
    indices = torch.arange(len(images), device=images.device)
    metrics: dict[str, float] = {}
    # Blocks of queries keep the similarity matrix small.
    to_text = [
        _nearest(part @ texts.T, image_of_text, which)
        for part, which in zip(images.split(_QUERIES), indices.split(_QUERIES), strict=True)
    ]
    to_image = [
        _nearest((images @ part.T).T, indices, which)
        for part, which in zip(texts.split(_QUERIES), image_of_text.split(_QUERIES), strict=True)
    ]
    for name, hits, cluster in (
        ("image_to_text", torch.cat(to_text), indices),
        ("text_to_image", torch.cat(to_image), image_of_text),
    ):
        for column, k in zip(hits.T, RECALLS, strict=True):
            metrics[f"{name}_r{k}"] = column.sum().item() / len(column)
            metrics[f"{name}_r{k}_se"] = error_of_clusters(column, cluster, len(images))
    return metrics | {"count": float(len(images))}


def _nearest(cosines: Tensor, answer: Tensor, wanted: Tensor) -> Tensor:
    """Return whether each row's answer is among its K nearest columns, bool (rows, recalls)."""
    right = [answer[cosines.argmax(1)] == wanted]
    for k in RECALLS[1:]:
        # k is capped at the number of candidates, for very small sets.
        best = cosines.topk(min(k, cosines.shape[1]), dim=1).indices
        right.append((answer[best] == wanted.unsqueeze(1)).any(1))
    return torch.stack(right, 1)


def error_of_mean(hits: Tensor) -> float:
    """Standard error of the mean of independent values, (N,); NaN for fewer than two."""
    return (hits.double().std() / len(hits) ** 0.5).item() if len(hits) > 1 else float("nan")


def error_of_clusters(hits: Tensor, cluster: Tensor, clusters: int) -> float:
    """Standard error of the mean of values in clusters, such as the captions of one image.

    Linearised error of a ratio of sums (Cochran 1977, section 6), which assumes only the clusters to be
    independent: with residuals e_i summed per cluster c, SE² = C / (C - 1) · Σ_c (Σ_{i in c} e_i)² / M². With
    one value per cluster it equals `error_of_mean`. Each of the values, (M,), has the index of its cluster;
    NaN for fewer than two clusters.
    """
    if clusters < 2:  # noqa: PLR2004 - a spread needs two
        return float("nan")
    values = hits.double().cpu()  # index_add on a GPU sums in no fixed order
    residuals = values.new_zeros(clusters).index_add(0, cluster.cpu(), values - values.mean())
    return (residuals.square().sum() * clusters / (clusters - 1)).sqrt().item() / len(values)


def error_of_crossed(hits: Tensor) -> float:
    """Standard error of the mean over draws of a training set, all tested on the same images.

    Draws and images are crossed random factors: the variances of both means add up, minus that of the
    residual, which both contain (Cornfield and Tukey 1956). Values are (draws, images); NaN for fewer than
    two draws or images.
    """
    values = hits.double()
    if min(values.shape) < 2:  # noqa: PLR2004 - a spread needs two
        return float("nan")
    draws, images = values.shape
    by_draw, by_image = values.mean(1, keepdim=True), values.mean(0, keepdim=True)
    rest = (values - by_draw - by_image + values.mean()).square().sum() / ((draws - 1) * (images - 1))
    # Var(mean) = var_draw / D + var_image / I - var_rest / (D I), estimated from the marginal means.
    variance = by_draw.var() / draws + by_image.var() / images - rest / (draws * images)
    return variance.clamp(min=0).sqrt().item()
