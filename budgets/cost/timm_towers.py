"""Towers of timm that have a closed form: ConvNeXt, Swin and MLP-Mixer.

Each has its models' own settings by timm's name, and the cost of a tower. Configs are complete
``vision_cfg`` with ``timm_model_kwargs``, see `budgets.cost.model_config`; ``embed_dim`` is the width of the
shared embedding.
"""

from collections.abc import Mapping
from typing import Any

from budgets.cost.layers import ImageTower, TowerCost, convolution, depthwise_convolution, linear, mlp, norm

CONVNEXTS: Mapping[str, Mapping[str, Any]] = {
    "convnext_atto": {"depths": (2, 2, 6, 2), "dims": (40, 80, 160, 320), "patch_size": 4},
    "convnext_femto": {"depths": (2, 2, 6, 2), "dims": (48, 96, 192, 384), "patch_size": 4},
    "convnext_pico": {"depths": (2, 2, 6, 2), "dims": (64, 128, 256, 512), "patch_size": 4},
    "convnext_nano": {"depths": (2, 2, 8, 2), "dims": (80, 160, 320, 640), "patch_size": 4},
    "convnext_tiny": {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768), "patch_size": 4},
    "convnext_small": {"depths": (3, 3, 27, 3), "dims": (96, 192, 384, 768), "patch_size": 4},
    "convnext_base": {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024), "patch_size": 4},
    "convnext_large": {"depths": (3, 3, 27, 3), "dims": (192, 384, 768, 1536), "patch_size": 4},
    "convnext_xlarge": {"depths": (3, 3, 27, 3), "dims": (256, 512, 1024, 2048), "patch_size": 4},
    "convnext_xxlarge": {"depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072), "patch_size": 4},
}
CONVNEXT_STEMS = (2, 4)  # patch sizes of the stem for which timm keeps an output stride of 32 or less
SMALLEST_CONVNEXT_IMAGE = 32
_CONVNEXT_KERNEL = 7


def convnext_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of a ConvNeXt (Liu et al. 2022): patch stem, four stages, pooling and norm.

    Each stage halves the side; the first one only after a stem of patch size 2.
    """
    model = config["timm_model_kwargs"]
    dims, patch = model["dims"], model["patch_size"]
    side = config["image_size"] // patch
    trunk = linear(side * side, 3 * patch * patch, dims[0]) + norm(dims[0])
    inputs = dims[0]
    for stage, (width, depth) in enumerate(zip(dims, model["depths"], strict=True)):
        if stage > 0 or patch == 2:  # noqa: PLR2004 - timm's own rule
            side //= 2
            trunk += norm(inputs) + convolution(side, inputs, width, 2, bias=True)
        trunk += _convnext_block(side, width) * depth
        inputs = width
    trunk += norm(inputs)
    return ImageTower(trunk=trunk, projection=_projection(config, inputs, embed_dim), width=inputs)


def _convnext_block(side: int, width: int) -> TowerCost:
    """Cost of a depthwise convolution, norm, MLP of hidden width 4 x width, and layer scale."""
    return (
        depthwise_convolution(side, width, _CONVNEXT_KERNEL)
        + norm(width)
        + mlp(side * side, width, 4 * width, width)
        + TowerCost(0, width)
    )


def _swin(
    embed_dim: int, depths: tuple[int, ...], heads: tuple[int, ...], window: int, image: int
) -> Mapping[str, Any]:
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "patch_size": 4,
        "window_size": window,
        "img_size": image,
    }


SWINS: Mapping[str, Mapping[str, Any]] = {
    "swin_tiny_patch4_window7_224": _swin(96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 224),
    "swin_small_patch4_window7_224": _swin(96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 224),
    "swin_base_patch4_window7_224": _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 224),
    "swin_base_patch4_window12_384": _swin(128, (2, 2, 18, 2), (4, 8, 16, 32), 12, 384),
    "swin_large_patch4_window7_224": _swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 7, 224),
    "swin_large_patch4_window12_384": _swin(192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 384),
}


def swin_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of a Swin transformer (Liu et al. 2021): patch embedding, four stages, norm and pooling.

    Patches are merged before all stages but the first.
    """
    model = config["timm_model_kwargs"]
    patch, width = model["patch_size"], model["embed_dim"]
    side = config["image_size"] // patch
    trunk = linear(side * side, 3 * patch * patch, width) + norm(width)
    for stage, (depth, heads) in enumerate(zip(model["depths"], model["num_heads"], strict=True)):
        if stage > 0:
            side = (side + 1) // 2
            trunk += norm(4 * width) + linear(side * side, 4 * width, 2 * width, bias=False)
            width *= 2
        trunk += _swin_block(side, width, heads, min(side, model["window_size"])) * depth
    trunk += norm(width)
    return ImageTower(trunk=trunk, projection=_projection(config, width, embed_dim), width=width)


def _swin_block(side: int, width: int, heads: int, window: int) -> TowerCost:
    """Windowed attention over a grid padded to whole windows (shifts cost nothing), then an unpadded MLP."""
    padded = -(-side // window) * window
    # Each position attends to the window² positions of its window: two products of as many MACs as the width.
    positions = padded * padded
    in_windows = 2 * positions * window * window * width
    position_bias = heads * (2 * window - 1) ** 2
    return (
        norm(width) * 2
        + linear(positions, width, 3 * width)
        + TowerCost(in_windows, position_bias)
        + linear(positions, width, width)
        + mlp(side * side, width, 4 * width, width)
    )


MIXERS: Mapping[str, Mapping[str, Any]] = {
    f"mixer_{size}{patch}_224": {
        "embed_dim": width,
        "num_blocks": blocks,
        "patch_size": patch,
        "img_size": 224,
    }
    for size, width, blocks in (("s", 512, 8), ("b", 768, 12), ("l", 1024, 24))
    for patch in (16, 32)
}

FIXED_OF_MIXERS = frozenset({"embed_dim", "num_blocks", "patch_size"})
"""Settings that timm's entry of a Mixer passes itself, so that they cannot be given."""


def mixer_tower(config: Mapping[str, Any], embed_dim: int) -> ImageTower:
    """Cost of an MLP-Mixer (Tolstikhin et al. 2021): patch embedding and blocks.

    A block has an MLP over the patches (hidden size width / 2) and one over the channels (4 x width).
    """
    model = config["timm_model_kwargs"]
    patch, width = model["patch_size"], model["embed_dim"]
    patches = (config["image_size"] // patch) ** 2
    block = norm(width) * 2 + mlp(width, patches, width // 2, patches) + mlp(patches, width, 4 * width, width)
    trunk = linear(patches, 3 * patch * patch, width) + block * model["num_blocks"] + norm(width)
    return ImageTower(trunk=trunk, projection=_projection(config, width, embed_dim), width=width)


def _projection(config: Mapping[str, Any], width: int, embed_dim: int) -> TowerCost:
    """open_clip's projection on a timm trunk: linear, or an MLP of hidden width 2 x ``embed_dim``."""
    bias = config["timm_proj_bias"]
    if config["timm_proj"] == "linear":
        return linear(1, width, embed_dim, bias=bias)
    return linear(1, width, 2 * embed_dim) + linear(1, 2 * embed_dim, embed_dim, bias=bias)
