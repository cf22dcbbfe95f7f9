"""How much memory a trial takes on each of its devices: an estimate, to leave out what can't fit.

Weights, gradients and AdamW's two moments in fp32: 16 bytes a parameter, the same on every device.
Activations that wait for the backward pass, in bf16, none recomputed and no attention matrix kept: 34 bytes a
token, width and layer of a transformer (Korthikanti et al. 2022, table 2, without the attention term), which
is 34 / (12 x width) bytes a MAC of its blocks; a Mixer's blocks have that shape. ConvNeXt, Swin and ResNet
have narrow stages with large maps: 0.012 bytes a MAC (by hand: ConvNeXt-T 0.0124, Swin-T 0.0117, ResNet-50
0.011). Beside them the similarity matrices of the loss, each device's share of the batch against all of it.
Fragmentation, the input images and communication buffers are left out: a trial that is close to the limit may
still not fit.
"""

from budgets.architecture import Architecture
from budgets.flops import parameters, sample_cost
from budgets.model_config import complete
from budgets.strategy import Strategy

_BYTES_PER_PARAMETER = 4 + 4 + 8
_BYTES_PER_MAC_OF_STAGES = 0.012
_LOGIT_BYTES = 4 * 2  # fp32, with their gradients


def memory_bytes(architecture: Architecture, strategy: Strategy, *, batch_size: int, devices: int) -> int:
    """Estimates the memory of each device.

    Args:
        architecture: Both towers.
        strategy: One that applies to the architecture.
        batch_size: Pairs in the whole batch.
        devices: Devices that share the batch.
    """
    cost = sample_cost(architecture, strategy, batch_size=batch_size)
    here = -(-batch_size // devices)
    image = _image_bytes_per_mac(architecture) * (cost.image_macs + cost.head_macs)
    text = _transformer_bytes_per_mac(int(complete(architecture.config).text["width"])) * cost.text_macs
    matrices = (1 if strategy.sigmoid_loss else 2) + (4 if strategy.self_supervised_head else 0)
    return int(
        _BYTES_PER_PARAMETER * parameters(architecture, strategy).total
        + here * (image + text)
        + here * batch_size * matrices * _LOGIT_BYTES
    )


def _image_bytes_per_mac(architecture: Architecture) -> float:
    if architecture.family in {"vit", "mixer"}:
        return _transformer_bytes_per_mac(architecture.image_tower(1.0).width)
    return _BYTES_PER_MAC_OF_STAGES


def _transformer_bytes_per_mac(width: int) -> float:
    return 34 / (12 * width)
