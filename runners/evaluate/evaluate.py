"""Evaluation of a model: zero-shot, probes and retrieval, depending on the labels that a set has."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from budgets.cost.architecture import Architecture
from budgets.cost.flops import encoding_flops
from runners.data.evaluation.paper_suite import variant_means
from runners.data.evaluation.set_reader import BATCH, SetReader
from runners.data.pool.decoded import Images
from runners.data.reading.training_data import ahead
from runners.evaluate.metrics import retrieval, zero_shot
from runners.evaluate.probe import Probe, few_shot, fit_probe, probe_accuracy
from runners.models.count_by_torch import ensure_counted
from runners.models.load_model import Encoder, LoadedModel
from runners.models.model import compute_context
from runners.training.ranks import dealt, in_turn, rank, rank_count

_CLASSES = 10
"""Classes whose prompts are encoded at once, as open_clip does; weights depend on it in their last bits."""

T = TypeVar("T")


class NotFiniteError(ValueError):
    """A model gives features that are NaN or infinite, which no metric can be computed from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFeatures:
    """A model's features of a set, all normalised, which all metrics are computed from."""

    images: Tensor  # (N, D)
    truth: Tensor  # class of each image, (N,); for retrieval the index of each text's image, (M,)
    texts: Tensor  # zero-shot weights, (D, classes); for retrieval the features of the texts, (M, D)
    classnames: tuple[str, ...] = ()  # empty for retrieval
    train: tuple[Tensor, Tensor] | None = None  # images and classes of the training split for probes


def encode_set(encoder: Encoder, data: SetReader, *, probe: bool = False) -> SetFeatures:
    """Encode a set batch by batch, while the next batch is read; for probes, its training split as well.

    The ranks of a trial take turns; each has the features of all.

    Raises:
        ValueError: The set, or a training split for a probe, does not exist or is not valid.
    """
    if not data.is_retrieval:

        def weights(names: list[str]) -> Tensor:
            return encoder.classifier(tuple(names), data.templates).T

        images, labels = _encode_split(encoder, data, "test")
        return SetFeatures(
            images=images,
            truth=labels,
            texts=_encode_texts(weights, list(data.classnames), _CLASSES, encoder.device).T.contiguous(),
            classnames=data.classnames,
            train=_encode_split(encoder, data, "train") if probe else None,
        )
    images, captions = _encode_images(encoder, data.captioned())
    return SetFeatures(
        images=images,
        truth=torch.tensor([image for image, row in enumerate(captions) for _ in row], device=encoder.device),
        texts=_encode_texts(encoder.texts, [text for row in captions for text in row], BATCH, encoder.device),
    )


def _encode_split(encoder: Encoder, data: SetReader, split: str) -> tuple[Tensor, Tensor]:
    """Return the features of a split's images and their classes."""
    features, labels = _encode_images(encoder, data.labelled(split))
    return features, torch.tensor(labels, device=encoder.device)


def _encode_images(encoder: Encoder, batches: Iterator[tuple[Images, Iterable[T]]]) -> tuple[Tensor, list[T]]:
    """Return the features of all images, of which the batches have this rank's, and the truths."""
    features, truths, count = [], list[T](), 0
    for images, some in ahead(batches):
        truths += some
        count += 1
        if len(images):
            features.append(encoder.images(images).cpu())
    return _joined(features, count, encoder.device), truths


def _encode_texts(
    encode: Callable[[list[str]], Tensor], texts: list[str], rows: int, device: torch.device
) -> Tensor:
    """Return the features of all texts, some rows of them encoded at once and by a rank."""
    starts = range(0, len(texts), rows)
    features = [encode(texts[start : start + rows]).cpu() for start in starts[rank() :: rank_count()]]
    return _joined(features, len(starts), device)


def _joined(local: list[Tensor], count: int, device: torch.device) -> Tensor:
    """Join the features of ``count`` batches, of which this rank has computed its own."""
    features = torch.cat(dealt(local, count)).to(device)
    if not torch.isfinite(features).all():
        raise NotFiniteError("the model's features are not finite: its weights are NaN or too large")
    return features


def evaluate(encoder: Encoder, sets: Mapping[str, SetReader], probes: Collection[str]) -> dict[str, float]:
    """Measure a model, as `measure`; each image and text is encoded once, by one of the ranks.

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
    fits = {
        name: partial(fit_probe, *data.train, len(data.classnames), seed=0)
        for name, data in sets.items()
        if data.train is not None
    }
    probes = dict(zip(fits, in_turn([*fits.values()]), strict=True))
    for name, data in sets.items():
        with context():
            if data.classnames:
                values = zero_shot(data.images, data.truth, data.texts)
            else:
                values = retrieval(data.images, data.texts, data.truth)
        if data.train is not None:
            known = len(data.classnames)
            values |= few_shot(*data.train, features=data.images, labels=data.truth, classes=known)
        values |= _probed(name, sets, probes)
        metrics |= {f"{name}/{metric}": value for metric, value in values.items()}
    return metrics


def _probed(name: str, sets: Mapping[str, SetFeatures], probes: Mapping[str, Probe]) -> dict[str, float]:
    """Test a set's own probe on it, or the first probe whose classes include the set's."""
    data = sets[name]
    for fitted in [name] if name in probes else probes if data.classnames else ():
        among = _places(data.classnames, sets[fitted].classnames)
        if among is not None:
            return probe_accuracy(probes[fitted].classes(data.images, torch.tensor(among)) == data.truth)
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
