"""The pieces that towers are made of, each with its multiply-accumulates and its parameters.

A tower is written once, as a sum of these pieces; compute and size follow from the same lines. Counted
are matrix products and convolutions (padding included, as torch counts them). Norms, activations, biases,
softmax, pooling, residual sums and embedding look-ups may have parameters but no multiply-accumulates here.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TowerCost:
    """Multiply-accumulates of one sample's forward pass, and parameters."""

    macs: int = 0
    parameters: int = 0

    def __add__(self, other: "TowerCost") -> "TowerCost":
        """Both pieces, one after the other."""
        return TowerCost(self.macs + other.macs, self.parameters + other.parameters)

    def __mul__(self, copies: int) -> "TowerCost":
        """So many copies of the piece, each with parameters of its own."""
        return TowerCost(self.macs * copies, self.parameters * copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTower:
    """An image tower in its two parts.

    Attributes:
        trunk: All up to the pooled features.
        projection: From the features to the shared embedding; empty where the pooling projects (ResNet).
        width: Number of features that the trunk gives.
    """

    trunk: TowerCost
    projection: TowerCost
    width: int


def linear(positions: int, inputs: int, outputs: int, *, bias: bool = True) -> TowerCost:
    """A linear map at each of ``positions``; a patch embedding is one too, of 3 values a pixel."""
    return TowerCost(positions * inputs * outputs, inputs * outputs + bias * outputs)


def convolution(side: int, inputs: int, outputs: int, kernel: int, *, bias: bool) -> TowerCost:
    """A convolution with a square kernel and a square output of ``side`` positions each way."""
    return linear(side * side, kernel * kernel * inputs, outputs, bias=bias)


def depthwise_convolution(side: int, channels: int, kernel: int) -> TowerCost:
    """A depthwise convolution (one filter a channel) with bias and a square output."""
    return TowerCost(side * side * channels * kernel * kernel, channels * (kernel * kernel + 1))


def norm(width: int) -> TowerCost:
    """A layer norm or batch norm with scale and shift; running statistics are no parameters."""
    return TowerCost(0, 2 * width)


def attention(queries: int, keys: int, width: int) -> TowerCost:
    """The two products of softmax attention, causal or not: heads split the width and change nothing."""
    return TowerCost(2 * queries * keys * width, 0)


def mlp(positions: int, inputs: int, hidden: int, outputs: int) -> TowerCost:
    """Two linear maps with biases and an activation between them."""
    return linear(positions, inputs, hidden) + linear(positions, hidden, outputs)


def transformer_block(tokens: int, width: int, mlp_width: int, *, layer_scale: bool) -> TowerCost:
    """open_clip's pre-norm block: 12 tokens width² + 2 tokens² width where the MLP is four widths wide."""
    return (
        norm(width) * 2
        + linear(tokens, width, 3 * width)
        + attention(tokens, tokens, width)
        + linear(tokens, width, width)
        + mlp(tokens, width, mlp_width, width)
        + TowerCost(0, 2 * width * layer_scale)
    )
