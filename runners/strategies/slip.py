"""SLIP: CLIP's loss plus SimCLR's on two augmented views of the same images (arXiv 2112.12750).

The self-supervised head reads the image tower's features before their projection; for a ModifiedResNet, whose
attention pooling ends with the projection, it reads the projected ones.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from budgets.cost.architecture import Architecture
from budgets.cost.layers import TowerCost, linear, norm
from budgets.cost.strategy import Batch, Generator, Model, Module, Tensor
from budgets.declaration.recipe import Recipe
from runners.strategies.clip import Clip

_TEMPERATURE = 0.1
_LEAST_AREA = 0.2  # SimCLR's 0.08 would leave 9 pixels of a small image
_ORIGINAL_LEAST_AREA, _LEAST_AREA_OF_CLIP = 0.08, 0.5
_ORIGINAL_VIEWS_FROM = 64  # pixels; SLIP's blur and its crops of 8 % would leave little of smaller images


@dataclass(frozen=True, kw_only=True)
class Slip(Clip):
    """CLIP and SimCLR together; the original views are those of facebookresearch/SLIP, ``main.py``."""

    slip_views: Literal["small", "original"] = "small"

    @property
    def view_bytes(self) -> int:
        """Measured with torch's MemTracker while the second view is jittered or blurred, with its copies."""
        return 22 if self.slip_views == "small" else 39

    def recipe(self, declared: Recipe, architecture: Architecture) -> Recipe:
        """Return the recipe of its trials: small images always have the small views."""
        recipe = super().recipe(declared, architecture)
        small = architecture.costs.image_size < _ORIGINAL_VIEWS_FROM
        return replace(recipe, slip_views="small") if small else recipe

    def similarity_macs(self, architecture: Architecture, batch_size: int) -> int:
        """Multiply-accumulates of CLIP's two matrices, and of SimCLR's four: two views with two views."""
        return super().similarity_macs(architecture, batch_size) + 4 * batch_size * head_dims(architecture)[2]

    def head_cost(self, architecture: Architecture) -> TowerCost:
        """Cost of linear, batch norm, ReLU, linear, batch norm, ReLU, linear; on two views."""
        inputs, hidden, outputs = head_dims(architecture)
        layers = linear(1, inputs, hidden) + linear(1, hidden, hidden) + linear(1, hidden, outputs)
        return TowerCost(2 * layers.macs, (layers + norm(hidden) * 2).parameters)

    def head(self, architecture: Architecture) -> Module:
        """Build SimCLR's head."""
        from torch import nn

        width, hidden, out = head_dims(architecture)
        return nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out),
        )

    def views(self, batch: Batch, generator: Generator) -> tuple[Tensor, ...]:
        """Return images, with the original views cropped, texts, and two augmented views of the images."""
        from runners.training.augment import blur, crop_and_flip, jitter_colour, jitter_colour_and_hue

        def small(images: Tensor) -> Tensor:
            return jitter_colour(crop_and_flip(images, generator, least_area=_LEAST_AREA), generator)

        def original(images: Tensor) -> Tensor:
            cropped = crop_and_flip(images, generator, least_area=_ORIGINAL_LEAST_AREA)
            return blur(jitter_colour_and_hue(cropped, generator), generator)

        images = batch.images
        if self.slip_views == "small":
            return images, batch.tokens, small(images), small(images)
        cropped = crop_and_flip(images, generator, least_area=_LEAST_AREA_OF_CLIP, flip=False)
        return cropped, batch.tokens, original(images), original(images)

    def features(self, model: Model, head: Module | None, *views: Tensor) -> tuple[Tensor, ...]:
        """Return CLIP's features, and the head's features of both augmented views."""
        import torch

        from runners.models.model import unprojected

        assert head is not None, "built by the strategy"
        images, tokens, first, second = views
        with unprojected(model.visual):
            embeddings = head(model.visual(torch.cat([first, second])))
        return (*super().features(model, head, images, tokens), *embeddings.chunk(2))

    def loss(self, model: Model, *features: Tensor) -> Tensor:
        """Return CLIP's loss plus SimCLR's."""
        import torch

        image, text, first, second = features
        return super().loss(model, image, text) + simclr_loss(torch.cat([first, second]))

    def chance(self, batch_size: int) -> float:
        """Add the cross-entropy of a uniform choice among all other views of the batch."""
        return super().chance(batch_size) + math.log(2 * batch_size - 1)


def head_dims(architecture: Architecture) -> tuple[int, int, int]:
    """Widths of SLIP's self-supervised MLP: of its input, of both hidden layers, of its output.

    The input is the trunk's features before the projection. SLIP has 4096-4096-256 on a width of 768 (Mu et
    al. 2022, ViT-B); other widths keep these ratios, hidden layers in steps of 8 and the output at least 64.
    """
    width = architecture.image_tower(1.0).width
    return width, 8 * (2 * width // 3), max(64, width // 3)


def simclr_loss(embeddings: Tensor, *, temperature: float = _TEMPERATURE) -> Tensor:
    """Return SimCLR's normalised cross-entropy (arXiv 2002.05709, equation 1).

    Embeddings, (2N, D), are of the first views, then of the second views of the same images in their order;
    the temperature divides the cosines.
    """
    from torch.nn.functional import cross_entropy, normalize

    from runners.training.over_pairs import over_pairs

    views = normalize(embeddings, dim=-1)

    def share(rows: Tensor) -> Tensor:
        cosines = (views[rows] @ views.T) / temperature
        cosines.scatter_(1, rows[:, None], float("-inf"))
        partner = (rows + len(views) // 2) % len(views)  # the other view of each image
        return cross_entropy(cosines, partner, reduction="sum")

    return over_pairs(views, share) / len(views)


STRATEGIES = (Slip(name="slip", label="SLIP", paper="Mu et al. 2022", image_views=3, bytes_per_entry=64),)
