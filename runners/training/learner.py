"""State of a run: weights, optimiser, loss scale, moving average, and losses so far; how it is prepared."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import open_clip
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.optim.adafactor_bv import AdafactorBigVision
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from budgets.cost.strategy import Strategy
from budgets.declaration.recipe import Recipe
from runners.training.pair_state import PairState
from runners.training.ranks import rank_count

Modules = TypeVar("Modules", bound=nn.Module)

_EMBEDDINGS = frozenset({
    "positional_embedding", "class_embedding", "cls_emb", "pos_embed", "cls_token", "reg_token",
    "relative_position_bias_table",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A model in training, with everything that a checkpoint holds.

    ``across`` wraps the towers and averages gradients over ranks in the backward pass; it is None for one
    rank. ``losses`` has that of each step, (steps,), on the model's device; NaN for steps not done yet.
    """

    model: open_clip.CLIP
    strategy: Strategy
    modules: nn.ModuleDict  # all that is trained: the model and the strategy's head
    optimizer: torch.optim.Optimizer
    scaler: GradScaler | None  # the loss scale of fp16
    across: DistributedDataParallel | None
    average: AveragedModel | None  # of the model's weights
    cooled: bool  # unlike a trial of a trunk
    by_pair: PairState | None  # of a strategy that keeps numbers by pair
    losses: Tensor

    @property
    def evaluated(self) -> open_clip.CLIP:
        """Model whose weights are the run's result; a trial of a trunk has its average beside it."""
        return self.model if self.average is None or not self.cooled else self.average.module

    @property
    def parameters(self) -> list[Tensor]:
        """All that is trained."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def features(self, *views: Tensor) -> tuple[Tensor, ...]:
        """Run the strategy's towers on the views of some pairs of this rank."""
        towers = _Towers(self.modules) if self.across is None else self.across
        features: tuple[Tensor, ...] = towers(self.strategy, *views)
        return features

    def before_exchange(self) -> AbstractContextManager[None]:
        """Return the context in which gradients are not exchanged, for all parts but the last."""
        return nullcontext() if self.across is None else self.across.no_sync()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the losses; no random state, because each step draws from its own seed."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore everything but the losses."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        names = "modules", "optimizer", "scaler", "average", "by_pair"
        return {name: part for name in names if (part := getattr(self, name)) is not None}


def batch_norm_of_all_ranks(modules: Modules) -> Modules:
    """Return modules whose batch norm takes the statistics of all ranks' batches."""
    # torch's own converter would drop the activations that timm's layers hold.
    converted: Modules = convert_sync_batchnorm(modules)  # type: ignore[no-untyped-call]
    return converted


def make_learner(  # noqa: PLR0913 - the parts of a run
    model: open_clip.CLIP,
    strategy: Strategy,
    head: nn.Module | None = None,
    *,
    recipe: Recipe,
    lr_peak: float,
    steps: int,
    pairs: int = 0,
    precision: str = "fp32",
) -> Learner:
    """Prepare a model, on its device, for a run on some pairs; a head of the strategy is moved there.

    Raises:
        ValueError: The model has batch norm and several ranks, but no GPUs.
    """
    device = model.logit_scale.device
    modules = nn.ModuleDict({"model": model} | ({} if head is None else {"head": head.to(device)}))
    if rank_count() > 1 and any(isinstance(layer, _BatchNorm) for layer in modules.modules()):
        if device.type != "cuda":
            raise ValueError("batch norm over several ranks needs GPUs; declare one rank for the trial")
        modules = batch_norm_of_all_ranks(modules)
    average = None
    if recipe.ema:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    elif not recipe.cooled:
        average = AveragedModel(model)  # their mean
    if recipe.gradient_checkpointing:
        model.set_grad_checkpointing()
    if recipe.compile:
        # Its own generator would drop other patches than an uncompiled tower does.
        torch._inductor.config.fallback_random = True  # noqa: SLF001 - torch's name of the setting
        model.visual.compile()
        # A CLIP holds the parts of its text tower itself; any other tower is a module of its own.
        (model.transformer if hasattr(model, "transformer") else model.text).compile()
    apart = strategy.temperature_rate(lr_peak, model.logit_scale.detach()) is not None
    temperature = model.logit_scale if apart else None
    across = None
    if rank_count() > 1:
        if recipe.compile and recipe.gradient_checkpointing:
            # By default torch splits a graph where gradients are exchanged; it cannot split one that
            # recomputes activations, and raises an error. Whole graphs exchange gradients at their end.
            torch._dynamo.config.optimize_ddp = False  # noqa: SLF001 - the setting that torch's error names
        across = DistributedDataParallel(_Towers(modules))
    initial = strategy.pair_state()
    return Learner(
        model=model,
        strategy=strategy,
        modules=modules,
        optimizer=make_optimizer(modules, recipe, lr_peak=lr_peak, temperature=temperature),
        scaler=GradScaler(device.type) if precision == "fp16" else None,
        across=across,
        average=average,
        cooled=recipe.cooled,
        by_pair=PairState(initial, pairs, device) if initial else None,
        losses=torch.full((steps,), float("nan"), device=device),
    )


class _Towers(nn.Module):
    """A strategy's forward pass as a module, as DistributedDataParallel requires."""

    def __init__(self, modules: nn.ModuleDict) -> None:
        super().__init__()
        self.modules_trained = modules

    def forward(self, strategy: Strategy, *views: Tensor) -> tuple[Tensor, ...]:
        model, *head = self.modules_trained.values()
        return strategy.features(model, head[0] if head else None, *views)


def make_optimizer(
    modules: nn.Module, recipe: Recipe, *, lr_peak: float, temperature: Tensor | None = None
) -> torch.optim.Optimizer:
    """Build the recipe's optimiser; gains, biases and the temperature have no weight decay, as in open_clip.

    Without ``embedding_decay`` positions and token embeddings have none either. open_clip also leaves out
    Swin's tables of relative positions, which here count as positions.

    Adafactor is timm's port of big_vision's, which the paper trained with; torch's own has neither a first
    moment nor absolute step sizes. A ``temperature`` with a learning rate of its own is the last group.
    """
    apart = set[Tensor]() if recipe.embedding_decay else _embeddings(modules)
    parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
    matrices = [weights for weights in parameters if weights.ndim > 1 and weights not in apart]
    others = [weights for weights in parameters if weights.ndim <= 1 or weights in apart]
    alone = [weights for weights in others if weights is temperature]
    others = [weights for weights in others if weights is not temperature]
    decay = recipe.weight_decay
    if recipe.optimizer == "adafactor":
        decay /= lr_peak  # timm multiplies decay by the learning rate, big_vision by learning rate / peak
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    if alone:
        groups.append({"params": alone, "weight_decay": 0.0})
    if recipe.optimizer == "adafactor":
        adafactor: torch.optim.Optimizer = AdafactorBigVision(
            groups, lr=lr_peak, momentum=recipe.beta1, beta2_cap=recipe.beta2
        )
        return adafactor
    return torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=True)


def _embeddings(modules: nn.Module) -> set[Tensor]:
    """Return positions, class tokens and token embeddings of open_clip's and timm's towers."""
    tables: set[Tensor] = {layer.weight for layer in modules.modules() if isinstance(layer, nn.Embedding)}
    named = {part for name, part in modules.named_parameters() if name.rpartition(".")[2] in _EMBEDDINGS}
    return tables | named
