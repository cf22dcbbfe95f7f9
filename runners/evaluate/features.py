"""Features of an evaluation set: every image and text is encoded once and shared by all metrics."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runners.data.evaluation.set_reader import BATCH, SetReader
from runners.data.reading.training_data import ahead


class NotFiniteError(ValueError):
    """A model gives features that are NaN or infinite, which no metric can be computed from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """An open_clip model, which the caller puts into evaluation mode, with its preprocessing and precision.

    ``normalise`` turns uint8 images, (n, 3, S, S), into the model's input.
    """

    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    normalise: Callable[[Tensor], Tensor]
    device: torch.device
    context: Callable[[], AbstractContextManager[object]]

    @torch.no_grad()
    def images(self, images: NDArray[np.uint8]) -> Tensor:
        """Return normalised features (n, D) of a batch of uint8 images (n, 3, S, S)."""
        encode: Callable[..., Tensor] = self.model.encode_image  # type: ignore[assignment]
        with self.context():
            return _finite(encode(self.normalise(torch.from_numpy(images).to(self.device)), normalize=True))

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Return normalised features (n, D) of texts."""
        encode: Callable[..., Tensor] = self.model.encode_text  # type: ignore[assignment]
        with self.context():
            tokens = self.tokenize(texts).to(self.device).split(BATCH)
            return _finite(torch.cat([encode(part, normalize=True) for part in tokens]))

    @torch.no_grad()
    def classifier(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Return the classes' normalised mean prompts, the weights of zero-shot; float32 (D, classes).

        Templates are prompts with ``{c}`` where the class name goes, as CLIP_benchmark writes them.
        """
        with self.context():
            weights: Tensor = open_clip.build_zero_shot_classifier(
                self.model,
                tokenizer=self.tokenize,
                classnames=classnames,
                templates=[template.replace("{c}", "{}") for template in templates],
                device=self.device,
            )
            return _finite(weights.float())


def _finite(features: Tensor) -> Tensor:
    if not torch.isfinite(features).all():
        raise NotFiniteError("the model's features are not finite: its weights are NaN or too large")
    return features


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
            texts=encoder.classifier(data.classnames, data.templates),
            classnames=data.classnames,
            train=_encode_split(encoder, data, "train") if probe else None,
        )
    parts, captions = [], []
    for batch, texts in ahead(data.captioned()):
        parts.append(encoder.images(batch))
        captions += texts
    of_text = [image for image, texts in enumerate(captions) for _ in texts]
    return SetFeatures(
        images=torch.cat(parts),
        truth=torch.tensor(of_text, device=encoder.device),
        texts=encoder.texts([caption for texts in captions for caption in texts]),
    )


def _encode_split(encoder: Encoder, data: SetReader, split: str) -> tuple[Tensor, Tensor]:
    """Return the features of a split's images and their classes."""
    parts = [
        (encoder.images(images), torch.from_numpy(labels)) for images, labels in ahead(data.labelled(split))
    ]
    return torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts]).to(encoder.device)
