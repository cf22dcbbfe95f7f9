"""Evaluates a model on evaluation sets, each by the kind of truth that it carries."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import open_clip
import torch
from torch import Tensor

from runners.data.evaluation_set import EvaluationSet
from runners.evaluate.retrieval import retrieval
from runners.evaluate.zero_shot import zero_shot
from runners.train import to_float

_BATCH = 256


def evaluate(
    model: open_clip.CLIP,
    sets: Mapping[str, EvaluationSet],
    *,
    tokenize: Callable[[list[str]], Tensor],
    device: torch.device,
    context: Callable[[], AbstractContextManager[object]],
) -> dict[str, float]:
    """Evaluates a model: zero-shot classification where a set has classes, retrieval where it has captions.

    Args:
        model: The model; put into evaluation mode.
        sets: Name → evaluation set.
        tokenize: Turns texts into token ids.
        device: Where the model is.
        context: Precision and attention of the forward pass.

    Returns:
        ``<set>/<metric>`` → value.
    """
    model.eval()
    metrics: dict[str, float] = {}
    for name, data in sets.items():
        with torch.no_grad(), context():
            features = torch.cat(
                [
                    model.encode_image(to_float(batch.to(device)), normalize=True)
                    for batch in torch.from_numpy(data.images).split(_BATCH)
                ]
            )
            if data.labels is None:
                assert data.captions is not None, "a set has classes or captions"
                tokens = tokenize([caption for captions in data.captions for caption in captions]).to(device)
                texts = torch.cat([model.encode_text(part, normalize=True) for part in tokens.split(_BATCH)])
                of_text = [image for image, captions in enumerate(data.captions) for _ in captions]
                values = retrieval(features, texts, torch.tensor(of_text, device=device))
            else:
                values = zero_shot(
                    model,
                    image_features=features,
                    labels=torch.from_numpy(data.labels).to(device),
                    classnames=data.classnames,
                    templates=data.templates,
                    tokenize=tokenize,
                )
        metrics.update({f"{name}/{metric}": value for metric, value in values.items()})
    return metrics
