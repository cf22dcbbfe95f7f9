"""Linear and few-shot probes: logistic regression on frozen features by L-BFGS, regularised by a split.

The features are the normalised image embeddings that zero-shot classification uses, so that one forward pass
serves both and any CLIP model has them (CLIP_benchmark uses the same).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from runners.data.evaluation.evaluation_set import SHOTS
from runners.evaluate.metrics import error_of_crossed, error_of_mean
from runners.training.ranks import in_turn

STRENGTHS = tuple(10.0**-exponent for exponent in range(1, 11))
"""Weights of half the squared norm relative to the mean cross-entropy, strongest first."""

_HELD_OUT = 5
"""One image in five of each class is held out to choose the strength."""

DRAWS = 3  # of few images, over which their accuracy is averaged
_ROWS_AT_ONCE = 65_536
_STEPS = 500
_ON_CPU, _ON_GPU = (torch.float64,), (torch.float32, torch.float64)  # searches, one after the other


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A linear classifier with its weights, float64 (D + 1, classes) on the CPU; the last row is the bias."""

    weights: Tensor
    strength: float  # of the regulariser, as chosen

    def classes(self, features: Tensor, among: Tensor | None = None) -> Tensor:
        """Most likely class of each image, int64 (N,), of all or as an index into ``among``, (few,)."""
        weights = (self.weights if among is None else self.weights[:, among]).to(features.device)
        return torch.cat([(part @ weights).argmax(1) for _, part in _parts(features, weights.dtype)])


def fit_probe(features: Tensor, labels: Tensor, classes: int, *, seed: int) -> Probe:
    """Fit a probe: choose the strength by cross-entropy on a fifth of each class, then fit all images.

    Each fit of the sweep starts from the previous solution, from the strongest regulariser to the weakest;
    the sweep ends when a weaker one does not help. Features are normalised, (N, D), with the class of each,
    (N,); the seed is that of the split.
    """
    held_out = _split(labels.cpu().numpy(), seed)
    chosen = torch.from_numpy(held_out).to(features.device)
    weights = torch.zeros(features.shape[1] + 1, classes, dtype=torch.float64, device=features.device)
    best, best_loss = STRENGTHS[0], float("inf")
    for strength in STRENGTHS if held_out.any() and not held_out.all() else ():
        weights = _fit(features[~chosen], labels[~chosen], weights, strength)
        loss, _ = _loss(_parts(features[chosen], weights.dtype), labels[chosen], weights, gradient=False)
        if loss >= best_loss:
            break
        best, best_loss = strength, loss
    # Start from zero, so that the fit does not depend on the path of the sweep.
    return Probe(weights=_fit(features, labels, torch.zeros_like(weights), best).cpu(), strength=best)


def probe_accuracy(right: Tensor) -> dict[str, float]:
    """Return ``probe_top1`` and its standard error from the correctness of each test image, bool (N,)."""
    return {"probe_top1": right.sum().item() / len(right), "probe_top1_se": error_of_mean(right)}


def _split(labels: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Hold out a fifth of each class at random, at least one image if there are two; bool (N,)."""
    held_out = np.zeros(len(labels), bool)
    for mine in _shuffled_by_class(labels, seed):
        held_out[mine[: max(len(mine) // _HELD_OUT, min(len(mine) - 1, 1))]] = True
    return held_out


def _shuffled_by_class(labels: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Return the indices of each class's images in random order."""
    order = np.random.default_rng(seed).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    _, starts = np.unique(labels[grouped], return_index=True)
    return np.split(grouped, starts[1:])


def _fit(features: Tensor, labels: Tensor, start: Tensor, strength: float) -> Tensor:
    """Return the weights of least loss, by L-BFGS from some weights on.

    In float64, because its tolerance needs more precise gradients than float32's. Most GPUs are 64 times
    slower in float64: they search in float32 first, without TF32, and float64 takes a few steps from there.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        for dtype in _ON_GPU if start.is_cuda else _ON_CPU:
            start = _search(features, labels, start, strength, dtype)
    finally:
        torch.set_float32_matmul_precision(before)
    return start


def _search(features: Tensor, labels: Tensor, start: Tensor, strength: float, dtype: torch.dtype) -> Tensor:
    shape, device = start.shape, start.device
    # One part is converted once, not at each of hundreds of steps.
    only = list(_parts(features, dtype)) if len(features) <= _ROWS_AT_ONCE else None

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(flat).view(shape).to(device)
        loss, gradient = _loss(only or _parts(features, dtype), labels, weights, gradient=True)
        slope = weights * strength
        slope[-1] = 0  # the bias is not regularised
        value = loss + 0.5 * (weights[:-1].square().sum() * strength).item()
        return value, (gradient + slope).cpu().numpy().ravel()

    # gtol is 1000 times tighter than scikit-learn's default; the remaining error changes one prediction
    # in several thousand.
    options = {"maxiter": _STEPS, "maxfun": 2 * _STEPS, "gtol": 1e-7, "ftol": 1e-8}
    solved = minimize(objective, start.cpu().numpy().ravel(), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(solved.x).view(shape).to(device)


def _loss(
    parts: Iterable[tuple[int, Tensor]], labels: Tensor, weights: Tensor, *, gradient: bool
) -> tuple[float, Tensor]:
    """Return the mean cross-entropy and its gradient with respect to the weights."""
    total, slope = 0.0, torch.zeros_like(weights)
    for start, part in parts:
        right = labels[start : start + len(part), None]
        logs = (part @ weights.to(part.dtype)).log_softmax(1)
        total -= logs.gather(1, right).sum(dtype=torch.float64).item()
        if gradient:
            # d(cross-entropy)/d(logits) = softmax - one-hot.
            errors = logs.exp_()
            errors.scatter_add_(1, right, torch.full_like(right, -1, dtype=errors.dtype))
            slope += part.T @ errors
    return total / len(labels), slope / len(labels)


def _parts(features: Tensor, dtype: torch.dtype) -> Iterator[tuple[int, Tensor]]:
    """Yield rows with a one for the bias, in blocks: ImageNet at once would take 15 GB."""
    for start in range(0, len(features), _ROWS_AT_ONCE):
        part = features[start : start + _ROWS_AT_ONCE].to(dtype)
        yield start, torch.cat([part, part.new_ones(len(part), 1)], 1)


def few_shot(
    train_features: Tensor, train_labels: Tensor, *, features: Tensor, labels: Tensor, classes: int
) -> dict[str, float]:
    """Fit probes to five or ten images per class, and test them; every model gets the same images.

    The ranks of a trial take the fits in turn.

    Features are normalised, (M, D) of the training images and (N, D) of the test images, with the class of
    each. Returns ``few_shot_<K>_top1``, the mean over draws, and its standard error over draws and test
    images; only for K up to the number of images of the smallest class.
    """

    def right(shots: int, draw: int) -> Tensor:
        by_class = _shuffled_by_class(train_labels.cpu().numpy(), draw)
        chosen = torch.from_numpy(np.sort(np.concatenate([mine[:shots] for mine in by_class])))
        probe = fit_probe(train_features[chosen], train_labels[chosen], classes, seed=draw)
        return (probe.classes(features) == labels).cpu()

    metrics: dict[str, float] = {}
    fewest = int(train_labels.bincount(minlength=classes).min())
    possible = [shots for shots in SHOTS if shots <= fewest]
    tests = in_turn([partial(right, shots, draw) for shots in possible for draw in range(DRAWS)])
    for place, shots in enumerate(possible):
        hits = torch.stack(tests[DRAWS * place : DRAWS * (place + 1)])
        metrics[f"few_shot_{shots}_top1"] = hits.double().mean().item()
        metrics[f"few_shot_{shots}_top1_se"] = error_of_crossed(hits)
    return metrics
