"""Evaluation of a model: zero-shot, probes and retrieval, depending on the labels that a set has."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from budgets.cost.architecture import Architecture
from budgets.cost.flops import encoding_flops
from runners.data.evaluation.paper_suite import variant_means
from runners.data.evaluation.set_reader import SetReader
from runners.evaluate.features import SetFeatures, encode_set
from runners.evaluate.probe import Probe, few_shot, fit_probe, probe_accuracy
from runners.evaluate.retrieval import retrieval
from runners.evaluate.zero_shot import zero_shot
from runners.models.count_by_torch import ensure_counted
from runners.models.load_model import Encoder, LoadedModel
from runners.models.model import compute_context


def evaluate(encoder: Encoder, sets: Mapping[str, SetReader], probes: Collection[str]) -> dict[str, float]:
    """Measure a model, as `measure`; each image and text is encoded once.

    ``probes`` are the sets with a training split that probes are fitted to.
    """
    features = {name: encode_set(encoder, data, probe=name in probes) for name, data in sets.items()}
    return measure(features, context=encoder.context)


def measure(
    sets: Mapping[str, SetFeatures], *, context: Callable[[], AbstractContextManager[object]] = nullcontext
) -> dict[str, float]:
    """Measure a model: zero-shot classification on sets with classes, retrieval on sets with captions.

    If a set has features of a training split, a linear probe and few-shot probes are fitted to them. The
    probe is tested on the set itself, and on every set without a training split whose classes are all among
    the probe's, for example a set of shifted images. Similarities are computed in the precision of
    ``context``. Returns ``<set>/<metric>`` → value, its standard error as ``<set>/<metric>_se``.
    """
    metrics: dict[str, float] = {}
    probes: dict[str, Probe] = {}
    for name, data in sets.items():
        with context():
            if data.classnames:
                values = zero_shot(data.images, data.truth, data.texts)
            else:
                values = retrieval(data.images, data.texts, data.truth)
        if data.train is not None:
            classes = len(data.classnames)
            probes[name] = fit_probe(*data.train, classes, seed=0)
            values |= few_shot(*data.train, features=data.images, labels=data.truth, classes=classes)
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
    # After the first loop: a probe may be tested on any set, so all must be fitted.
    for name in sets:
        metrics |= {f"{name}/{metric}": value for metric, value in _probed(name, sets, probes).items()}
    return metrics


def _probed(name: str, sets: Mapping[str, SetFeatures], probes: Mapping[str, Probe]) -> dict[str, float]:
    """Test a set's own probe on it, or the first probe whose classes include the set's."""
    data = sets[name]
    for fitted in [name] if name in probes else probes if data.classnames else ():
        among = _places(data.classnames, sets[fitted].classnames)
        if among is not None:
            columns = torch.tensor(among, device=data.truth.device)
            return probe_accuracy(probes[fitted].classes(data.images, columns) == data.truth)
    return {}


def _places(names: tuple[str, ...], among: tuple[str, ...]) -> list[int] | None:
    """Return the position of each name in ``among``; ``None`` if one is missing or names repeat."""
    places = {name: place for place, name in enumerate(among)}
    if len(places) < len(among) or not set(names) <= set(places):
        return list(range(len(among))) if names == among else None
    return [places[name] for name in names]


def evaluate_model(
    loaded: LoadedModel,
    sets: Mapping[str, Path],
    probes: Collection[str],
    *,
    precision: str,
) -> dict[str, float]:
    """Return the metrics of a model, as `evaluate`, and their means over the paper's sets."""
    encoder = replace(loaded, context=partial(compute_context, precision, loaded.device))
    threads = torch.get_num_threads()
    readers = {
        name: SetReader(path=path, decode=loaded.decode, threads=threads) for name, path in sets.items()
    }
    metrics = evaluate(encoder, readers, probes)
    return metrics | variant_means(metrics)


def forward_flops(loaded: LoadedModel, *, images: int, texts: int) -> int | None:
    """Return the FLOPs of encoding images and texts once each; None where they cannot be counted."""
    try:
        architecture = ensure_counted(Architecture(name="the model", config=dict(loaded.config)))
        return encoding_flops(architecture, images=images, texts=texts)
    except ValueError:
        return None
