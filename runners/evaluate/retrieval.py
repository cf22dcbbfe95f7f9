"""Retrieval: recall at 1 from image to text and from text to image."""

import torch
from torch import Tensor


@torch.no_grad()
def retrieval(image_features: Tensor, text_features: Tensor, image_of_text: Tensor) -> dict[str, float]:
    """Finds each image's text and each text's image among all of the set.

    Args:
        image_features: Normalised, (N, D).
        text_features: Normalised, (M, D); an image may have several texts.
        image_of_text: The image that each text belongs to, (M,).

    Returns:
        ``image_to_text_r1`` and ``text_to_image_r1`` as shares, and ``count``, the number of images.
    """
    cosines = image_features.float() @ text_features.float().T
    images = torch.arange(len(image_features), device=cosines.device)
    to_text = (image_of_text[cosines.argmax(1)] == images).sum().item()
    to_image = (cosines.argmax(0) == image_of_text).sum().item()
    return {
        "image_to_text_r1": to_text / len(image_features),
        "text_to_image_r1": to_image / len(text_features),
        "count": float(len(image_features)),
    }
