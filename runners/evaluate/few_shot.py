"""Few-shot classification: probes fitted to five or ten images per class, averaged over three draws."""

import numpy as np
import torch
from torch import Tensor

from runners.data.evaluation.evaluation_facts import SHOTS
from runners.evaluate import standard_error
from runners.evaluate.probe import fit_probe

DRAWS = 3


def few_shot(
    train_features: Tensor, train_labels: Tensor, *, features: Tensor, labels: Tensor, classes: int
) -> dict[str, float]:
    """Fit and test probes on few images per class; every model gets the same images.

    Args:
        train_features: Normalised features, (M, D).
        train_labels: Class of each, (M,).
        features: Normalised features of the test images, (N, D).
        labels: Class of each, (N,).
        classes: Number of classes.

    Returns:
        ``few_shot_<K>_top1``, the mean over draws, and its standard error over draws and test images; only
        for K up to the number of images of the smallest class.
    """
    found: dict[str, float] = {}
    fewest = int(train_labels.bincount(minlength=classes).min())
    for shots in (shots for shots in SHOTS if shots <= fewest):
        right = []
        for draw in range(DRAWS):
            chosen = _draw(train_labels, shots, seed=draw)
            probe = fit_probe(train_features[chosen], train_labels[chosen], classes, seed=draw)
            right.append(probe.classes(features) == labels)
        hits = torch.stack(right)
        found[f"few_shot_{shots}_top1"] = hits.double().mean().item()
        found[f"few_shot_{shots}_top1_se"] = standard_error.of_crossed(hits)
    return found


def _draw(labels: Tensor, shots: int, *, seed: int) -> Tensor:
    """Choose ``shots`` images of each class at random; returns their indices, ascending."""
    classes = labels.cpu().numpy()
    # A stable sort by class of a random permutation: the first `shots` of each class are a random sample.
    order = np.random.default_rng(seed).permutation(len(classes))
    grouped = order[np.argsort(classes[order], kind="stable")]
    _, starts = np.unique(classes[grouped], return_index=True)
    chosen = np.concatenate([grouped[start : start + shots] for start in starts])
    return torch.from_numpy(np.sort(chosen)).to(labels.device)
