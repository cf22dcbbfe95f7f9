"""FLOPs of a sample: of forward pass and training, for each architecture and strategy.

``CONVENTION`` states what is counted and cites the sources. The counts agree with torch's ``FlopCounterMode``
on the models that open_clip builds, and with open_clip's published ``model_profile.csv`` at 2 FLOPs a MAC.
"""

from dataclasses import dataclass
from functools import cache

from budgets.cost.architecture import Architecture
from budgets.cost.strategy import Strategy

CONVENTION = (
    "Training FLOPs of a sample = 3 x 2 x its forward multiply-accumulates (MACs): a backward pass is "
    "taken as two forward ones. Counted: matrix products and convolutions, padding included, of the image "
    "tower at its kept tokens for each image view, of the text tower at its context length for each text "
    "view, of projections and of the self-supervised head, and the loss's similarity matrices (batch x "
    "width MACs a sample for each: two for CLIP's loss, one for SigLIP's, four more for SimCLR's). "
    "Attention counts in full, causal or not. Not counted: norms, activations, biases, softmax, pooling, "
    "embedding look-ups, augmentation, the optimiser, recomputation. Source: closed forms of the layers "
    "of open_clip and timm; the factor 3 as in Kaplan et al. 2020 and Hoffmann et al. 2022."
)

CONVENTION_NAME = "3 x 2 x forward MACs, version 1"
"""Short name of ``CONVENTION``, stored with every entry; the version rises when the counting changes."""

FLOPS_PER_MAC = 2
_PASSES = 3  # forward, gradients of activations, gradients of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleCost:
    """Forward multiply-accumulates of one training sample, by component, all views together.

    A tower includes its projection; ``similarity_macs`` are the sample's share of the loss's matrices.
    """

    image_macs: int
    text_macs: int
    head_macs: int
    similarity_macs: int

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of the whole forward pass."""
        return self.image_macs + self.text_macs + self.head_macs + self.similarity_macs

    @property
    def train_flops(self) -> int:
        """FLOPs of a training step, per sample: 3 x 2 x forward multiply-accumulates."""
        return _PASSES * FLOPS_PER_MAC * self.forward_macs


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Number of parameters: of the towers with their embeddings and projections, and of the head.

    The head has those of the loss (temperature; SigLIP's bias) and what the strategy trains beside the model.
    """

    image: int
    text: int
    head: int

    @property
    def total(self) -> int:
        """All trained parameters."""
        return self.image + self.text + self.head


@cache
def sample_cost(architecture: Architecture, strategy: Strategy, *, batch_size: int) -> SampleCost:
    """Compute the forward cost of one training sample with a strategy that applies to the architecture.

    ``batch_size`` is that of the trial's actual batch, the strategy's factor included.
    """
    tower = architecture.smaller(strategy.image_fraction).image_tower(strategy.kept_fraction)
    text = architecture.costs.text_tower(strategy.text_tokens(architecture.costs.context_length))
    return SampleCost(
        # A head reads the trunk's features, so only the contrastive view is projected.
        image_macs=tower.trunk.macs * strategy.image_views + tower.projection.macs,
        text_macs=text.macs * strategy.text_views,
        head_macs=strategy.head_cost(architecture).macs,
        similarity_macs=strategy.similarity_macs(architecture, batch_size),
    )


def image_forward_macs(architecture: Architecture) -> int:
    """Multiply-accumulates of one image through tower and projection, all tokens kept, as in evaluation."""
    tower = architecture.image_tower(1.0)
    return tower.trunk.macs + tower.projection.macs


def text_forward_macs(architecture: Architecture) -> int:
    """Multiply-accumulates of one text through its tower and projection at the full context length."""
    return architecture.costs.text_tower(architecture.costs.context_length).macs


def encoding_flops(architecture: Architecture, *, images: int, texts: int) -> int:
    """FLOPs of encoding images and texts once each, as evaluation and scoring do."""
    macs = images * image_forward_macs(architecture) + texts * text_forward_macs(architecture)
    return FLOPS_PER_MAC * macs


@cache
def count_parameters(architecture: Architecture, strategy: Strategy) -> Parameters:
    """Count the parameters that a strategy trains."""
    tower = architecture.image_tower(1.0)
    return Parameters(
        image=tower.trunk.parameters + tower.projection.parameters,
        text=architecture.costs.text_tower(architecture.costs.context_length).parameters,
        # The temperature, and the bias of a loss that has one.
        head=1 + (strategy.init_logit_bias is not None) + strategy.head_cost(architecture).parameters,
    )
