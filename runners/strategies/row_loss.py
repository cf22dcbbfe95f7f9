"""Losses of a batch by rows: each rank its own, in chunks, so that no process holds the whole matrix.

The similarity matrix S of a batch of B pairs has B² entries. A rank with b of the pairs computes its b rows
of S and its b rows of Sᵀ, a chunk at a time, and the gradients of its own features alone; work and memory
fall with the number of ranks. Softmax losses need the log-sum-exp of every row and column: B numbers each,
which the ranks exchange. Everything is computed in fp32, whatever the towers compute in.

With P = softmax of the rows of S and Q = softmax of its columns, the symmetric cross-entropy has
∂L/∂S = (P + Q − 2·I) / 2B (Radford et al. 2021, figure 3); the sigmoid loss has ∂L/∂z = −y·sigmoid(−y·z) / B
with y = 1 on the diagonal and −1 elsewhere (Zhai et al. 2023, equation 1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from budgets.cost.memory import CHUNK_ENTRIES

Gather = Callable[[Tensor], Tensor]
"""Joins the tensors of all ranks along their first dimension, in the order of ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLoss:
    """A rank's share of a loss, with its gradients; the shares of all ranks sum to the loss of the batch."""

    share: Tensor
    features: tuple[Tensor, ...]  # gradients of the loss of the batch with respect to this rank's features
    scale: Tensor | float = 0.0  # this rank's share, with respect to the logit scale (not its logarithm)
    bias: Tensor | float = 0.0  # the same for the logit bias


def softmax_row_loss(image: Tensor, text: Tensor, scale: Tensor, gather: Gather, first: int) -> RowLoss:
    """Compute CLIP's symmetric cross-entropy of this rank's normalised features, (b, width).

    The scale multiplies the cosines; ``first`` is the number of this rank's first pair in the batch, here and
    below.
    """
    images, texts = gather(image), gather(text)
    target = torch.arange(first, first + len(image), device=image.device)
    by_image = _log_sum_exp(image, texts, scale)
    by_text = _log_sum_exp(text, images, scale)
    matched = scale * (image * text).sum(dim=1)
    weight = 1 / (2 * len(images))
    image_gradient, scale_gradient = _softmax_gradient(
        image, texts, scale, by_image, gather(by_text), target, weight
    )
    text_gradient, _ = _softmax_gradient(text, images, scale, by_text, gather(by_image), target, weight)
    return RowLoss(
        share=weight * (by_image + by_text - 2 * matched).sum(),
        features=(image_gradient, text_gradient),
        scale=scale_gradient,
    )


def sigmoid_row_loss(  # noqa: PLR0913, PLR0917 - a logit has a scale and a bias
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, gather: Gather, first: int
) -> RowLoss:
    """Compute SigLIP's loss; arguments as of `softmax_row_loss`, and the bias of the logits."""
    images, texts = gather(image), gather(text)
    share, scale_gradient, bias_gradient = (torch.zeros((), device=image.device) for _ in range(3))
    gradients = []
    for own, others in ((image, texts), (text, images)):
        parts = []
        for rows, cosines in _chunks(own, others):
            logits = scale * cosines + bias
            diagonal = torch.arange(len(rows), device=own.device), rows + first
            sign = torch.full_like(logits, -1.0)
            sign[diagonal] = 1.0
            slope = -sign * torch.sigmoid(-sign * logits) / len(images)
            if own is image:  # each entry counts once, in the row of its image
                share = share - functional.logsigmoid(sign * logits).sum() / len(images)
                scale_gradient = scale_gradient + (slope * cosines).sum()
                bias_gradient = bias_gradient + slope.sum()
            parts.append(scale * (slope @ others))
        gradients.append(torch.cat(parts))
    return RowLoss(share=share, features=tuple(gradients), scale=scale_gradient, bias=bias_gradient)


def simclr_row_loss(
    first_view: Tensor, second_view: Tensor, *, temperature: float, gather: Gather, first: int
) -> RowLoss:
    """Compute SimCLR's cross-entropy of this rank's normalised embeddings, (b, width), of two views.

    The temperature divides the cosines (Chen et al. 2020, equation 1).
    """
    batch = gather(first_view), gather(second_view)
    pairs = len(batch[0])
    scale = torch.tensor(1 / temperature, device=first_view.device)
    own, everyone = torch.cat([first_view, second_view]), torch.cat(batch)
    columns = torch.arange(first, first + len(first_view), device=own.device)
    itself, partner = torch.cat([columns, columns + pairs]), torch.cat([columns + pairs, columns])
    sums = _log_sum_exp(own, everyone, scale, masked=itself)
    whole = torch.cat([gather(part) for part in sums.chunk(2)])
    weight = 1 / (2 * pairs)
    gradient, _ = _softmax_gradient(own, everyone, scale, sums, whole, partner, weight, masked=itself)
    matched = scale * (first_view * second_view).sum()
    return RowLoss(share=weight * (sums.sum() - 2 * matched), features=gradient.chunk(2))


def _chunks(own: Tensor, others: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield row numbers and their cosines with all other rows, a chunk of rows at a time."""
    size = max(1, CHUNK_ENTRIES // len(others))
    for rows in torch.arange(len(own), device=own.device).split(size):
        yield rows, own[rows] @ others.T


def _log_sum_exp(own: Tensor, others: Tensor, scale: Tensor, masked: Tensor | None = None) -> Tensor:
    """Return ln Σ exp of each row's logits; ``masked`` is the column of each row that does not take part."""
    sums = []
    for rows, cosines in _chunks(own, others):
        logits = scale * cosines
        if masked is not None:
            logits.scatter_(1, masked[rows, None], float("-inf"))
        sums.append(logits.logsumexp(dim=1))
    return torch.cat(sums)


def _softmax_gradient(  # noqa: PLR0913, PLR0917 - both sides of a matrix, and the meaning of its rows
    own: Tensor,
    others: Tensor,
    scale: Tensor,
    own_sums: Tensor,
    other_sums: Tensor,
    target: Tensor,
    weight: float,
    masked: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the gradients with respect to this rank's features and to the scale, by own rows alone.

    Both softmaxes follow from the exchanged sums: P_ij = exp(S_ij − r_i), Q_ij = exp(S_ij − c_j).
    """
    gradients, scale_gradient = [], torch.zeros((), device=own.device)
    for rows, cosines in _chunks(own, others):
        logits = scale * cosines
        slope = (logits - own_sums[rows, None]).exp_() + (logits - other_sums[None]).exp_()
        if masked is not None:
            slope.scatter_(1, masked[rows, None], 0.0)
        slope.scatter_add_(1, target[rows, None], torch.full_like(slope[:, :1], -2.0))
        slope *= weight
        scale_gradient = scale_gradient + (slope * cosines).sum()
        gradients.append(scale * (slope @ others))
    return torch.cat(gradients), scale_gradient
