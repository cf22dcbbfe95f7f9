"""Zero-shot classification: top-1, top-5 and mean per class by cosine to the class's averaged prompts."""

from collections.abc import Callable, Sequence

import open_clip
import torch
from torch import Tensor, nn

from runners.evaluate import standard_error


def build_classifier(
    model: nn.Module,
    *,
    classnames: Sequence[str],
    templates: Sequence[str],
    tokenize: Callable[[list[str]], Tensor],
    device: torch.device,
) -> Tensor:
    """Encode each class's prompts, their mean normalised.

    Args:
        model: The model in evaluation mode.
        classnames: Names of the classes.
        templates: Prompts with ``{c}`` where the class name goes, as CLIP_benchmark writes them.
        tokenize: Turns texts into token ids.
        device: Where the model is.

    Returns:
        float32 (D, classes).
    """
    classifier: Tensor = open_clip.build_zero_shot_classifier(
        model,
        tokenizer=tokenize,
        classnames=classnames,
        templates=[template.replace("{c}", "{}") for template in templates],
        device=device,
    )
    return classifier.float()


def zero_shot(image_features: Tensor, labels: Tensor, classifier: Tensor) -> dict[str, float]:
    """Classify images by their nearest class.

    Args:
        image_features: Normalised features of the set's images, (N, D).
        labels: Class of each image, (N,).
        classifier: What `build_classifier` gives, (D, classes).

    Returns:
        ``top1``, ``top5`` as shares of the images, ``mean_per_class``, the mean over classes of the share of
        their images that is right, the standard error of each as ``<name>_se``, and ``count``, the number
        of images.
    """
    logits = image_features.float() @ classifier
    best = logits.topk(min(5, classifier.shape[1]), dim=1).indices
    hits = best == labels.unsqueeze(1)
    recall, recall_se = _mean_per_class(hits[:, 0], labels)
    return {
        "top1": hits[:, 0].sum().item() / len(labels),
        "top1_se": standard_error.of_mean(hits[:, 0]),
        "top5": hits.any(1).sum().item() / len(labels),
        "top5_se": standard_error.of_mean(hits.any(1)),
        "mean_per_class": recall,
        "mean_per_class_se": recall_se,
        "count": float(len(labels)),
    }


def _mean_per_class(right: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean over the classes that have images, and its error, the images of a class being the sample."""
    images = labels.bincount()
    recall = (labels.bincount(right.double()) / images)[images > 0]
    images = images[images > 0]
    variance = recall * (1 - recall) / (images - 1).clamp(min=1)
    return recall.mean().item(), variance.sum().sqrt().item() / len(images)
