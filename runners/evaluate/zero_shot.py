"""Zero-shot classification: top-1 and top-5 by cosine to the class's averaged prompts."""

from collections.abc import Callable, Sequence

import open_clip
import torch
from torch import Tensor


@torch.no_grad()
def zero_shot(  # noqa: PLR0913 - what the metric is made of
    model: open_clip.CLIP,
    *,
    image_features: Tensor,
    labels: Tensor,
    classnames: Sequence[str],
    templates: Sequence[str],
    tokenize: Callable[[list[str]], Tensor],
) -> dict[str, float]:
    """Classifies images by their nearest class prompt.

    Args:
        model: The model in evaluation mode.
        image_features: Normalised features of the set's images, (N, D).
        labels: Class of each image, (N,).
        classnames: Names of the classes.
        templates: Prompts with ``{c}`` where the class name goes, as CLIP_benchmark writes them.
        tokenize: Turns texts into token ids.

    Returns:
        ``top1``, ``top5`` as shares of the images, and ``count``, the number of images.
    """
    classifier = open_clip.build_zero_shot_classifier(
        model,
        tokenizer=tokenize,
        classnames=classnames,
        templates=[template.replace("{c}", "{}") for template in templates],
        device=labels.device,
    ).float()
    logits = image_features.float() @ classifier
    best = logits.topk(min(5, len(classnames)), dim=1).indices
    hits = best == labels.unsqueeze(1)
    return {
        "top1": hits[:, 0].sum().item() / len(labels),
        "top5": hits.any(1).sum().item() / len(labels),
        "count": float(len(labels)),
    }
