"""Training strategies by their cost per sample: views, kept tokens, batch, extra heads.

``runners/strategies`` implements them. Augmentation costs no FLOPs here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from budgets.cost.architecture import Architecture
from budgets.names import unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """The computation that a strategy runs on each sample.

    Attributes:
        image_views: Passes through the image tower; all but the first are views for the self-supervised head.
        kept_fraction: Share of the image patches that are kept, in (0, 1]; below 1 is patch dropout.
        text_fraction: Share of the text's context that is kept, in (0, 1].
        image_fraction: Side of the images as a share of the full one, in (0, 1]; below 1, training starts
            on smaller images and ends on full ones.
        unmasked_tail: Share of the training, at its end, that its paper leaves unmasked; 0 if it never masks.
        self_supervised_head: True if a SimCLR head is trained on the two augmented views.
        sigmoid_loss: True for SigLIP's loss: one product of the embeddings instead of two, and a learned
            bias.
    """

    name: str
    image_views: int = 1
    text_views: int = 1
    kept_fraction: float = 1.0
    text_fraction: float = 1.0
    image_fraction: float = 1.0
    batch_factor: int = 1
    unmasked_tail: float = 0.0
    randaugment: bool = False
    self_supervised_head: bool = False
    sigmoid_loss: bool = False

    @property
    def masks(self) -> bool:
        """True if the model sees fewer tokens of the image or of the text than in evaluation."""
        return self.kept_fraction < 1 or self.text_fraction < 1 or self.image_fraction < 1

    @property
    def unmasked(self) -> "Strategy":
        """The strategy during an unmasked tail: all tokens, with the batch size unchanged."""
        return replace(self, kept_fraction=1.0, text_fraction=1.0, image_fraction=1.0)


_CLIPA_TAIL = 0.36 / 6.36

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        strategy.name: strategy
        for strategy in (
            # Radford et al. 2021.
            Strategy(name="clip"),
            # CLIP with augmented images (Li, Xie and Cubuk 2024, section 7): augmentation adds no FLOPs.
            Strategy(name="clip-crop-flip"),
            Strategy(name="clip-randaugment", randaugment=True),
            Strategy(name="clip-stacked-randaugment", randaugment=True),
            # CLIP's only augmentation, a random crop of the resized image, as open_clip has it.
            Strategy(name="clip-random-crop"),
            # FLIP (Li et al. 2023): the tokens that masking saves go into a larger batch; 32 epochs are
            # followed by 0.32 without masking.
            Strategy(name="flip-50", kept_fraction=0.5, batch_factor=2, unmasked_tail=0.01),
            Strategy(name="flip-25", kept_fraction=0.25, batch_factor=4, unmasked_tail=0.01),
            # SLIP (Mu et al. 2022): CLIP's own view and two augmented ones for SimCLR.
            Strategy(name="slip", image_views=3, self_supervised_head=True),
            # SigLIP (Zhai et al. 2023).
            Strategy(name="siglip", sigmoid_loss=True),
            # CLIPA (Li, Wang and Xie 2023): fewer tokens in both towers, the batch unchanged; 6 epochs are
            # followed by 0.36 with all tokens.
            Strategy(name="clipa", kept_fraction=0.25, text_fraction=0.5, unmasked_tail=_CLIPA_TAIL),
            # Its own choice for images: half the side instead of patch dropout, such as 112 of 224 pixels.
            Strategy(name="clipa-resize", image_fraction=0.5, text_fraction=0.5, unmasked_tail=_CLIPA_TAIL),
        )
    }
)


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a given name.

    Raises:
        ValueError: The name is unknown; the message gives the nearest name and all valid ones.
    """
    if name not in STRATEGIES:
        raise ValueError(unknown("strategy", name, STRATEGIES))
    return STRATEGIES[name]


def inapplicable(strategy: Strategy, architecture: Architecture) -> str | None:
    """Return the reason why the strategy cannot train the architecture, or None if it can."""
    name = architecture.name
    if strategy.kept_fraction < 1 and not architecture.costs.drops_patches:
        reason = f"patch dropout needs a ViT, but {name} is a {architecture.costs.family}"
    elif strategy.image_fraction < 1 and not (
        architecture.closed_form and architecture.costs.family == "vit"
    ):
        reason = f"smaller images need open_clip's plain ViT, but {name} is another tower"
    elif strategy.text_fraction < 1 and not architecture.costs.shortens_texts:
        reason = f"the text tower of {name} cannot read shortened texts"
    else:
        return None
    return f"{reason} ({strategy.name})"
