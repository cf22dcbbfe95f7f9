"""open_clip's text transformer (Radford et al. 2021)."""

from collections.abc import Mapping
from typing import Any

from budgets.cost.towers.count import TowerCost, linear, norm, transformer_block


def text_tower(config: Mapping[str, Any], embed_dim: int, tokens: int) -> TowerCost:
    """Cost of the transformer on all tokens, padding included, and of the projection of one pooled token.

    Args:
        config: A complete ``text_cfg``.
        embed_dim: Width of the shared embedding.
        tokens: Length of the text in training; the parameters are always those of the full context.
    """
    width = int(config["width"])
    block = transformer_block(
        tokens, width, int(width * config["mlp_ratio"]), layer_scale=config["ls_init_value"] is not None
    )
    embeddings = (config["vocab_size"] + config["context_length"]) * width
    return (
        TowerCost(0, embeddings)
        + block * int(config["layers"])
        + norm(width)
        + linear(1, width, embed_dim, bias=config["proj_bias"])
    )
