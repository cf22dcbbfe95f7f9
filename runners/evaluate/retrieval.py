"""Retrieval: recall at 1, 5 and 10, from image to text and from text to image."""

import torch
from torch import Tensor

from runners.evaluate import standard_error

RECALLS = (1, 5, 10)
_AT_ONCE = 4096


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
        for part, which in zip(images.split(_AT_ONCE), indices.split(_AT_ONCE), strict=True)
    ]
    to_image = [
        _nearest((images @ part.T).T, indices, which)
        for part, which in zip(texts.split(_AT_ONCE), image_of_text.split(_AT_ONCE), strict=True)
    ]
    for name, hits, cluster in (
        ("image_to_text", torch.cat(to_text), indices),
        ("text_to_image", torch.cat(to_image), image_of_text),
    ):
        for column, k in zip(hits.T, RECALLS, strict=True):
            metrics[f"{name}_r{k}"] = column.sum().item() / len(column)
            metrics[f"{name}_r{k}_se"] = standard_error.of_clusters(column, cluster, len(images))
    return metrics | {"count": float(len(images))}


def _nearest(cosines: Tensor, answer: Tensor, wanted: Tensor) -> Tensor:
    """Return whether each row's answer is among its K nearest columns, bool (rows, recalls)."""
    right = [answer[cosines.argmax(1)] == wanted]
    for k in RECALLS[1:]:
        # k is capped at the number of candidates, for very small sets.
        best = cosines.topk(min(k, cosines.shape[1]), dim=1).indices
        right.append((answer[best] == wanted.unsqueeze(1)).any(1))
    return torch.stack(right, 1)
