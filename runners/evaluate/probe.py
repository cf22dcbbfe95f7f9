"""Linear probe: logistic regression on frozen features by L-BFGS, its regulariser swept on a split.

The features are the model's normalised image embeddings, those that zero-shot classification uses, so that
one forward pass serves both, and any CLIP has them (CLIP_benchmark probes the same).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from runners.evaluate import standard_error

STRENGTHS = tuple(10.0**-exponent for exponent in range(1, 11))
"""Factors of half the squared weights beside the mean cross-entropy, strongest first."""

_HELD_OUT = 5
"""One image in so many of each class chooses the strength."""

_ROWS_AT_ONCE = 65_536
_STEPS = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A linear classifier.

    Attributes:
        weights: float64 (D + 1, classes); the last row is the bias.
        strength: The regulariser's, as it was chosen.
    """

    weights: Tensor
    strength: float

    def classes(self, features: Tensor, among: Tensor | None = None) -> Tensor:
        """Most likely class of each image, int64 (N,): of all classes, or places in ``among``, (few,)."""
        weights = self.weights if among is None else self.weights[:, among]
        return torch.cat([(part @ weights).argmax(1) for _, part in _parts(features)])


def fit_probe(features: Tensor, labels: Tensor, classes: int, *, seed: int) -> Probe:
    """Fit a probe: the strength by cross-entropy on a fifth of each class, then the weights on all.

    From the strongest regulariser on, each fit starts at the one before; the sweep ends where a weaker one
    does not help.

    Args:
        features: Normalised, (N, D).
        labels: Class of each, (N,).
        classes: How many there are.
        seed: Of the split.
    """
    held_out = _split(labels.cpu().numpy(), seed)
    chosen = torch.from_numpy(held_out).to(features.device)
    weights = torch.zeros(features.shape[1] + 1, classes, dtype=torch.float64, device=features.device)
    best, best_loss = STRENGTHS[0], float("inf")
    for strength in STRENGTHS if held_out.any() and not held_out.all() else ():
        weights = _fit(features[~chosen], labels[~chosen], weights, strength)
        loss, _ = _loss(features[chosen], labels[chosen], weights, gradient=False)
        if loss >= best_loss:
            break
        best, best_loss = strength, loss
    # From zero, so that the fit does not depend on how the sweep went.
    return Probe(weights=_fit(features, labels, torch.zeros_like(weights), best), strength=best)


def probe_accuracy(right: Tensor) -> dict[str, float]:
    """``probe_top1`` and its standard error, from whether each test image is right, bool (N,)."""
    return {
        "probe_top1": right.sum().item() / len(right),
        "probe_top1_se": standard_error.of_mean(right),
    }


def _split(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Hold out a fifth of each class at random, at least one image where there are two; bool (N,)."""
    held_out = np.zeros(len(labels), bool)
    order = np.random.default_rng(seed).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    _, starts, counts = np.unique(labels[grouped], return_index=True, return_counts=True)
    for start, count in zip(starts, counts, strict=True):
        held_out[grouped[start : start + max(count // _HELD_OUT, min(count - 1, 1))]] = True
    return held_out


def _fit(features: Tensor, labels: Tensor, start: Tensor, strength: float) -> Tensor:
    shape, device = start.shape, start.device

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(flat).view(shape).to(device)
        loss, gradient = _loss(features, labels, weights, gradient=True)
        slope = weights * strength
        slope[-1] = 0  # the bias is free
        value = loss + 0.5 * (weights[:-1].square().sum() * strength).item()
        return value, (gradient + slope).cpu().numpy().ravel()

    # A thousand times tighter than scikit-learn's gtol; what is left moves a prediction in some thousands.
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": 1e-7, "ftol": 1e-8}
    found = minimize(objective, start.cpu().numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).view(shape).to(device)


def _loss(features: Tensor, labels: Tensor, weights: Tensor, *, gradient: bool) -> tuple[float, Tensor]:
    """Mean cross-entropy and its gradient with respect to the weights."""
    total, slope = 0.0, torch.zeros_like(weights)
    for start, part in _parts(features):
        right = labels[start : start + len(part), None]
        logs = (part @ weights).log_softmax(1)
        total -= logs.gather(1, right).sum().item()
        if gradient:
            errors = logs.exp_()
            errors.scatter_add_(1, right, torch.full_like(right, -1, dtype=errors.dtype))
            slope.addmm_(part.T, errors)
    return total / len(features), slope / len(features)


def _parts(features: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Rows in float64 with a one for the bias, not all at once: ImageNet's would take 5 GB, its logits 10."""
    for start in range(0, len(features), _ROWS_AT_ONCE):
        part = features[start : start + _ROWS_AT_ONCE].double()
        yield start, torch.cat([part, part.new_ones(len(part), 1)], 1)
