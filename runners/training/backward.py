"""Loss and gradients of a batch, at once or in parts and over ranks, with the loss of the whole batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import open_clip
import torch
from torch import Tensor
from torch.amp import GradScaler

from budgets.cost.strategy import PairValues, Strategy
from runners.host.seeds import derive_seed, seed_global
from runners.models.model import attention_context, full_precision
from runners.training.learner import Learner
from runners.training.ranks import gather, rank, rank_count, sum_over_ranks

Context = Callable[[], AbstractContextManager[object]]
"""Returns the context of a forward pass: its precision and attention."""


def backward(  # noqa: PLR0913 - the parts of a step
    learner: Learner,
    views: Sequence[Tensor],
    context: Context,
    *,
    parts: int = 1,
    seed: int = 0,
    values: PairValues | None = None,
) -> Tensor:
    """Compute the gradients of a batch split into parts and over ranks, with the loss of the whole batch.

    First pass: features of all parts, without a graph. The loss of all ranks' features gives the gradients of
    this rank's. Second pass: each part runs again with a graph and propagates its features' gradients to the
    weights (Gao et al. 2021, arXiv 2101.06983; like open_clip's ``accum_freq``, but with the temperature's
    gradient counted once). Loss and gradients equal those of the whole batch, except for batch norm, which
    sees one part of all ranks at a time. A single part keeps its graph in the first pass and is not repeated.

    ``views`` are those of this rank's pairs, ``values`` what the strategy keeps by pair, of all ranks' pairs;
    the seed is that of the step and rank. Returns the loss, a scalar without a graph, the same on all ranks.
    """
    pieces = list(zip(*(view.chunk(parts) for view in views), strict=True))

    def features(part: int) -> tuple[Tensor, ...]:
        if parts > 1:  # patch dropout draws from the global generator: both passes keep the same patches
            seed_global(derive_seed(seed, "part", part))
        with context():
            return learner.features(*pieces[part])

    with torch.set_grad_enabled(parts == 1):
        cached = [features(part) for part in range(parts)]
    local = list(cached[0])
    if parts > 1:
        local = [
            torch.cat(side).requires_grad_(side[0].is_floating_point()) for side in zip(*cached, strict=True)
        ]
    loss, of_features, direct = joint_loss(
        learner.strategy, learner.model, local, learner.parameters, scaler=learner.scaler, values=values
    )
    # DistributedDataParallel takes the mean of the ranks' gradients: of their pairs' it has to be the sum.
    slopes = [() if slope is None else (rank_count() * slope).chunk(parts) for slope in of_features]
    for part in range(parts):
        last = part == parts - 1
        # Gradients are exchanged once, in the backward pass of the last part.
        with nullcontext() if last else learner.before_exchange():
            outputs = zip(cached[0] if parts == 1 else features(part), slopes, strict=True)
            roots = [(output, slope[part]) for output, slope in outputs if slope and output.requires_grad]
            roots += direct if last else []
            with attention_context(loss.device):
                torch.autograd.backward([root for root, _ in roots], [slope for _, slope in roots])
    return loss


def joint_loss(  # noqa: PLR0913 - the parts of a step
    strategy: Strategy,
    model: open_clip.CLIP,
    local: Sequence[Tensor],
    parameters: Sequence[Tensor],
    *,
    scaler: GradScaler | None = None,
    values: PairValues | None = None,
) -> tuple[Tensor, list[Tensor | None], list[tuple[Tensor, Tensor]]]:
    """Compute the loss of all ranks' pairs in fp32, from the features of this rank's.

    Returns the loss; its gradients by these features, None for one that requires none; and the parameters
    that the loss uses directly, each with a value whose mean over ranks is its gradient. The scaler of fp16
    scales all gradients.
    """
    count, first = len(local[0]), rank() * len(local[0])
    everyone = [gather(feature) for feature in local]
    everyone = [feature.float() if feature.is_floating_point() else feature for feature in everyone]
    wanted = [number for number, feature in enumerate(local) if feature.requires_grad]
    inputs = [*(everyone[number].requires_grad_() for number in wanted), *parameters]
    with torch.enable_grad(), full_precision(local[0].device):
        if values is None:
            loss = strategy.loss(model, *everyone)
        else:
            loss = strategy.loss_by_pair(model, values, *everyone)
        scaled = loss if scaler is None else scaler.scale(loss)
        slopes = torch.autograd.grad(scaled, inputs, allow_unused=True)
    gradients: list[Tensor | None] = [None] * len(local)
    for number, slope in zip(wanted, slopes, strict=False):
        if slope is not None:
            mean = sum_over_ranks(slope)[first : first + count] / rank_count()
            gradients[number] = mean.to(local[number].dtype)
    direct = [
        # DistributedDataParallel waits for all parameters, also for logits' that the loss does not use.
        (parameter, torch.zeros_like(parameter) if slope is None else slope)
        for parameter, slope in zip(parameters, slopes[len(wanted) :], strict=True)
        if slope is not None or parameter is model.logit_scale or parameter is model.logit_bias
    ]
    return loss.detach(), gradients, direct
