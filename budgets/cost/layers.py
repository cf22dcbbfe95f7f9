"""Layers of towers, each with its multiply-accumulates and parameters.

A tower is written once, as a sum of these layers; compute and size follow from the same lines. Matrix
products and convolutions are counted (padding included, as torch counts them). Norms, activations, biases,
softmax, pooling, residual sums and embedding look-ups may have parameters but count no multiply-accumulates.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TowerCost:
    """Multiply-accumulates of one sample's forward pass, and parameters."""

    macs: int = 0
    parameters: int = 0

    def __add__(self, other: "TowerCost") -> "TowerCost":
        """Return the cost of both blocks in sequence."""
        return TowerCost(self.macs + other.macs, self.parameters + other.parameters)

    def __mul__(self, copies: int) -> "TowerCost":
        """Return the cost of ``copies`` blocks, each with its own parameters."""
        return TowerCost(self.macs * copies, self.parameters * copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTower:
    """An image tower in its two parts: the trunk up to the pooled features, and their projection.

    ``width`` is the number of features. The projection is empty if the pooling already projects (ResNet).
    """

    trunk: TowerCost
    projection: TowerCost
    width: int


def linear(positions: int, inputs: int, outputs: int, *, bias: bool = True) -> TowerCost:
    """A linear map at each of ``positions``; also a patch embedding, with 3 inputs per pixel."""
    return TowerCost(positions * inputs * outputs, inputs * outputs + bias * outputs)


def convolution(side: int, inputs: int, outputs: int, kernel: int, *, bias: bool) -> TowerCost:
    """A convolution with a square kernel and an output of ``side`` x ``side`` positions."""
    return linear(side * side, kernel * kernel * inputs, outputs, bias=bias)


def norm(width: int) -> TowerCost:
    """A layer norm or batch norm with scale and shift; running statistics are not parameters."""
    return TowerCost(0, 2 * width)


def attention(queries: int, keys: int, width: int) -> TowerCost:
    """The two matrix products of softmax attention, causal or not; independent of the number of heads."""
    return TowerCost(2 * queries * keys * width, 0)


def mlp(positions: int, inputs: int, hidden: int, outputs: int) -> TowerCost:
    """Two linear maps with biases and an activation between them."""
    return linear(positions, inputs, hidden) + linear(positions, hidden, outputs)
