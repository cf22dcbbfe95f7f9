"""FLOPs of a sample: closed forms of forward pass and training for each architecture and strategy.

``CONVENTION`` states what is counted and cites the sources. The counts agree with torch's ``FlopCounterMode``
on the models that open_clip builds, and with open_clip's published ``model_profile.csv`` at 2 FLOPs a MAC.
"""

from dataclasses import dataclass
from functools import cache

from budgets.cost.architecture import Architecture
from budgets.cost.layers import TowerCost, linear, norm
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

    The head has those of the loss (temperature; SigLIP's bias) and the self-supervised head.
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
    text = architecture.costs.text_tower(text_tokens(architecture, strategy))
    augmented_views = strategy.image_views - 1
    similarity = (1 if strategy.sigmoid_loss else 2) * batch_size * architecture.embed_dim
    head = TowerCost()
    if strategy.self_supervised_head:
        head = _slip_head(architecture)
        # SimCLR compares two views with two views: 4 matrices of batch x batch, divided over the batch.
        similarity += 4 * batch_size * slip_head_dims(architecture)[2]
    return SampleCost(
        # The SimCLR head reads the trunk's features, so only the contrastive view is projected.
        image_macs=tower.trunk.macs * strategy.image_views + tower.projection.macs,
        text_macs=text.macs * strategy.text_views,
        head_macs=head.macs * augmented_views,
        similarity_macs=similarity,
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


def text_tokens(architecture: Architecture, strategy: Strategy) -> int:
    """Length of the texts that a strategy trains on, in tokens."""
    return max(1, int(architecture.costs.context_length * strategy.text_fraction))


def slip_head_dims(architecture: Architecture) -> tuple[int, int, int]:
    """Widths of SLIP's self-supervised MLP: of its input, of both hidden layers, of its output.

    The input is the trunk's features before the projection. SLIP has 4096-4096-256 on a width of 768 (Mu et
    al. 2022, ViT-B); other widths keep these ratios, hidden layers in steps of 8 and the output at least 64.
    """
    width = architecture.image_tower(1.0).width
    return width, 8 * (2 * width // 3), max(64, width // 3)


@cache
def count_parameters(architecture: Architecture, strategy: Strategy) -> Parameters:
    """Count the parameters that a strategy trains, in closed form."""
    tower = architecture.image_tower(1.0)
    head = 2 if strategy.sigmoid_loss else 1
    if strategy.self_supervised_head:
        head += _slip_head(architecture).parameters
    return Parameters(
        image=tower.trunk.parameters + tower.projection.parameters,
        text=architecture.costs.text_tower(architecture.costs.context_length).parameters,
        head=head,
    )


def _slip_head(architecture: Architecture) -> TowerCost:
    """Cost of linear, batch norm, ReLU, linear, batch norm, ReLU, linear on one view."""
    inputs, hidden, outputs = slip_head_dims(architecture)
    return (
        linear(1, inputs, hidden) + linear(1, hidden, hidden) + norm(hidden) * 2 + linear(1, hidden, outputs)
    )
