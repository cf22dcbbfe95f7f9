"""Estimate of the memory that a trial needs on each device, used to leave out trials that cannot fit.

Weights, gradients and AdamW's two moments in fp32: 16 bytes a parameter on every device. Adafactor keeps its
first moment in bf16 and factors the second: 10 bytes. A moving average of the weights adds 4.

Activations kept for the backward pass, in bf16, without recomputation and without the attention matrix: 34
bytes per token, width and layer of a transformer (Korthikanti et al. 2022, table 2, without the attention
term). A block has about 12 x width² MACs a token, hence 34 / (12 x width) bytes a MAC; a Mixer's blocks have
the same shape. ConvNeXt, Swin and ResNet have narrow stages with large maps: 0.012 bytes a MAC (computed by
hand: ConvNeXt-T 0.0124, Swin-T 0.0117, ResNet-50 0.011). The loss's similarity matrices come on top: each
device's share of the batch against the whole batch.

With accumulation, only one part of the batch has activations in memory. With gradient checkpointing, a
transformer layer keeps only its input, 2 of the 34 bytes. Fragmentation, input images and communication
buffers are not counted, so a trial close to the limit may still not fit.
"""

from budgets.cost.architecture import Architecture
from budgets.cost.flops import parameters, sample_cost
from budgets.cost.model_config import complete
from budgets.cost.strategy import Strategy
from budgets.recipe import Recipe

_WEIGHT_BYTES = 4 + 4  # with their gradients
_OPTIMIZER_BYTES = {"adamw": 8, "adafactor": 2}
_EMA_BYTES = 4
_CHECKPOINTED = 2 / 34
_BYTES_PER_MAC_OF_STAGES = 0.012
_TRANSFORMERS = frozenset({"vit", "mixer"})
_LOGIT_BYTES = 4 * 2  # fp32, with their gradients


def memory_bytes(
    architecture: Architecture, strategy: Strategy, recipe: Recipe, *, batch_size: int, devices: int
) -> int:
    """Estimate the memory of each device, in bytes.

    Args:
        architecture: Both towers.
        strategy: A strategy that applies to the architecture.
        recipe: The optimisation settings.
        batch_size: Pairs in the whole batch.
        devices: Devices that share the batch.
    """
    cost = sample_cost(architecture, strategy, batch_size=batch_size)
    here = -(-batch_size // devices)
    image = _image_bytes_per_mac(architecture) * (cost.image_macs + cost.head_macs)
    text = _transformer_bytes_per_mac(int(complete(architecture.config).text["width"])) * cost.text_macs
    matrices = (1 if strategy.sigmoid_loss else 2) + (4 if strategy.self_supervised_head else 0)
    if recipe.gradient_checkpointing:
        text *= _CHECKPOINTED
        image *= _CHECKPOINTED if architecture.family in _TRANSFORMERS else 1
    per_parameter = _WEIGHT_BYTES + _OPTIMIZER_BYTES[recipe.optimizer] + (_EMA_BYTES if recipe.ema else 0)
    return int(
        per_parameter * parameters(architecture, strategy).total
        + -(-here // recipe.accumulation) * (image + text)
        + here * batch_size * matrices * _LOGIT_BYTES
    )


def _image_bytes_per_mac(architecture: Architecture) -> float:
    if architecture.family in _TRANSFORMERS:
        return _transformer_bytes_per_mac(architecture.image_tower(1.0).width)
    return _BYTES_PER_MAC_OF_STAGES


def _transformer_bytes_per_mac(width: int) -> float:
    return 34 / (12 * width)
