"""Features of an evaluation set: every image and text is encoded once and shared by all metrics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from runners.data.evaluation.set_reader import BATCH, SetReader
from runners.data.reading.training_data import ahead
from runners.models.load_model import Encoder


class NotFiniteError(ValueError):
    """A model gives features that are NaN or infinite, which no metric can be computed from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFeatures:
    """A model's features of a set, all normalised, which all metrics are computed from."""

    images: Tensor  # (N, D)
    truth: Tensor  # class of each image, (N,); for retrieval the index of each text's image, (M,)
    texts: Tensor  # zero-shot weights, (D, classes); for retrieval the features of the texts, (M, D)
    classnames: tuple[str, ...] = ()  # empty for retrieval
    train: tuple[Tensor, Tensor] | None = None  # images and classes of the training split for probes


def encode_set(encoder: Encoder, data: SetReader, *, probe: bool = False) -> SetFeatures:
    """Encode a set batch by batch, while the next batch is read; for probes, its training split as well.

    Raises:
        ValueError: The set, or a training split for a probe, does not exist or is not valid.
    """
    if not data.is_retrieval:
        images, labels = _encode_split(encoder, data, "test")
        return SetFeatures(
            images=images,
            truth=labels,
            texts=_finite(encoder.classifier(data.classnames, data.templates)),
            classnames=data.classnames,
            train=_encode_split(encoder, data, "train") if probe else None,
        )
    parts, captions = [], list[tuple[str, ...]]()
    for batch, some in ahead(data.captioned()):
        parts.append(encoder.images(batch))
        captions += some
    of_text = [image for image, own in enumerate(captions) for _ in own]
    texts = [text for own in captions for text in own]
    batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    return SetFeatures(
        images=_finite(torch.cat(parts)),
        truth=torch.tensor(of_text, device=encoder.device),
        texts=_finite(torch.cat([encoder.texts(some) for some in batches])),
    )


def _encode_split(encoder: Encoder, data: SetReader, split: str) -> tuple[Tensor, Tensor]:
    """Return the features of a split's images and their classes."""
    parts = [
        (encoder.images(images), torch.from_numpy(labels)) for images, labels in ahead(data.labelled(split))
    ]
    features, labels = (torch.cat(each) for each in zip(*parts, strict=True))
    return _finite(features), labels.to(encoder.device)


def _finite(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise NotFiniteError("the model's features are not finite: its weights are NaN or too large")
    return features
