"""Loss and gradients of a batch: at once, or part by part with the loss of the whole."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from runners.learner import Learner
from runners.model import attention_context
from runners.seeds import derive_seed

Context = Callable[[], AbstractContextManager[object]]


def backward(learner: Learner, views: Sequence[Tensor], context: Context) -> Tensor:
    """Computes the gradients of a batch at once.

    Args:
        learner: Whose parameters get their gradients.
        views: What the strategy's towers see.
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
    """Computes the gradients of a batch with the activations of one part of it at a time.

    The features of all parts come first, without a graph; the loss of all of them together gives the
    gradient of each feature; then each part runs once more and passes its own on to the weights (Gao et al.
    2021, arXiv 2101.06983; as open_clip's ``accum_freq``, with the temperature's gradient counted once).
    Loss and gradients are those of the whole batch, but for batch norm, which sees each part by itself.

    Args:
        learner: Whose parameters get their gradients.
        views: What the strategy's towers see.
        context: Precision and attention of the forward pass.
        parts: Number of parts.
        seed: Of the step; both passes of a part drop the same patches.

    Returns:
        The loss, a scalar without a graph.
    """
    strategy, model = learner.strategy, learner.model
    pieces = list(zip(*(view.chunk(parts) for view in views), strict=True))

    def features(part: int) -> tuple[Tensor, ...]:
        torch.manual_seed(derive_seed(seed, "part", part))
        with context():
            return strategy.features(model, *pieces[part])

    with torch.no_grad():
        cached = [features(part) for part in range(len(pieces))]
    whole = [torch.cat(each).requires_grad_() for each in zip(*cached, strict=True)]
    with context():
        loss = strategy.loss(model, *whole)
    _scaled(learner, loss).backward()
    gradients = zip(*(each.grad.chunk(parts) for each in whole if each.grad is not None), strict=True)
    for part, gradient in enumerate(gradients):
        outputs = features(part)
        with attention_context(loss.device):
            torch.autograd.backward(outputs, gradient)
    return loss.detach()


def _scaled(learner: Learner, loss: Tensor) -> Tensor:
    return loss if learner.scaler is None else learner.scaler.scale(loss)
