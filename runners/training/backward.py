"""Loss and gradients of a batch, at once or in parts and over ranks with the loss of the whole batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from runners.host.seeds import derive_seed, seed_global
from runners.models.model import attention_context, full_precision
from runners.training.learner import Learner
from runners.training.ranks import gather, rank, rank_count, sum_over_ranks

Context = Callable[[], AbstractContextManager[object]]
"""Returns the context of a forward pass: its precision and attention."""


def backward(learner: Learner, views: Sequence[Tensor], context: Context) -> Tensor:
    """Compute the gradients of a batch at once; return the loss, a scalar without a graph."""
    strategy, model = learner.strategy, learner.model
    with context():
        loss = strategy.loss(model, *strategy.features(model, *views))
    with attention_context(loss.device):
        _scaled(learner, loss).backward()
    return loss.detach()


def backward_in_parts(
    learner: Learner, views: Sequence[Tensor], context: Context, *, parts: int, seed: int
) -> Tensor:
    """Compute the gradients of a batch split into parts and over ranks, with the loss of the whole batch.

    First pass: features of all parts, without a graph. Each rank computes its rows of the loss of all ranks'
    features and the gradients of its own (`runners.strategies.row_loss`). Second pass: each part runs again
    with a graph and propagates its features' gradients to the weights (Gao et al. 2021, arXiv 2101.06983;
    like open_clip's ``accum_freq``, but with the temperature's gradient counted once). Loss and gradients
    equal those of the whole batch, except for batch norm, which sees one part of all ranks at a time. With a
    single part per rank the first pass keeps its graph and is not repeated.

    ``views`` are those of this rank's pairs; the seed is that of the step and rank. Returns the loss, a
    scalar without a graph, the same on all ranks.
    """
    strategy, model = learner.strategy, learner.model
    pieces = list(zip(*(view.chunk(parts) for view in views), strict=True))

    def features(part: int) -> tuple[Tensor, ...]:
        # Patch dropout draws from the global generator: the same seed gives the same patches in both passes.
        seed_global(derive_seed(seed, "part", part))
        with context():
            return learner.features(*pieces[part])

    with torch.set_grad_enabled(parts == 1):
        cached = [features(part) for part in range(parts)]
    joined = [torch.cat(features_of_parts).detach() for features_of_parts in zip(*cached, strict=True)]
    with torch.no_grad(), full_precision(joined[0].device):
        rows = strategy.row_loss(model, joined, gather, rank() * len(joined[0]))
    # DistributedDataParallel averages over ranks, and each rank holds its own share of the gradients: the
    # factor `rank_count()` turns the average back into the sum.
    factor = _scaled(learner, torch.full((), float(rank_count()), device=rows.share.device))
    # With the scale exp(p), ∂L/∂p = scale · ∂L/∂scale.
    parameters = ((model.logit_scale, model.logit_scale.exp() * rows.scale), (model.logit_bias, rows.bias))
    direct = {
        parameter: (factor * slope).reshape(parameter.shape)
        for parameter, slope in parameters
        if parameter is not None
    }
    gradients = [
        (factor * slope).to(feature.dtype).chunk(parts)
        for feature, slope in zip(joined, rows.features, strict=True)
    ]
    for part, gradient in enumerate(zip(*gradients, strict=True)):
        last = part == parts - 1
        # Gradients are exchanged once, in the backward pass of the last part.
        with nullcontext() if last else learner.before_exchange():
            outputs = cached[part] if parts == 1 else features(part)
            roots = (*outputs, *direct) if last else outputs
            values = (*gradient, *direct.values()) if last else gradient
            with attention_context(factor.device):
                torch.autograd.backward(roots, values)
    return sum_over_ranks(rows.share)


def _scaled(learner: Learner, loss: Tensor) -> Tensor:
    return loss if learner.scaler is None else learner.scaler.scale(loss)
