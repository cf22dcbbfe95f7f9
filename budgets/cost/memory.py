"""Estimate of the memory that a trial needs on each device, used to leave out trials that cannot fit.

Weights, gradients and AdamW's two moments in fp32: 16 bytes a parameter on every device. Adafactor keeps its
first moment in bf16 and factors the second: 10 bytes. A moving average of the weights adds 4.

Activations kept for the backward pass, in bf16, without recomputation and without the attention matrix: 34
bytes per token, width and layer of a transformer (Korthikanti et al. 2022, table 2, without the attention
term). A block has about 12 x width² MACs a token, hence 34 / (12 x width) bytes a MAC; a Mixer's blocks have
the same shape. ConvNeXt, Swin and ResNet have narrow stages with large maps: 0.012 bytes a MAC (computed by
hand: ConvNeXt-T 0.0124, Swin-T 0.0117, ResNet-50 0.011).

The loss holds similarity matrices of the device's own pairs against the batch: 16 bytes an entry in CLIP, 20
in SigLIP, and SimCLR's matrix is twice as high and wide. Beyond `CHUNK_ENTRIES` entries it is computed in
chunks of that many (`runners.training.over_pairs`), of which five are in memory at once. Beside them are the
features of the whole batch in fp32 and their gradients, twice where ranks or chunks add theirs.

Numbers that a strategy keeps by pair are fp32, of all pairs of the subset, on the first device. Columns of
the index are in two batches of the device as they are read, and of the whole batch in fp32 for the loss.

With accumulation, only one part of the batch has activations in memory. With gradient checkpointing, a
transformer layer keeps only its input, 2 of the 34 bytes, and one layer of about twelve is recomputed at a
time: 0.14 of the activations. A tower of stages keeps 0.3. Peaks measured in bf16 (torch's MemTracker) are
0.16 of the plain ones for ViT-B/32, 0.29 for ConvNeXt-T and Swin-T, 0.22 for ConvNeXt-B, 0.18 for Swin-B.
open_clip's ModifiedResNet cannot recompute.

Input images of the device's whole part of the batch stay in memory, also with accumulation: two batches of
bytes, of which one is loading, and fp32 views of one, three with SLIP's. The first layer keeps its bf16
input. In fp32 activations take twice as much. Views are made before the towers run; with many parts this is
the peak (`Strategy.view_bytes`: 22 bytes a pixel in SLIP, 12 of them kept). Fragmentation and communication
buffers are not counted: chosen settings leave a margin (`budgets.planning.resources.MEMORY_SHARE`).
"""

from collections.abc import Sequence

from budgets.cost.architecture import Architecture
from budgets.cost.flops import count_parameters, sample_cost
from budgets.cost.strategy import Strategy
from budgets.declaration.recipe import Recipe

_WEIGHT_BYTES = 4 + 4  # with their gradients
_OPTIMIZER_BYTES = {"adamw": 8, "adafactor": 2}
_AVERAGE_BYTES = 4
_CHECKPOINTED = 2 / 34 + 1 / 12
_CHECKPOINTED_STAGES = 0.3
_BYTES_PER_MAC_OF_STAGES = 0.012
_TRANSFORMERS = frozenset({"vit", "mixer", "eva", "deit", "beit", "vision_transformer_relpos"})
_CHUNKS_AT_ONCE = 5
_FP32 = 2

CHUNK_ENTRIES = 2**25
"""Entries of a similarity matrix that are computed at once: 128 MiB in fp32."""


def memory_bytes(  # noqa: PLR0913 - one a fact that the estimate needs
    architecture: Architecture,
    strategy: Strategy,
    recipe: Recipe,
    *,
    batch_size: int,
    devices: int,
    pairs: int = 0,
    widths: Sequence[int] = (),
    averaged: bool = False,
) -> int:
    """Estimate the bytes on each of ``devices`` that share a whole batch of ``batch_size`` pairs.

    ``pairs`` are those of the subset, ``widths`` those of the strategy's columns as in `ColumnFacts`. With
    ``averaged`` the mean of the weights is taken, as in trials of trunks.
    """
    cost = sample_cost(architecture, strategy, batch_size=batch_size)
    on_device = -(-batch_size // devices)
    per_mac = _BYTES_PER_MAC_OF_STAGES
    if architecture.costs.family in _TRANSFORMERS:
        per_mac = _transformer_bytes_per_mac(architecture.image_tower(1.0).width)
    image = per_mac * (cost.image_macs + cost.head_macs)
    text = _transformer_bytes_per_mac(architecture.costs.text_width) * cost.text_macs
    pixels = 3 * architecture.costs.image_size**2
    views = strategy.image_views
    if recipe.gradient_checkpointing:
        text *= _CHECKPOINTED
        image *= _kept_of_image(architecture)
    activations = image + text + 2 * views * pixels
    if recipe.precision == "fp32":
        activations *= _FP32
    columns = sum(
        2 * width if width > 1 else 8 * (width or architecture.costs.context_length) for width in widths
    )
    step = (
        on_device * 4 * views * pixels
        + -(-on_device // recipe.accumulation) * activations
        + _loss_bytes(architecture, strategy, batch_size=batch_size, on_device=on_device)
    )
    average = _AVERAGE_BYTES if recipe.ema or averaged else 0
    per_parameter = _WEIGHT_BYTES + _OPTIMIZER_BYTES[recipe.optimizer] + average
    return int(
        per_parameter * count_parameters(architecture, strategy).total
        + on_device * 2 * (pixels + columns)
        + batch_size * sum(widths) * 4
        + pairs * len(strategy.pair_state()) * 4
        + max(step, on_device * strategy.configured(recipe).view_bytes * pixels)
    )


def _loss_bytes(architecture: Architecture, strategy: Strategy, *, batch_size: int, on_device: int) -> int:
    """Estimate the bytes of the loss, beside the towers' activations, for the pairs on this device."""
    matrices = strategy.bytes_per_entry * on_device * batch_size
    features = 2 * batch_size * architecture.embed_dim * 4
    return min(matrices, _CHUNKS_AT_ONCE * CHUNK_ENTRIES * 4) + 3 * features


def _kept_of_image(architecture: Architecture) -> float:
    """Return the share of the image tower's activations that gradient checkpointing keeps."""
    family = architecture.costs.family
    if family == "resnet" and "timm_model_name" not in architecture.config["vision_cfg"]:
        return 1
    return _CHECKPOINTED if family in _TRANSFORMERS else _CHECKPOINTED_STAGES


def _transformer_bytes_per_mac(width: int) -> float:
    # 34 bytes per token, width and layer over 12 x width² MACs per token and layer: 34 width / 12 width².
    return 34 / (12 * width)
