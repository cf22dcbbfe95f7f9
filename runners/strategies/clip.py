"""CLIP: the symmetric contrastive loss of image and text (arXiv 2103.00020), without augmentation."""

import math

from budgets.cost.strategy import Model, Module, Strategy, Tensor


class Clip(Strategy):
    """The plain strategy, base class of the others."""

    def features(self, model: Model, _head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the normalised features of images and texts."""
        from runners.models.model import encode_text

        images, tokens = views
        return model.encode_image(images, normalize=True), encode_text(model, tokens)

    def loss(self, model: Model, *features: Tensor) -> Tensor:
        """Return the mean cross-entropy of each image among all texts, and of each text among all images."""
        from torch.nn.functional import cross_entropy

        from runners.training.over_pairs import over_pairs

        image, text = features
        scale = model.logit_scale.exp()

        def share(rows: Tensor) -> Tensor:
            by_image = cross_entropy(scale * image[rows] @ text.T, rows, reduction="sum")
            return by_image + cross_entropy(scale * text[rows] @ image.T, rows, reduction="sum")

        return over_pairs(image, share) / (2 * len(image))

    def chance(self, batch_size: int) -> float:
        """Return the cross-entropy of a uniform choice."""
        return math.log(batch_size)


STRATEGIES = (Clip(name="clip", label="CLIP", paper="Radford et al. 2021"),)
