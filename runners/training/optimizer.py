"""Optimisers."""

import torch
from timm.optim.adafactor_bv import AdafactorBigVision
from torch import Tensor, nn

from budgets.declaration.recipe import Recipe

_EMBEDDINGS = frozenset({
    "positional_embedding", "class_embedding", "cls_emb", "pos_embed", "cls_token", "reg_token",
    "relative_position_bias_table",
})  # fmt: skip


def make_optimizer(modules: nn.Module, recipe: Recipe, *, lr_peak: float) -> torch.optim.Optimizer:
    """Build the recipe's optimiser; gains, biases and the temperature have no weight decay, as in open_clip.

    open_clip also leaves out Swin's tables of relative positions, which here count as positions.

    Without ``embedding_decay`` positions and token embeddings have none either.

    Adafactor is timm's port of big_vision's, which the paper trained with; torch's own has neither a first
    moment nor absolute step sizes.
    """
    apart = set[Tensor]() if recipe.embedding_decay else _embeddings(modules)
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    matrices = [each for each in parameters if each.ndim > 1 and each not in apart]
    others = [each for each in parameters if each.ndim <= 1 or each in apart]
    decay = recipe.weight_decay
    if recipe.optimizer == "adafactor":
        decay /= lr_peak  # timm multiplies decay by the learning rate, big_vision by learning rate / peak
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    if recipe.optimizer == "adafactor":
        adafactor: torch.optim.Optimizer = AdafactorBigVision(
            groups, lr=lr_peak, momentum=recipe.beta1, beta2_cap=recipe.beta2
        )
        return adafactor
    return torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True)


def _embeddings(modules: nn.Module) -> set[Tensor]:
    """Return positions, class tokens and token embeddings of open_clip's and timm's towers."""
    tables: set[Tensor] = {each.weight for each in modules.modules() if isinstance(each, nn.Embedding)}
    named = {each for name, each in modules.named_parameters() if name.rpartition(".")[2] in _EMBEDDINGS}
    return tables | named
