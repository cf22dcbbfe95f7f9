"""The projection that open_clip puts on top of a timm trunk."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import TowerCost, linear


def projection(config: Mapping[str, Any], width: int, embed_dim: int) -> TowerCost:
    """Cost of one linear map, or of an MLP with hidden width 2 x ``embed_dim``.

    Args:
        config: A complete ``vision_cfg``; ``timm_proj`` is ``linear`` or ``mlp``.
        width: Number of features that the trunk outputs.
        embed_dim: Width of the shared embedding.
    """
    bias = config["timm_proj_bias"]
    if config["timm_proj"] == "linear":
        return linear(1, width, embed_dim, bias=bias)
    return linear(1, width, 2 * embed_dim) + linear(1, 2 * embed_dim, embed_dim, bias=bias)
