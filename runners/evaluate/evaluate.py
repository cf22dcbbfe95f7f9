"""Evaluation of a model: zero-shot, probes and retrieval, depending on the labels that a set has."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from runners.evaluate.features import SetFeatures
from runners.evaluate.few_shot import few_shot
from runners.evaluate.probe import Probe, fit_probe, probe_accuracy
from runners.evaluate.retrieval import retrieval
from runners.evaluate.zero_shot import zero_shot


def evaluate(
    sets: Mapping[str, SetFeatures], *, context: Callable[[], AbstractContextManager[object]] = nullcontext
) -> dict[str, float]:
    """Measure a model: zero-shot classification on sets with classes, retrieval on sets with captions.

    If a set has features of a training split, a linear probe and few-shot probes are fitted to them. The
    probe is tested on the set itself, and on every set without a training split whose classes are all among
    the probe's, for example a set of shifted images.

    Args:
        sets: Name → the model's features of the set.
        context: Precision in which similarities are computed; pass the model's own for a trial.

    Returns:
        ``<set>/<metric>`` → value. The standard error of a value is ``<set>/<metric>_se``.
    """
    metrics: dict[str, float] = {}
    probes: dict[str, Probe] = {}
    for name, data in sets.items():
        if data.labels is None:
            assert data.texts is not None
            assert data.image_of_text is not None
            with context():
                values = retrieval(data.images, data.texts, data.image_of_text)
        else:
            assert data.classifier is not None
            with context():
                values = zero_shot(data.images, data.labels, data.classifier)
            if data.train_images is not None:
                assert data.train_labels is not None
                classes = len(data.classnames)
                probes[name] = fit_probe(data.train_images, data.train_labels, classes, seed=0)
                values |= few_shot(
                    data.train_images,
                    data.train_labels,
                    features=data.images,
                    labels=data.labels,
                    classes=classes,
                )
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
    # After the first loop: a probe may be tested on any set, so all must be fitted.
    for name in sets:
        metrics |= {f"{name}/{metric}": value for metric, value in _probed(name, sets, probes).items()}
    return metrics


def _probed(name: str, sets: Mapping[str, SetFeatures], probes: Mapping[str, Probe]) -> dict[str, float]:
    """Test a set's own probe on it, or the first probe whose classes include the set's."""
    data = sets[name]
    if data.labels is None:
        return {}
    for fitted in [name] if name in probes else probes:
        among = _places(data.classnames, sets[fitted].classnames)
        if among is not None:
            columns = torch.tensor(among, device=data.labels.device)
            return probe_accuracy(probes[fitted].classes(data.images, columns) == data.labels)
    return {}


def _places(names: tuple[str, ...], among: tuple[str, ...]) -> list[int] | None:
    """Return the position of each name in ``among``; ``None`` if one is missing or names repeat."""
    places = {name: place for place, name in enumerate(among)}
    if len(places) < len(among) or not set(names) <= set(places):
        return list(range(len(among))) if names == among else None
    return [places[name] for name in names]
