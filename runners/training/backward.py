"""Loss and gradients of a batch, at once or in parts and over ranks with the loss of the whole batch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from runners.host.seeds import derive_seed
from runners.models.model import attention_context
from runners.training.learner import Learner
from runners.training.ranks import gather, rank, ranks

Context = Callable[[], AbstractContextManager[object]]


def backward(learner: Learner, views: Sequence[Tensor], context: Context) -> Tensor:
    """Compute the gradients of a batch at once.

    Args:
        learner: The learner whose parameters receive gradients.
        views: Inputs of the strategy's towers.
        context: Precision and attention of the forward pass.

    Returns:
        The loss, a scalar without a graph.
    """
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

    First pass: features of all parts, without a graph, gathered from all ranks. The loss of all features
    gives the gradient of each feature. Second pass: each part runs again with a graph and propagates its
    features' gradients to the weights (Gao et al. 2021, arXiv 2101.06983; like open_clip's ``accum_freq``,
    but with the temperature's gradient counted once). Loss and gradients equal those of the whole batch,
    except for batch norm, which sees one part of all ranks at a time. With a single part per rank the first
    pass keeps its graph and is not repeated.

    Args:
        learner: The learner whose parameters receive gradients.
        views: Inputs of the strategy's towers for this rank's pairs.
        context: Precision and attention of the forward pass.
        parts: Number of parts.
        seed: Seed of the step and rank; both passes of a part drop the same patches.

    Returns:
        The loss, a scalar without a graph; the same on all ranks.
    """
    strategy, model = learner.strategy, learner.model
    pieces = list(zip(*(view.chunk(parts) for view in views), strict=True))

    def features(part: int) -> tuple[Tensor, ...]:
        # Patch dropout draws from the global generator: the same seed gives the same patches in both passes.
        torch.manual_seed(derive_seed(seed, "part", part))
        with context():
            return learner.features(*pieces[part])

    with torch.set_grad_enabled(parts == 1):
        cached = [features(part) for part in range(parts)]
    # Leaves of the graph: the loss's gradient with respect to each feature is computed, not beyond.
    whole = [gather(torch.cat(each)).requires_grad_() for each in zip(*cached, strict=True)]
    with context():
        loss = strategy.loss(model, *whole)
    # Every rank has the gradient of the parameters that the loss reads directly; averaging keeps it.
    direct = [each for each in (model.logit_scale, model.logit_bias) if each is not None]
    gradients = torch.autograd.grad(_scaled(learner, loss), [*whole, *direct])
    # DistributedDataParallel averages over ranks, but each rank holds only its own features' share of the
    # gradient: the factor `ranks()` turns the average back into the sum.
    own = [each.chunk(ranks())[rank()].mul(ranks()).chunk(parts) for each in gradients[: len(whole)]]
    for part, gradient in enumerate(zip(*own, strict=True)):
        last = part == parts - 1
        # Gradients are exchanged once, in the backward pass of the last part.
        with nullcontext() if last else learner.before_exchange():
            outputs = cached[part] if parts == 1 else features(part)
            roots = (*outputs, *direct) if last else outputs
            values = (*gradient, *gradients[len(whole) :]) if last else gradient
            with attention_context(loss.device):
                torch.autograd.backward(roots, values)
    return loss.detach()


def _scaled(learner: Learner, loss: Tensor) -> Tensor:
    return loss if learner.scaler is None else learner.scaler.scale(loss)
