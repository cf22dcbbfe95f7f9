"""Features of an evaluation set: every image and text is encoded once and shared by all metrics."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from runners.data.evaluation.evaluation_set import EvaluationSet, Labelled
from runners.evaluate.zero_shot import build_classifier

BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """A model with its preprocessing and precision.

    Attributes:
        model: The open_clip model; the caller puts it into evaluation mode.
        tokenize: Turns texts into token ids.
        normalise: Turns uint8 images (n, 3, S, S) into the model's input.
        device: Device of the model.
        context: Precision and attention of the forward pass.
    """

    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    normalise: Callable[[Tensor], Tensor]
    device: torch.device
    context: Callable[[], AbstractContextManager[object]]

    @torch.no_grad()
    def images(self, images: NDArray[np.uint8]) -> Tensor:
        """Return normalised features (n, D) of uint8 images (n, 3, S, S)."""
        encode: Callable[..., Tensor] = self.model.encode_image  # type: ignore[assignment]
        with self.context():
            batches = torch.from_numpy(images).split(BATCH)
            return torch.cat([encode(self.normalise(b.to(self.device)), normalize=True) for b in batches])

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """Return normalised features (n, D) of texts."""
        encode: Callable[..., Tensor] = self.model.encode_text  # type: ignore[assignment]
        with self.context():
            tokens = self.tokenize(texts).to(self.device).split(BATCH)
            return torch.cat([encode(part, normalize=True) for part in tokens])

    @torch.no_grad()
    def classifier(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Return zero-shot weights of the classes, float32 (D, classes)."""
        with self.context():
            return build_classifier(
                self.model,
                classnames=classnames,
                templates=templates,
                tokenize=self.tokenize,
                device=self.device,
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFeatures:
    """A model's features of a set, which all metrics are computed from.

    Attributes:
        images: Normalised image features, (N, D).
        labels: Class of each image, (N,); ``None`` for retrieval.
        classnames: Names of the classes; empty for retrieval.
        classifier: Zero-shot weights, (D, classes); ``None`` for retrieval.
        texts: Normalised text features, (M, D); ``None`` for classification.
        image_of_text: Index of the image that each text belongs to, (M,); ``None`` for classification.
        train_images: Normalised features of the training split for probes; ``None`` without one.
        train_labels: Class of each image of the training split.
    """

    images: Tensor
    labels: Tensor | None = None
    classnames: tuple[str, ...] = ()
    classifier: Tensor | None = None
    texts: Tensor | None = None
    image_of_text: Tensor | None = None
    train_images: Tensor | None = None
    train_labels: Tensor | None = None


def encode_set(encoder: Encoder, data: EvaluationSet, train: Iterable[Labelled] = ()) -> SetFeatures:
    """Encode a set.

    Args:
        encoder: The model.
        data: The set.
        train: Batches of the training split, to fit probes to.
    """
    images = encoder.images(data.images)
    if data.labels is None:
        assert data.captions is not None, "a set has classes or captions"
        texts = encoder.texts([caption for captions in data.captions for caption in captions])
        of_text = [image for image, captions in enumerate(data.captions) for _ in captions]
        return SetFeatures(
            images=images, texts=texts, image_of_text=torch.tensor(of_text, device=encoder.device)
        )
    probed = [(encoder.images(batch.images), torch.from_numpy(batch.labels)) for batch in train]
    return SetFeatures(
        images=images,
        labels=torch.from_numpy(data.labels).to(encoder.device),
        classnames=data.classnames,
        classifier=encoder.classifier(data.classnames, data.templates),
        train_images=torch.cat([features for features, _ in probed]) if probed else None,
        train_labels=torch.cat([labels for _, labels in probed]).to(encoder.device) if probed else None,
    )
