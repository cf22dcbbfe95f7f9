"""Evaluation of a model: zero-shot, probes and retrieval, depending on the labels that a set has."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch

from budgets.cost.architecture import Architecture
from budgets.cost.flops import encoding_flops
from runners.data.evaluation.evaluation_facts import SetFacts
from runners.data.evaluation.paper_suite import variant_means
from runners.data.evaluation.set_reader import SetReader
from runners.evaluate.features import Encoder, SetFeatures, encode_set
from runners.evaluate.probe import Probe, few_shot, fit_probe, probe_accuracy
from runners.evaluate.retrieval import retrieval
from runners.evaluate.zero_shot import zero_shot
from runners.models.count_by_torch import ensure_counted
from runners.models.load_model import LoadedModel
from runners.models.model import compute_context


def evaluate(
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
                train, classes = (data.train_images, data.train_labels), len(data.classnames)
                probes[name] = fit_probe(*train, classes, seed=0)
                values |= few_shot(*train, features=data.images, labels=data.labels, classes=classes)
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


def evaluate_model(
    loaded: LoadedModel,
    sets: Mapping[str, Path],
    facts: Mapping[str, SetFacts],
    *,
    precision: str,
    device: torch.device,
) -> dict[str, float]:
    """Return the metrics of a model, as ``<set>/<metric>``; each image and text is encoded once."""
    context = partial(compute_context, precision, device)
    encoder = Encoder(
        model=loaded.model,
        tokenize=loaded.tokenize,
        normalise=loaded.normalise,
        device=device,
        context=context,
    )
    threads, features = torch.get_num_threads(), {}
    for name, path in sets.items():
        data = SetReader(path=path, decode=loaded.decode, threads=threads)
        features[name] = encode_set(encoder, data, probe="probe_top1" in facts[name].metrics)
    metrics = evaluate(features, context=context)
    return metrics | variant_means(metrics)


def forward_flops(loaded: LoadedModel, *, images: int, texts: int) -> int | None:
    """Return the FLOPs of encoding images and texts once each; None where they cannot be counted."""
    try:
        architecture = ensure_counted(Architecture(name="the model", config=dict(loaded.config)))
        return encoding_flops(architecture, images=images, texts=texts)
    except ValueError:
        return None
